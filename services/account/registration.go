package account

import (
	"strings"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// Limits of a registration.
const (
	// CodeLife is how long a verification code is good.
	CodeLife = 15 * time.Minute
	// MaxCodeAttempts is how many wrong codes end a registration's code.
	MaxCodeAttempts = 5
)

// Registration is a sign-up that waits for its e-mail code.
type Registration struct {
	Email        string
	PasswordHash string
	FullName     string
	AccountName  string
	CodeHash     []byte
	CodeExpires  time.Time
	Attempts     int
	UserID       string // set once verified
	AccountID    string // set once verified
}

// ErrInvalidCode is a code that is wrong, used up or expired.
var ErrInvalidCode = apierr.New(errorv1.Reason_REASON_INVALID_CODE, "the code is wrong or has expired; ask for a new one")

// common are passwords that everybody tries; the length rule removes most.
var common = []string{"password1234", "123456789012", "qwertyuiop12", "administrator", "letmeinletmein", "passwordpassword"}

// CheckPassword refuses passwords that are easy to guess. Length is a rule of
// the contract.
func CheckPassword(password, email string) error {
	weak := apierr.New(errorv1.Reason_REASON_WEAK_PASSWORD, "the password is too easy to guess").
		WithFields(apierr.Field{Field: "password", Message: "is too easy to guess"})
	lower := strings.ToLower(password)
	for _, c := range common {
		if lower == c {
			return weak
		}
	}
	local, _, _ := strings.Cut(NormalEmail(email), "@")
	if lower == NormalEmail(email) || (len(local) >= 6 && strings.Contains(lower, local)) {
		return weak
	}
	if strings.Count(password, password[:1]) == len(password) {
		return weak
	}
	return nil
}
