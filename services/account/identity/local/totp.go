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
	err = p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error { return p.Store.SaveTotp(ctx, tx, userID, sealed) })
	if err != nil {
		return "", "", err
	}
	return secret, identity.TotpURI(login.Email, secret), nil
}

// VerifyTotp turns the second factor on with its first code and returns the
// recovery codes.
func (p *Provider) VerifyTotp(ctx context.Context, userID, code string) ([]string, error) {
	codes, hashes := newRecoveryCodes(userID)
	err := p.withTotp(ctx, userID, false, code, func(tx *pg.Tx, t *postgres.Totp) error {
		if t.EnabledAt != nil {
			return identity.ErrMFAOn
		}
		if err := p.Store.EnableTotp(ctx, tx, userID); err != nil {
			return err
		}
		return p.Store.SaveRecoveryCodes(ctx, tx, userID, hashes)
	})
	return codes, err
}

// DisableTotp turns the second factor off with a code of it or a recovery code.
func (p *Provider) DisableTotp(ctx context.Context, userID, code string) error {
	return p.factor(ctx, userID, code, func(tx *pg.Tx) error {
		if err := p.Store.DeleteTotp(ctx, tx, userID); err != nil {
			return err
		}
		login, err := p.Store.LoginByID(ctx, userID)
		if err != nil {
			return err
		}
		return p.Mail.Queue(ctx, tx, login.Email, identity.FactorOffSubject, identity.FactorOffText)
	})
}

// RenewRecoveryCodes replaces the recovery codes.
func (p *Provider) RenewRecoveryCodes(ctx context.Context, userID, code string) ([]string, error) {
	codes, hashes := newRecoveryCodes(userID)
	err := p.withTotp(ctx, userID, true, code, func(tx *pg.Tx, _ *postgres.Totp) error {
		return p.Store.SaveRecoveryCodes(ctx, tx, userID, hashes)
	})
	return codes, err
}

// factor checks a code of the second factor, or uses up a recovery code, and then
// runs do in the same transaction.
func (p *Provider) factor(ctx context.Context, userID, code string, do func(*pg.Tx) error) error {
	if sixDigits.MatchString(code) {
		return p.withTotp(ctx, userID, true, code, func(tx *pg.Tx, _ *postgres.Totp) error { return do(tx) })
	}
	if err := p.limits.Attempt(ctx, identity.LimitTotp.By(userID)); err != nil {
		return err
	}
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		used, err := p.Store.UseRecoveryCode(ctx, tx, userID, identity.HashCode(userID, normalCode(code)))
		if err != nil {
			return err
		}
		if !used {
			return account.ErrInvalidCode
		}
		return do(tx)
	})
	if err != nil {
		return err
	}
	return p.limits.Refund(ctx, identity.LimitTotp.By(userID))
}

var sixDigits = regexp.MustCompile(`^[0-9]{6}$`)

// withTotp checks a code and uses up its step, so that no code works twice, and
// runs do in the same transaction. Wrong codes count.
func (p *Provider) withTotp(ctx context.Context, userID string, enabled bool, code string, do func(*pg.Tx, *postgres.Totp) error) error {
	if err := p.limits.Attempt(ctx, identity.LimitTotp.By(userID)); err != nil {
		return err
	}
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		t, err := p.Store.Totp(ctx, tx, userID)
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
		if err := p.Store.UseTotpStep(ctx, tx, userID, step); err != nil {
			return err
		}
		return do(tx, t)
	})
	if err != nil {
		return err
	}
	return p.limits.Refund(ctx, identity.LimitTotp.By(userID))
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
