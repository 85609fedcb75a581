package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/alexedwards/argon2id"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/blocks"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/postgres"
)

// hashParams follow RFC 9106 section 4's second choice, with one lane per core
// of a small machine.
var hashParams = &argon2id.Params{Memory: 32 * 1024, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// hashMemory is what a hash takes, in bytes.
func hashMemory() int64 { return int64(hashParams.Memory) << 10 }

// hasher hashes passwords, as many at once as there are cores; each takes 32 MiB. The lanes
// of the budgets bound how many wait.
type hasher struct {
	dummy string // a hash that no password has, for the time it takes to check
}

func newHasher() (*hasher, error) {
	dummy, err := argon2id.CreateHash(rand.Text(), hashParams)
	if err != nil {
		return nil, fmt.Errorf("hash: %w", err)
	}
	return &hasher{dummy: dummy}, nil
}

func (h *hasher) hash(ctx context.Context, password string) (hash string, err error) {
	if waited := blocks.Run(ctx, hashMemory(), func() { hash, err = argon2id.CreateHash(password, hashParams) }); waited != nil {
		return "", waited
	}
	if err != nil {
		return "", fmt.Errorf("hash the password: %w", err)
	}
	return hash, nil
}

// check compares; an empty hash takes as long as any and matches nothing. stale
// tells that the hash was made with other parameters than today's.
func (h *hasher) check(ctx context.Context, password, hash string) (match, stale bool, err error) {
	if hash == "" {
		hash = h.dummy
	}
	var params *argon2id.Params
	if waited := blocks.Run(ctx, hashMemory(), func() { match, params, err = argon2id.CheckHash(password, hash) }); waited != nil {
		return false, false, waited
	}
	if err != nil {
		return false, false, fmt.Errorf("check the password: %w", err)
	}
	return match, *params != *hashParams, nil
}

// Forgot mails a code for Reset, if the address is a user's.
func (p *Provider) Forgot(ctx context.Context, email string) error {
	email = account.NormalEmail(email)
	if _, err := p.limits.AttemptAny(ctx, identity.ForgotLimits(ctx, email)); err != nil {
		return err
	}
	code := identity.NewToken()
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := p.holdAddress(ctx, tx, email)
		if errors.Is(err, account.ErrInvalidCode) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := h.SaveReset(ctx, identity.HashCode(email, code), tx.Now.Add(account.CodeLife)); err != nil {
			return err
		}
		return p.Mail.Queue(ctx, tx, email, identity.ResetLetter(code))
	})
}

// holdAddress holds the user of an address who logs in by password; INVALID_CODE without.
func (p *Provider) holdAddress(ctx context.Context, tx *pg.Tx, email string) (*postgres.Held, error) {
	h, err := p.Store.HoldAddress(ctx, tx, email)
	if apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return nil, account.ErrInvalidCode
	}
	if err == nil && (!h.IsActive || h.PasswordHash == "") {
		err = account.ErrInvalidCode
	}
	return h, err
}

// Reset sets a new password with the code of the mail and ends every session. A code that
// is wrong costs no hash.
func (p *Provider) Reset(ctx context.Context, email, code, password string) error {
	email = account.NormalEmail(email)
	if err := account.CheckPassword("new_password", password, email); err != nil {
		return err
	}
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		_, err := p.holdReset(ctx, tx, email, code)
		return err
	})
	if err != nil {
		return err
	}
	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	err = p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := p.holdReset(ctx, tx, email, code)
		if err != nil {
			return err
		}
		return p.setPassword(ctx, tx, h, hash, "")
	})
	if err == nil {
		p.Changed()
	}
	return err
}

// holdReset holds the user of an address whom a code of a mail is for.
func (p *Provider) holdReset(ctx context.Context, tx *pg.Tx, email, code string) (*postgres.Held, error) {
	h, err := p.holdAddress(ctx, tx, email)
	if err != nil {
		return nil, err
	}
	r, err := h.Reset(ctx, identity.HashCode(email, code))
	if err != nil {
		return nil, err
	}
	if r.Epoch != h.Epoch || !tx.Now.Before(r.ExpiresAt) {
		return nil, account.ErrInvalidCode
	}
	return h, nil
}

// setPassword stores a password and ends every session but keep.
func (p *Provider) setPassword(ctx context.Context, tx *pg.Tx, h *postgres.Held, hash, keep string) error {
	if err := h.SetPassword(ctx, hash, keep); err != nil {
		return err
	}
	return p.Mail.Queue(ctx, tx, h.Email, identity.PasswordLetter())
}

// errStale is a change by somebody whose session ended, or whose credentials changed,
// while it was on its way.
var errStale = apierr.Unauthenticated(postgres.ErrStale)

// Change sets a new password for who knows the old one, and ends the user's
// other sessions.
func (p *Provider) Change(ctx context.Context, userID, sessionID, current, password string) error {
	login, err := p.fresh(ctx, userID, current)
	if err != nil {
		return err
	}
	if err := account.CheckPassword("new_password", password, login.Email); err != nil {
		return err
	}
	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	err = p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := p.holdChecked(ctx, tx, login, sessionID)
		if err != nil {
			return err
		}
		return p.setPassword(ctx, tx, h, hash, sessionID)
	})
	if err == nil {
		p.Changed()
	}
	return err
}

// holdChecked holds a user in a session of theirs, if their password is still the one
// that was checked.
func (p *Provider) holdChecked(ctx context.Context, tx *pg.Tx, checked *postgres.Login, sessionID string) (*postgres.Held, error) {
	h, err := p.holdIn(ctx, tx, checked.UserID, sessionID)
	if err == nil && h.Epoch != checked.Epoch {
		err = errStale
	}
	return h, err
}

// holdIn holds a user in a session of theirs.
func (p *Provider) holdIn(ctx context.Context, tx *pg.Tx, userID, sessionID string) (*postgres.Held, error) {
	h, err := p.Store.HoldIn(ctx, tx, userID, sessionID)
	if errors.Is(err, postgres.ErrStale) {
		err = errStale
	}
	return h, err
}

// fresh checks the password of somebody who is logged in, within a limit that nobody else
// can use up.
func (p *Provider) fresh(ctx context.Context, userID, password string) (*postgres.Login, error) {
	u, err := p.Store.LoginByID(ctx, userID)
	if err != nil {
		return nil, err
	}
	err = p.limits.Guess(ctx, []postgres.Limit{identity.LimitPassword.By(identity.OfUser(userID))}, func() error {
		match, _, err := p.hasher.check(ctx, password, u.PasswordHash)
		if err == nil && (!match || u.PasswordHash == "") {
			err = identity.ErrPassword
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return u, nil
}
