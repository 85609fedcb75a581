package local

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"runtime"

	"github.com/alexedwards/argon2id"
	"golang.org/x/sync/semaphore"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/postgres"
)

// hashParams follow RFC 9106 section 4's second choice, with one lane per core
// of a small machine.
var hashParams = &argon2id.Params{Memory: 32 * 1024, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// hasher hashes passwords, as many at once as the machine has memory and cores
// for: each takes 32 MiB.
type hasher struct {
	places *semaphore.Weighted
	dummy  string // a hash that no password has, for the time it takes to check
}

func newHasher() (*hasher, error) {
	dummy, err := argon2id.CreateHash(rand.Text(), hashParams)
	if err != nil {
		return nil, fmt.Errorf("hash: %w", err)
	}
	return &hasher{places: semaphore.NewWeighted(int64(2 * runtime.GOMAXPROCS(0))), dummy: dummy}, nil
}

func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.places.Acquire(ctx, 1); err != nil {
		return "", fmt.Errorf("hash the password: %w", err)
	}
	defer h.places.Release(1)
	hash, err := argon2id.CreateHash(password, hashParams)
	if err != nil {
		return "", fmt.Errorf("hash the password: %w", err)
	}
	return hash, nil
}

// check compares; an empty hash takes as long as any and matches nothing. stale
// tells that the hash was made with other parameters than today's.
func (h *hasher) check(ctx context.Context, password, hash string) (match, stale bool, err error) {
	if err := h.places.Acquire(ctx, 1); err != nil {
		return false, false, fmt.Errorf("check the password: %w", err)
	}
	defer h.places.Release(1)
	if hash == "" {
		hash = h.dummy
	}
	match, params, err := argon2id.CheckHash(password, hash)
	if err != nil {
		return false, false, fmt.Errorf("check the password: %w", err)
	}
	return match, *params != *hashParams, nil
}

// Forgot mails a code for Reset, if the address is a user's.
func (p *Provider) Forgot(ctx context.Context, email string) error {
	email = account.NormalEmail(email)
	if err := p.limits.Attempt(ctx, identity.LimitMail.By(email)); err != nil {
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
		return p.Mail.Queue(ctx, tx, email, "Reset your password",
			"The code to reset your password is\n\n"+code+"\n\nIt is good once, for 15 minutes. If you did not ask for it, ignore this mail.\n")
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

// Reset sets a new password with the code of the mail and ends every session.
func (p *Provider) Reset(ctx context.Context, email, code, password string) error {
	email = account.NormalEmail(email)
	if err := p.limits.Attempt(ctx, identity.LoginLimits(email, identity.ClientIP(ctx))...); err != nil {
		return err
	}
	if err := account.CheckPassword("new_password", password, email); err != nil {
		return err
	}
	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	err = p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := p.holdAddress(ctx, tx, email)
		if err != nil {
			return err
		}
		r, err := h.Reset(ctx)
		if err != nil {
			return err
		}
		if subtle.ConstantTimeCompare(identity.HashCode(email, code), r.CodeHash) != 1 || r.Epoch != h.Epoch || !tx.Now.Before(r.ExpiresAt) {
			return account.ErrInvalidCode
		}
		return p.setPassword(ctx, tx, h, hash, "")
	})
	if err != nil {
		return err
	}
	p.Changed()
	return p.limits.Refund(ctx, identity.LoginLimits(email, identity.ClientIP(ctx))...)
}

// setPassword stores a password and ends every session but keep.
func (p *Provider) setPassword(ctx context.Context, tx *pg.Tx, h *postgres.Held, hash, keep string) error {
	if err := h.SetPassword(ctx, hash, keep); err != nil {
		return err
	}
	return p.Mail.Queue(ctx, tx, h.Email, identity.PasswordSubject, identity.PasswordText)
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

// fresh checks the password of somebody who is logged in, within the limits of a
// login.
func (p *Provider) fresh(ctx context.Context, userID, password string) (*postgres.Login, error) {
	u, err := p.Store.LoginByID(ctx, userID)
	if err != nil {
		return nil, err
	}
	limits := identity.LoginLimits(u.Email, identity.ClientIP(ctx))
	if err := p.limits.Attempt(ctx, limits...); err != nil {
		return nil, err
	}
	match, _, err := p.hasher.check(ctx, password, u.PasswordHash)
	if err != nil {
		return nil, err
	}
	if !match || u.PasswordHash == "" {
		return nil, identity.ErrPassword
	}
	return u, p.limits.Refund(ctx, limits...)
}
