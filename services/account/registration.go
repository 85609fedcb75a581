package account

import (
	"strings"
	"time"

	"github.com/ccojocar/zxcvbn-go"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// Limits of a registration.
const (
	// CodeLife is how long a verification code is good.
	CodeLife = 15 * time.Minute
	// MaxCodeAttempts is how many wrong codes end a registration's code.
	MaxCodeAttempts = 5
	// MaxRegistrations is how many registrations of one address, by one side, may wait for
	// their codes.
	MaxRegistrations = 10
	// RegistrationLife is how long a registration is kept: for so long it can be finished
	// with a new code, and verifying it again answers the same.
	RegistrationLife = 24 * time.Hour
)

// Registration is a sign-up that waits for its e-mail code.
type Registration struct {
	Email string
	// TokenHash is of the token that Register answered, by which the registration is
	// found again.
	TokenHash []byte
	// Known says that the address has a user already: the registration answers as any
	// other and gives nothing.
	Known        bool
	PasswordHash string
	FullName     string
	AccountName  string
	CodeHash     []byte
	CodeExpires  time.Time
	Attempts     int
	Subject      string // the sub at the identity provider; the local one sets it once verified
	UserID       string // set once verified
	AccountID    string // set once verified
	// Asker marks who began it, without telling.
	Asker string
	// InvitationHash is of the token that the person registers with; no account is
	// made then.
	InvitationHash []byte
}

// ErrInvalidCode is a code that is wrong, used up or expired.
var ErrInvalidCode = apierr.New(errorv1.Reason_REASON_INVALID_CODE, "the code is wrong or has expired; ask for a new one")

// minScore is what a password must reach of zxcvbn's 0 to 4: 2 takes more than
// 10⁸ guesses, which no limit of ours allows.
const minScore = 2

// scored is how many bytes of a password the estimate looks at; more take it long
// and are strong anyway.
const scored = 64

// CheckPassword refuses passwords that are easy to guess: common ones, words and
// keyboard walks with some digits behind, the person's own name or address. field
// is the request field that the error names. Length is a rule of the contract.
func CheckPassword(field, password string, about ...string) error {
	var own []string
	for _, a := range about {
		own = append(own, strings.FieldsFunc(strings.ToLower(a), func(c rune) bool { return strings.ContainsRune(" @.-_+", c) })...)
	}
	if zxcvbn.PasswordStrength(password[:min(len(password), scored)], own).Score >= minScore {
		return nil
	}
	return apierr.New(errorv1.Reason_REASON_WEAK_PASSWORD, "the password is too easy to guess").
		WithFields(apierr.Field{Field: field, Message: "is too easy to guess: use several words that do not belong together"})
}
