package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/services/account/postgres"
)

// Limit is how often something may happen in a window that begins with its first.
type Limit struct {
	what   string
	most   int
	window time.Duration
}

// The limits by whom or what a call is about, beside those by who asks (budgets.go). They
// come second, and stop no device that has logged in before (ADR 0050). Each purpose has
// its own, so that none is used up by another.
var (
	limitPair    = Limit{"login of an address from a side", 5, time.Minute}
	limitAddress = Limit{"login of an address", 100, time.Hour}
	// LimitPassword is for the password of somebody who is logged in.
	LimitPassword = Limit{"password of a user", 5, time.Minute}
	limitAnswer   = Limit{"second factor of a login", 5, 5 * time.Minute}
	// LimitFactor is for the second factor of somebody who is logged in.
	LimitFactor = Limit{"second factor of a user", 5, 5 * time.Minute}

	limitRegisterPair    = Limit{"registration of an address from a side", 10, time.Hour}
	limitRegisterAddress = Limit{"registration of an address", 30, time.Hour}
	limitResend          = Limit{"new code of a registration", 10, time.Hour}
	limitResendAddress   = Limit{"new codes of an address", 30, time.Hour}
	limitForgotPair      = Limit{"forgotten password of an address from a side", 5, time.Hour}
	limitForgotAddress   = Limit{"forgotten password of an address", 20, time.Hour}

	limitInvite        = Limit{"invitations of an account", 60, time.Hour}
	limitInviteDay     = Limit{"invitations of an account in a day", 100, 24 * time.Hour}
	limitInvitePair    = Limit{"invitations of an account to an address", 5, time.Hour}
	limitInviteAddress = Limit{"invitations to an address", 20, 24 * time.Hour}
)

// Who is whom a limit counts. There is none of a raw address: see auth.Side.
type Who struct{ key string }

// OfSide is from where somebody asks; all of whom nothing is known are one.
func OfSide(s auth.Side) Who { return Who{"side " + s.String()} }

// OfAddress is an e-mail address.
func OfAddress(email string) Who { return Who{"address " + email} }

// OfUser is a user.
func OfUser(id string) Who { return Who{"user " + id} }

// OfAccount is an account.
func OfAccount(id string) Who { return Who{"account " + id} }

// OfToken is what a token of ours was given for.
func OfToken(token string) Who { return Who{"token " + token} }

// By is the limit for somebody, or several together; who is only kept as a hash.
func (l Limit) By(who ...Who) postgres.Limit {
	key := ""
	for _, w := range who {
		key += w.key + "\x00"
	}
	return postgres.Limit{Key: l.what + ":" + Digest(key), Most: l.most, Window: l.window}
}

// LoginLimits are those of guessing the password of an address.
func LoginLimits(ctx context.Context, email string) []postgres.Limit {
	return targets(ctx, email, limitPair, limitAddress)
}

// RegisterLimits are those of registering an address.
func RegisterLimits(ctx context.Context, email string) []postgres.Limit {
	return targets(ctx, email, limitRegisterPair, limitRegisterAddress)
}

// ForgotLimits are those of codes for a forgotten password.
func ForgotLimits(ctx context.Context, email string) []postgres.Limit {
	return targets(ctx, email, limitForgotPair, limitForgotAddress)
}

// targets are the limit of who asks for an address, and the one of all who do, which stops
// no known device.
func targets(ctx context.Context, email string, pair, all Limit) []postgres.Limit {
	a := AskerFrom(ctx)
	limits := []postgres.Limit{pair.By(a.who(), OfAddress(email))}
	if !a.Knows(email) {
		limits = append(limits, all.By(OfAddress(email)))
	}
	return limits
}

// ResendLimits are those of new codes of a registration, once the token turned out to be
// of one: nobody without it uses them up.
func ResendLimits(email, token string) []postgres.Limit {
	return []postgres.Limit{limitResend.By(OfToken(token)), limitResendAddress.By(OfAddress(email))}
}

// AnswerLimit is the one of guessing the second factor at the login of a user.
func AnswerLimit(ctx context.Context, user Who, email string) postgres.Limit {
	if a := AskerFrom(ctx); a.Knows(email) {
		return limitAnswer.By(user, a.who())
	}
	return limitAnswer.By(user)
}

// InviteLimits are those of inviting an address to an account.
func InviteLimits(accountID, email string) []postgres.Limit {
	return []postgres.Limit{
		limitInvitePair.By(OfAccount(accountID), OfAddress(email)), limitInvite.By(OfAccount(accountID)),
		limitInviteDay.By(OfAccount(accountID)), limitInviteAddress.By(OfAddress(email)),
	}
}

// Limits counts attempts in the database, so that a restart forgets none.
type Limits struct{ Store *postgres.Store }

// Attempt counts before it is known how the attempt ends, so that many at once
// cannot slip through; Refund takes it back for a good one.
func (l Limits) Attempt(ctx context.Context, limits ...postgres.Limit) error {
	wait, err := l.Store.TakeAttempt(ctx, limits)
	if err == nil && wait > 0 {
		err = apierr.New(errorv1.Reason_REASON_RATE_LIMITED, "too many attempts").WithRetryAfter(wait)
	}
	return err
}

// Refund takes attempts back.
func (l Limits) Refund(ctx context.Context, limits ...postgres.Limit) error {
	return l.Store.RefundAttempt(ctx, limits)
}

// Guess runs check within limits, of which only wrong guesses are used up.
func (l Limits) Guess(ctx context.Context, limits []postgres.Limit, check func() error) error {
	if err := l.Attempt(ctx, limits...); err != nil {
		return err
	}
	err := check()
	if wrong(err) {
		return err
	}
	return errors.Join(err, l.Refund(context.WithoutCancel(ctx), limits...))
}

// wrong reports whether a call failed by what it guessed, or came too often for whom it is
// about: such calls count.
func wrong(err error) bool {
	if err == nil {
		return false
	}
	switch apierr.From(err).Reason {
	case errorv1.Reason_REASON_INVALID_CREDENTIALS, errorv1.Reason_REASON_INVALID_CODE, errorv1.Reason_REASON_INVALID_SESSION,
		errorv1.Reason_REASON_INVALID_REFRESH_TOKEN, errorv1.Reason_REASON_INVITATION_OVER, errorv1.Reason_REASON_NOT_FOUND,
		errorv1.Reason_REASON_RATE_LIMITED:
		return true
	}
	return false
}

// Digest is the SHA-256 of a text, in hex.
func Digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
