package local

import (
	"context"
	"errors"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

// Lives of what a login gives.
const (
	accessLife    = 15 * time.Minute
	refreshLife   = 30 * 24 * time.Hour // of the whole family
	challengeLife = 5 * time.Minute
	// reuseGrace is how long after its use a refresh token may come again without
	// being taken for stolen: two tabs, or a retry whose first answer was lost.
	reuseGrace = 10 * time.Second
)

// Challenge is the answer of a login that needs the second factor, by Cognito's
// name.
const Challenge = "SOFTWARE_TOKEN_MFA"

var (
	errCredentials = apierr.New(errorv1.Reason_REASON_INVALID_CREDENTIALS, "e-mail and password do not match")
	errNotVerified = apierr.New(errorv1.Reason_REASON_EMAIL_NOT_VERIFIED, "the e-mail address still waits for verification")
	errRefresh     = apierr.New(errorv1.Reason_REASON_INVALID_REFRESH_TOKEN, "the refresh token is unknown, used or expired")
	errSession     = apierr.New(errorv1.Reason_REASON_INVALID_SESSION, "the session is unknown or over; log in again")
)

// Login checks a password and starts a family of refresh tokens, or a challenge
// for the second factor: then Tokens.Session is set and nothing else.
func (p *Provider) Login(ctx context.Context, email, password string) (Tokens, error) {
	email = account.NormalEmail(email)
	limits := loginLimits(email, ip(ctx))
	if err := p.attempt(ctx, limits...); err != nil {
		return Tokens{}, err
	}
	login, err := p.Store.Login(ctx, email)
	if err != nil && !apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return Tokens{}, err
	}
	if login == nil {
		login = &postgres.Login{}
	}
	match, stale, err := p.hasher.check(ctx, password, login.PasswordHash)
	if err != nil {
		return Tokens{}, err
	}
	if !match || login.PasswordHash == "" || !login.IsActive {
		return Tokens{}, errCredentials
	}
	if err := p.refund(ctx, limits...); err != nil {
		return Tokens{}, err
	}
	if login.Pending {
		return Tokens{}, errNotVerified
	}
	if stale {
		if err := p.rehash(ctx, login.UserID, password); err != nil {
			return Tokens{}, err
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

func (p *Provider) challenge(ctx context.Context, userID string) (Tokens, error) {
	session := newSecret()
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		return p.Store.SaveChallenge(ctx, tx, hashToken(session), userID, tx.Now.Add(challengeLife))
	})
	return Tokens{Session: session}, err
}

// Answer ends a login with a code of the second factor or a recovery code.
func (p *Provider) Answer(ctx context.Context, session, code string) (Tokens, error) {
	userID, err := p.Store.Challenge(ctx, hashToken(session), p.Clock.Now())
	if apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return Tokens{}, errSession
	}
	if err != nil {
		return Tokens{}, err
	}
	err = p.factor(ctx, userID, code, func(tx *pg.Tx) error {
		ended, err := p.Store.EndChallenge(ctx, tx, hashToken(session))
		if err == nil && !ended {
			err = errSession // a rival was first
		}
		return err
	})
	if err != nil {
		return Tokens{}, err
	}
	login, err := p.Store.LoginByID(ctx, userID)
	if err != nil {
		return Tokens{}, err
	}
	if !login.IsActive {
		return Tokens{}, errSession
	}
	return p.issue(ctx, login)
}

// issue starts a session: a family of refresh tokens, and the tokens of its first.
func (p *Provider) issue(ctx context.Context, login *postgres.Login) (Tokens, error) {
	refresh, family := newSecret(), account.NewID()
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		return p.Store.SaveRefreshToken(ctx, tx, hashToken(refresh), family, login.UserID, tx.Now.Add(refreshLife))
	})
	if err != nil {
		return Tokens{}, err
	}
	return p.keys.tokens(p.Config, subject{ID: login.Subject, Email: login.Email, Session: family, LoggedIn: p.Clock.Now()}, refresh)
}

// Refresh rotates a refresh token. One that was used before has been stolen: its
// family is revoked. The family ends 30 days after the login, however often it
// was refreshed.
func (p *Provider) Refresh(ctx context.Context, token string) (Tokens, error) {
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
			return errRefresh
		case old.UsedAt != nil && tx.Now.Sub(*old.UsedAt) < reuseGrace:
			return errRefresh
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
		return Tokens{}, errRefresh
	}
	if err != nil {
		return Tokens{}, err
	}
	return p.keys.tokens(p.Config, subject{ID: old.Subject, Email: old.Email, Session: old.FamilyID, LoggedIn: old.ExpiresAt.Add(-refreshLife)}, next)
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

// IssueKeyToken exchanges an API key for an access token. Every failure is the
// same, whether the key is unknown, revoked, over, or the secret wrong.
func (p *Provider) IssueKeyToken(ctx context.Context, keyID, secret string) (Tokens, error) {
	limit := limitSecret.by(ip(ctx))
	if err := p.attempt(ctx, limit); err != nil {
		return Tokens{}, err
	}
	opened, err := p.Store.UseAPIKey(ctx, keyID, func(k *account.APIKey, now time.Time) bool { return k.Opens(secret, now) })
	if err != nil {
		return Tokens{}, err
	}
	if !opened {
		return Tokens{}, apierr.New(errorv1.Reason_REASON_INVALID_CREDENTIALS, "client_id and client_secret do not match a key that works")
	}
	if err := p.refund(ctx, limit); err != nil {
		return Tokens{}, err
	}
	return p.keys.keyToken(p.Config, keyID)
}
