package local

import (
	"context"
	"errors"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/postgres"
)

// Lives of what a login gives besides the access token.
const (
	refreshLife   = 30 * 24 * time.Hour // of the whole family
	challengeLife = 5 * time.Minute
	// reuseGrace is how long after its use a refresh token may come again without
	// being taken for stolen: two tabs, or a retry whose first answer was lost.
	reuseGrace = 10 * time.Second
)

// Login checks a password and starts a family of refresh tokens, or a challenge
// for the second factor: then Tokens.Session is set and nothing else.
func (p *Provider) Login(ctx context.Context, email, password string) (identity.Tokens, error) {
	email = account.NormalEmail(email)
	limits := identity.LoginLimits(email, identity.ClientIP(ctx))
	if err := p.limits.Attempt(ctx, limits...); err != nil {
		return identity.Tokens{}, err
	}
	login, err := p.Store.Login(ctx, email)
	if err != nil && !apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return identity.Tokens{}, err
	}
	if login == nil {
		login = &postgres.Login{}
	}
	match, stale, err := p.hasher.check(ctx, password, login.PasswordHash)
	if err != nil {
		return identity.Tokens{}, err
	}
	if !match || login.PasswordHash == "" || !login.IsActive {
		return identity.Tokens{}, identity.ErrCredentials
	}
	if err := p.limits.Refund(ctx, limits...); err != nil {
		return identity.Tokens{}, err
	}
	if login.Pending {
		return identity.Tokens{}, identity.ErrNotVerified
	}
	if stale {
		if err := p.rehash(ctx, login.UserID, password); err != nil {
			return identity.Tokens{}, err
		}
	}
	if login.HasTotp {
		return p.challenge(ctx, login.UserID)
	}
	return p.issue(ctx, login)
}

// rehash stores the password with today's parameters.
func (p *Provider) rehash(ctx context.Context, userID, password string) error {
	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error { return p.Store.SetPassword(ctx, tx, userID, hash) })
}

func (p *Provider) challenge(ctx context.Context, userID string) (identity.Tokens, error) {
	session := newSecret()
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		return p.Store.SaveChallenge(ctx, tx, hashToken(session), userID, tx.Now.Add(challengeLife))
	})
	return identity.Tokens{Session: session}, err
}

// Answer ends a login with a code of the second factor or a recovery code.
func (p *Provider) Answer(ctx context.Context, session, code string) (identity.Tokens, error) {
	userID, err := p.Store.Challenge(ctx, hashToken(session), p.Clock.Now())
	if apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return identity.Tokens{}, identity.ErrSession
	}
	if err != nil {
		return identity.Tokens{}, err
	}
	err = p.factor(ctx, userID, code, func(tx *pg.Tx) error {
		ended, err := p.Store.EndChallenge(ctx, tx, hashToken(session))
		if err == nil && !ended {
			err = identity.ErrSession // a rival was first
		}
		return err
	})
	if err != nil {
		return identity.Tokens{}, err
	}
	login, err := p.Store.LoginByID(ctx, userID)
	if err != nil {
		return identity.Tokens{}, err
	}
	if !login.IsActive {
		return identity.Tokens{}, identity.ErrSession
	}
	return p.issue(ctx, login)
}

// issue starts a session: a family of refresh tokens, and the tokens of its first.
func (p *Provider) issue(ctx context.Context, login *postgres.Login) (identity.Tokens, error) {
	refresh, family := newSecret(), account.NewID()
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		return p.Store.SaveRefreshToken(ctx, tx, hashToken(refresh), family, login.UserID, tx.Now.Add(refreshLife))
	})
	if err != nil {
		return identity.Tokens{}, err
	}
	return p.Keys.Tokens(identity.Subject{ID: login.Subject, Email: login.Email, Session: family, LoggedIn: p.Clock.Now()}, refresh)
}

// Refresh rotates a refresh token. One that was used before has been stolen: its
// family is revoked. The family ends 30 days after the login, however often it
// was refreshed.
func (p *Provider) Refresh(ctx context.Context, token string) (identity.Tokens, error) {
	next := newSecret()
	var old *postgres.RefreshToken
	stolen := false
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		var err error
		if old, err = p.Store.RefreshToken(ctx, tx, hashToken(token)); err != nil {
			return err
		}
		switch {
		case old.Revoked || !old.IsActive || !tx.Now.Before(old.ExpiresAt):
			return identity.ErrRefresh
		case old.UsedAt != nil && tx.Now.Sub(*old.UsedAt) < reuseGrace:
			return identity.ErrRefresh
		case old.UsedAt != nil:
			stolen = true
			return p.Store.RevokeFamily(ctx, tx, old.FamilyID) // committed: the theft counts
		}
		if err := p.Store.UseRefreshToken(ctx, tx, hashToken(token)); err != nil {
			return err
		}
		return p.Store.SaveRefreshToken(ctx, tx, hashToken(next), old.FamilyID, old.UserID, old.ExpiresAt)
	})
	if stolen {
		p.Changed()
		p.Logger.WarnContext(ctx, "a refresh token was used twice; its session has ended", "user_id", old.UserID)
	}
	if errors.Is(err, postgres.ErrNoToken) || stolen {
		return identity.Tokens{}, identity.ErrRefresh
	}
	if err != nil {
		return identity.Tokens{}, err
	}
	return p.Keys.Tokens(identity.Subject{ID: old.Subject, Email: old.Email, Session: old.FamilyID, LoggedIn: old.ExpiresAt.Add(-refreshLife)}, next)
}

// Logout ends the session of a refresh token; an unknown one changes nothing.
func (p *Provider) Logout(ctx context.Context, token string) error {
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		t, err := p.Store.RefreshToken(ctx, tx, hashToken(token))
		if err != nil {
			return err
		}
		return p.Store.RevokeFamily(ctx, tx, t.FamilyID)
	})
	if errors.Is(err, postgres.ErrNoToken) {
		return nil
	}
	p.Changed()
	return err
}

// LogoutEverywhere ends every session of a user.
func (p *Provider) LogoutEverywhere(ctx context.Context, userID string) error {
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error { return p.Store.RevokeSessions(ctx, tx, userID, "") })
	p.Changed()
	return err
}
