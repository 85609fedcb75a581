package local

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/postgres"
)

// The second factor: RFC 6238 with SHA-1, as every authenticator app has it.
const (
	totpStep       = identity.TotpStep
	totpSkew       = 1  // steps before and after
	totpBytes      = 20 // 160 bits, RFC 4226 section 4
	recoveryCodes  = 10
	recoveryLetter = 5 // letters of each half
)

// TotpAAD is the place of a second factor.
func TotpAAD(userID string) vault.AAD {
	return vault.AAD{Account: "platform", Resource: userID, Field: "totp_secret", Version: 1}
}

// SetupTotp makes the secret of a second factor, for who knows the password. It
// does nothing until VerifyTotp.
func (p *Provider) SetupTotp(ctx context.Context, userID, password string) (secret, uri string, err error) {
	login, err := p.fresh(ctx, userID, password)
	if err != nil {
		return "", "", err
	}
	if login.HasTotp {
		return "", "", identity.ErrMFAOn
	}
	raw := make([]byte, totpBytes)
	_, _ = rand.Read(raw) // it never fails on supported systems
	secret = base32.StdEncoding.EncodeToString(raw)
	sealed, err := p.Vault.Seal(TotpAAD(userID), []byte(secret))
	if err != nil {
		return "", "", fmt.Errorf("seal the second factor: %w", err)
	}
	err = p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := p.holdChecked(ctx, tx, login, auth.From(ctx).SessionID)
		if err != nil {
			return err
		}
		return h.SaveTotp(ctx, sealed)
	})
	if err != nil {
		return "", "", err
	}
	return secret, identity.TotpURI(login.Email, secret), nil
}

// VerifyTotp turns the second factor on with its first code and returns the
// recovery codes. Other sessions, whose logins did without it, end.
func (p *Provider) VerifyTotp(ctx context.Context, userID, code string) ([]string, error) {
	codes, hashes := newRecoveryCodes(userID)
	err := p.guess(ctx, userID, true, func() error {
		return p.withTotp(ctx, userID, false, code, p.here(ctx, userID), func(_ *pg.Tx, h *postgres.Held, t *postgres.Totp) error {
			if t.EnabledAt != nil {
				return identity.ErrMFAOn
			}
			if err := h.SaveRecoveryCodes(ctx, hashes); err != nil {
				return err
			}
			return h.EnableTotp(ctx, auth.From(ctx).SessionID)
		})
	})
	if err != nil {
		return nil, err
	}
	p.Changed()
	return codes, nil
}

// DisableTotp turns the second factor off with a code of it or a recovery code. Other
// sessions end.
func (p *Provider) DisableTotp(ctx context.Context, userID, code string) error {
	err := p.guess(ctx, userID, sixDigits.MatchString(code), func() error {
		return p.factor(ctx, userID, code, p.here(ctx, userID), func(tx *pg.Tx, h *postgres.Held) error {
			if err := h.DeleteTotp(ctx, auth.From(ctx).SessionID); err != nil {
				return err
			}
			return p.Mail.Queue(ctx, tx, h.Email, identity.FactorOffLetter())
		})
	})
	if err == nil {
		p.Changed()
	}
	return err
}

// RenewRecoveryCodes replaces the recovery codes.
func (p *Provider) RenewRecoveryCodes(ctx context.Context, userID, code string) ([]string, error) {
	codes, hashes := newRecoveryCodes(userID)
	err := p.guess(ctx, userID, true, func() error {
		return p.withTotp(ctx, userID, true, code, p.here(ctx, userID), func(_ *pg.Tx, h *postgres.Held, _ *postgres.Totp) error {
			return h.SaveRecoveryCodes(ctx, hashes)
		})
	})
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// guess checks the second factor of somebody who is logged in, within their limit.
func (p *Provider) guess(ctx context.Context, userID string, short bool, check func() error) error {
	return p.limits.Guess(ctx, identity.FactorLimits(ctx, userID, short), check)
}

// hold locks the user whose second factor is asked for.
type hold func(*pg.Tx) (*postgres.Held, error)

// here holds the caller in the session that they call by.
func (p *Provider) here(ctx context.Context, userID string) hold {
	return func(tx *pg.Tx) (*postgres.Held, error) { return p.holdIn(ctx, tx, userID, auth.From(ctx).SessionID) }
}

// factor checks a code of the second factor, or uses up a recovery code, and then
// runs do in the same transaction. The caller counts wrong codes.
func (p *Provider) factor(ctx context.Context, userID, code string, hold hold, do func(*pg.Tx, *postgres.Held) error) error {
	if sixDigits.MatchString(code) {
		return p.withTotp(ctx, userID, true, code, hold, func(tx *pg.Tx, h *postgres.Held, _ *postgres.Totp) error { return do(tx, h) })
	}
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := hold(tx)
		if err != nil {
			return err
		}
		used, err := h.UseRecoveryCode(ctx, identity.HashCode(userID, normalCode(code)))
		if err != nil {
			return err
		}
		if !used {
			return account.ErrInvalidCode
		}
		return do(tx, h)
	})
}

var sixDigits = regexp.MustCompile(`^[0-9]{6}$`)

// withTotp checks a code and uses up its step, so that no code works twice, and
// runs do in the same transaction. The caller counts wrong codes.
func (p *Provider) withTotp(ctx context.Context, userID string, enabled bool, code string, hold hold, do func(*pg.Tx, *postgres.Held, *postgres.Totp) error) error {
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := hold(tx)
		if err != nil {
			return err
		}
		t, err := h.Totp(ctx)
		if err != nil {
			return err
		}
		if t == nil || (enabled && t.EnabledAt == nil) {
			return identity.ErrMFAOff
		}
		secret, err := p.Vault.Open(TotpAAD(userID), t.Secret)
		if err != nil {
			return fmt.Errorf("open the second factor: %w", err)
		}
		step, ok := totpStepOf(string(secret), code, tx.Now)
		if !ok || step <= t.LastStep {
			return account.ErrInvalidCode
		}
		if err := h.UseTotpStep(ctx, step); err != nil {
			return err
		}
		return do(tx, h, t)
	})
}

// totpStepOf finds the step, now or one away, that a code belongs to.
func totpStepOf(secret, code string, now time.Time) (step int64, ok bool) {
	current := now.Unix() / totpStep
	for step := current - totpSkew; step <= current+totpSkew; step++ {
		want, err := hotp.GenerateCodeCustom(secret, uint64(step), hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			return step, true
		}
	}
	return 0, false
}

// newRecoveryCodes returns codes of 50 random bits, and their hashes.
func newRecoveryCodes(userID string) (codes []string, hashes [][]byte) {
	for range recoveryCodes {
		text := strings.ToLower(rand.Text())
		code := text[:recoveryLetter] + "-" + text[recoveryLetter:2*recoveryLetter]
		codes = append(codes, code)
		hashes = append(hashes, identity.HashCode(userID, normalCode(code)))
	}
	return codes, hashes
}

// normalCode is a recovery code as it is compared: letters and digits only.
func normalCode(code string) string {
	return strings.Map(func(c rune) rune {
		if c == '-' || c == ' ' {
			return -1
		}
		return c
	}, strings.ToLower(code))
}
