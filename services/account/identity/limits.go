package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

const day = 24 * time.Hour

// Limit is how often something may happen in a window that begins with its first.
type Limit struct {
	what   string
	most   int
	window time.Duration
}

// rate is how often, in what time.
type rate struct {
	most   int
	window time.Duration
}

// target is how often all who ask together may try something of one target. Those of whom
// nothing is known are counted together, and apart from them all devices that logged in
// before: who can log in has as many devices as they like, so the limit of each device
// is none of the target.
type target struct{ unknown, known []Limit }

// newTarget makes both limits of a target. There is no other way to make one, so that none
// forgets the known devices.
func newTarget(what string, unknown, known []rate) target {
	if len(unknown) == 0 || len(known) == 0 {
		panic(what + ": a limit of a target is for unknown and for known devices")
	}
	limits := func(what string, rates []rate) (limits []Limit) {
		for _, r := range rates {
			limits = append(limits, Limit{what + " in " + r.window.String(), r.most, r.window})
		}
		return limits
	}
	return target{limits(what, unknown), limits(what+" by known devices", known)}
}

// evenTarget is a target that known and unknown devices may try as often.
func evenTarget(what string, most int, window time.Duration) target {
	r := []rate{{most, window}}
	return newTarget(what, r, r)
}

// early are tries of a target that each network has for itself, before those that all who
// ask share: a crowd uses up what is shared, and leaves somebody from elsewhere theirs.
// Together they have a bound too.
type early struct{ each, all Limit }

func newEarly(what string, each, all int, window time.Duration) early {
	return early{Limit{what + " from a network", each, window}, Limit{what + " from each network", all, window}}
}

// by are the limits of an early try.
func (e early) by(a Asker, of Who) []postgres.Limit {
	return []postgres.Limit{e.each.By(OfNetwork(a.Side), of), e.all.By(of)}
}

// The limits by whom or what a call is about, beside those by who asks (budgets.go). They
// come second, and devices that logged in before have their own (ADR 0050). Each purpose
// has its own, so that none is used up by another.
var (
	limitPair    = Limit{"login of an address from a side", 5, time.Minute}
	limitAddress = evenTarget("login of an address", 100, time.Hour)
	// LimitPassword is for the password of somebody who is logged in.
	LimitPassword   = Limit{"password of a user", 5, time.Minute}
	limitAnswerPair = Limit{"second factor of a login from a side", 5, 5 * time.Minute}
	limitAnswer     = newTarget("second factor of a login", []rate{{5, 5 * time.Minute}, {8, day}}, []rate{{15, day}})
	earlyAnswer     = newEarly("second factor of a login", 2, 7, day)
	// limitRecovery is for recovery codes, which nobody guesses: who has one need not wait for
	// those who guess at the other codes.
	limitRecovery = Limit{"recovery code of a user from a side", 5, 5 * time.Minute}
	// limitSession is for one login that waits for the second factor, which does not wait
	// for longer than that.
	limitSession = Limit{"second factor of a session", 5, 15 * time.Minute}
	// limitFactor is for the second factor of somebody who is logged in.
	limitFactor    = Limit{"second factor of a user", 5, 5 * time.Minute}
	limitFactorDay = Limit{"second factor of a user in a day", 15, day}

	// The limits of guesses at codes of registrations, whatever number of codes there were:
	// those of one registration, those of who asks, and those of short codes in all.
	limitVerify        = Limit{"codes of a registration", 10, day}
	limitVerifyPair    = Limit{"codes of an address from a side", 10, time.Hour}
	limitVerifyAddress = Limit{"codes of an address", 25, day}
	earlyVerify        = newEarly("codes of an address", 2, 25, day)

	// Those of short codes for a forgotten password, which another identity provider mails.
	limitResetPair    = Limit{"reset codes of an address from a side", 10, time.Hour}
	limitResetAddress = evenTarget("reset codes of an address", 25, day)
	earlyReset        = newEarly("reset codes of an address", 2, 25, day)

	limitRegisterPair    = Limit{"registration of an address from a side", 10, time.Hour}
	limitRegisterAddress = newTarget("registration of an address", []rate{{28, time.Hour}}, []rate{{30, time.Hour}})
	earlyRegister        = newEarly("registration of an address", 2, 100, time.Hour)
	limitResend          = Limit{"new code of a registration", 10, time.Hour}
	limitResendAddress   = Limit{"new codes of an address", 30, time.Hour}
	// The first new codes of a registration, whatever those of others used up.
	limitResendFirst    = Limit{"first new codes of a registration", 2, time.Hour}
	limitResendFirstAll = Limit{"first new codes of an address", 100, time.Hour}
	limitForgotPair     = Limit{"forgotten password of an address from a side", 5, time.Hour}
	limitForgotAddress  = newTarget("forgotten password of an address", []rate{{18, time.Hour}}, []rate{{20, time.Hour}})
	earlyForgot         = newEarly("forgotten password of an address", 2, 100, time.Hour)

	limitInvite        = Limit{"invitations of an account", 60, time.Hour}
	limitInviteDay     = Limit{"invitations of an account in a day", 100, day}
	limitInvitePair    = Limit{"invitations of an account to an address", 5, time.Hour}
	limitInviteAddress = Limit{"invitations to an address", 18, day}
	earlyInvite        = newEarly("invitations to an address", 2, 60, day)
)

// Who is whom a limit counts. There is none of a raw address: see auth.Side.
type Who struct{ key string }

// OfSide is from where somebody asks; all of whom nothing is known are one.
func OfSide(s auth.Side) Who { return Who{"side " + s.String()} }

// OfNetwork is the network around a side.
func OfNetwork(s auth.Side) Who { return Who{"network " + s.Network().String()} }

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
	return targets(ctx, email, OfAddress(email), limitPair, limitAddress)
}

// Tries are the ways in which a call can be counted: by the limits of the first that has
// room.
type Tries [][]postgres.Limit

// registerLimits are those of registering an address: none for who was invited to it, and
// so has read its mails.
func registerLimits(ctx context.Context, r *account.Registration) Tries {
	if r.InvitationHash != nil {
		return nil
	}
	return tries(ctx, r.Email, OfAddress(r.Email), limitRegisterPair, limitRegisterAddress, earlyRegister)
}

// ForgotLimits are those of codes for a forgotten password.
func ForgotLimits(ctx context.Context, email string) Tries {
	return tries(ctx, email, OfAddress(email), limitForgotPair, limitForgotAddress, earlyForgot)
}

// tries are those of a target: the early ones of the network of an unknown device, then
// those that it shares. Known devices share theirs with each other alone.
func tries(ctx context.Context, email string, of Who, pair Limit, all target, first early) Tries {
	limits := targets(ctx, email, of, pair, all)
	a := AskerFrom(ctx)
	if a.Knows(email) {
		return Tries{limits}
	}
	return Tries{slices.Concat(limits[:1], first.by(a, of)), limits}
}

// targets are the limit of who asks for a target of an address, and those of all who do:
// the unknown, or the known devices of the address.
func targets(ctx context.Context, email string, of Who, pair Limit, all target) []postgres.Limit {
	a := AskerFrom(ctx)
	limits := []postgres.Limit{pair.By(a.who(), of)}
	together := all.unknown
	if a.Knows(email) {
		together = all.known
	}
	for _, l := range together {
		limits = append(limits, l.By(of))
	}
	return limits
}

// resendLimits are those of new codes of a registration, once the token turned out to be
// of one: nobody without it uses them up. The first new codes of each do not depend on
// what other registrations of the address used up.
func resendLimits(email, token string) Tries {
	registration, address := OfToken(token), OfAddress(email)
	return Tries{
		{limitResend.By(registration), limitResendFirst.By(registration), limitResendFirstAll.By(address)},
		{limitResend.By(registration), limitResendAddress.By(address)},
	}
}

// FactorLimits are those of the second factor of somebody who is logged in: by a short code,
// or by a recovery code.
func FactorLimits(ctx context.Context, userID string, short bool) []postgres.Limit {
	if !short {
		return []postgres.Limit{limitRecovery.By(AskerFrom(ctx).who(), OfUser(userID))}
	}
	return []postgres.Limit{limitFactor.By(OfUser(userID)), limitFactorDay.By(OfUser(userID))}
}

// ResetLimits are those of guesses at short codes for a forgotten password.
func ResetLimits(ctx context.Context, email string) Tries {
	return tries(ctx, email, OfAddress(email), limitResetPair, limitResetAddress, earlyReset)
}

// Verify runs check of the code of a registration, of which only wrong ones are used up:
// those of the registration and of who asks; and those of short codes, of six digits, at
// the address, whoever began what registrations of it. Then over is the answer; nil is
// that of a limit.
func (l Limits) Verify(ctx context.Context, email, token string, short bool, over error, check func() error) error {
	if err := l.mayVerify(ctx, email, token); err != nil {
		return err
	}
	return l.Guess(ctx, verifyLimits(ctx, email, token), func() error {
		if !short {
			return check()
		}
		checked := false
		all := Tries{earlyVerify.by(AskerFrom(ctx), OfAddress(email)), {limitVerifyAddress.By(OfAddress(email))}}
		err := l.GuessAny(ctx, all, func() error {
			checked = true
			return check()
		})
		if !checked && over != nil && apierr.HasReason(err, errorv1.Reason_REASON_RATE_LIMITED) {
			return over
		}
		return err
	})
}

// verifyLimits are those of wrong codes of who asks, and of a registration where there is one.
func verifyLimits(ctx context.Context, email, token string) []postgres.Limit {
	limits := []postgres.Limit{limitVerifyPair.By(AskerFrom(ctx).who(), OfAddress(email))}
	if token != "" {
		limits = append(limits, limitVerify.By(OfToken(token)))
	}
	return limits
}

// mayVerify refuses who asks, or a registration, if no guess is left: a code of it could not
// be used.
func (l Limits) mayVerify(ctx context.Context, email, token string) error {
	over, err := l.Store.UsedUp(ctx, verifyLimits(ctx, email, token))
	switch {
	case err != nil || over.Wait == 0:
		return err
	case over.Limit == limitVerify.By(OfToken(token)):
		return apierr.New(errorv1.Reason_REASON_RATE_LIMITED, "too many wrong codes, at most %d of a registration are possible; register again", over.Most).WithRetryAfter(over.Wait)
	}
	return errOver(over)
}

// Register counts a registration.
func (l Limits) Register(ctx context.Context, r *account.Registration) error {
	if err := l.mayVerify(ctx, r.Email, ""); err != nil {
		return err
	}
	_, err := l.AttemptAny(ctx, registerLimits(ctx, r))
	return err
}

// Resend counts a new code of a registration, once the token turned out to be of one.
func (l Limits) Resend(ctx context.Context, email, token string) error {
	if err := l.mayVerify(ctx, email, token); err != nil {
		return err
	}
	_, err := l.AttemptAny(ctx, resendLimits(email, token))
	return err
}

// Guessed reports whether so many wrong short codes were tried at an address lately that
// the next ones had better be long.
func (l Limits) Guessed(ctx context.Context, email string) (bool, error) {
	half := limitVerifyAddress.By(OfAddress(email))
	half.Most /= 2
	over, err := l.Store.UsedUp(ctx, []postgres.Limit{half})
	return over.Wait > 0, err
}

// answerTries are those of an answer to a challenge: by a short code, or by a recovery code.
func answerTries(ctx context.Context, email string, user Who, short bool) Tries {
	if !short {
		return Tries{{limitRecovery.By(AskerFrom(ctx).who(), user)}}
	}
	return tries(ctx, email, user, limitAnswerPair, limitAnswer, earlyAnswer)
}

// Answer runs check of an answer to the challenge of a user, of which only wrong ones are
// used up. A session is over after 5 of them, whoever asked.
func (l Limits) Answer(ctx context.Context, session, user Who, email string, short bool, check func() error) error {
	limits, err := l.AttemptAny(ctx, answerTries(ctx, email, user, short))
	if err != nil {
		return err
	}
	checked := false
	err = l.Guess(ctx, []postgres.Limit{limitSession.By(session)}, func() error {
		checked = true
		return check()
	})
	if checked && wrong(err) {
		return err
	}
	if !checked && apierr.HasReason(err, errorv1.Reason_REASON_RATE_LIMITED) {
		err = ErrSession // it was no guess
	}
	return errors.Join(err, l.Refund(context.WithoutCancel(ctx), limits...))
}

// InviteLimits are those of inviting an address to an account.
func InviteLimits(ctx context.Context, accountID, email string) Tries {
	own := []postgres.Limit{
		limitInvitePair.By(OfAccount(accountID), OfAddress(email)), limitInvite.By(OfAccount(accountID)), limitInviteDay.By(OfAccount(accountID)),
	}
	return Tries{slices.Concat(own, earlyInvite.by(AskerFrom(ctx), OfAddress(email))), append(own, limitInviteAddress.By(OfAddress(email)))}
}

// Limits counts attempts in the database, so that a restart forgets none.
type Limits struct{ Store *postgres.Store }

// Attempt counts before it is known how the attempt ends, so that many at once
// cannot slip through; Refund takes it back for a good one.
func (l Limits) Attempt(ctx context.Context, limits ...postgres.Limit) error {
	over, err := l.Store.TakeAttempt(ctx, limits)
	if err == nil && over.Wait > 0 {
		err = errOver(over)
	}
	return err
}

func errOver(over postgres.Over) error {
	return apierr.RateLimited(over.Wait, "too many attempts, at most %d in %s are possible", over.Most, apierr.Lasting(over.Window))
}

// AttemptAny counts by the first of the tries that has room, and returns what it counted.
func (l Limits) AttemptAny(ctx context.Context, tries Tries) (taken []postgres.Limit, err error) {
	for _, limits := range tries {
		if err = l.Attempt(ctx, limits...); !apierr.HasReason(err, errorv1.Reason_REASON_RATE_LIMITED) {
			return limits, err
		}
	}
	return nil, err
}

// Refund takes attempts back.
func (l Limits) Refund(ctx context.Context, limits ...postgres.Limit) error {
	return l.Store.RefundAttempt(ctx, limits)
}

// Guess runs check within limits, of which only wrong guesses are used up.
func (l Limits) Guess(ctx context.Context, limits []postgres.Limit, check func() error) error {
	return l.GuessAny(ctx, Tries{limits}, check)
}

// GuessAny is Guess by the first of the tries that has room.
func (l Limits) GuessAny(ctx context.Context, tries Tries, check func() error) error {
	taken, err := l.AttemptAny(ctx, tries)
	if err != nil {
		return err
	}
	if err = check(); wrong(err) {
		return err
	}
	return errors.Join(err, l.Refund(context.WithoutCancel(ctx), taken...))
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
