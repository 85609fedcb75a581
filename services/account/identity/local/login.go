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
	login := &postgres.Login{}
	stale := false
	err := p.limits.Guess(ctx, identity.LoginLimits(ctx, email), func() error {
		found, err := p.Store.Login(ctx, email)
		if err == nil {
			login = found
		} else if !apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
			return err
		}
		match, old, err := p.hasher.check(ctx, password, login.PasswordHash)
		if err != nil {
			return err
		}
		if stale = old; !match || login.PasswordHash == "" || !login.IsActive {
			return identity.ErrCredentials
		}
		return nil
	})
	if err != nil {
		return identity.Tokens{}, err
	}
	if login.Pending {
		return identity.Tokens{}, identity.ErrNotVerified
	}
	if stale {
		if err := p.rehash(ctx, login, password); err != nil {
			return identity.Tokens{}, err
		}
	}
	var t identity.Tokens
	err = p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		// Checking took a while: the password may be another one by now.
		h, err := p.Store.Hold(ctx, tx, login.UserID, login.Epoch)
		if err != nil {
			return err
		}
		if h.HasTotp {
			t, err = p.challenge(ctx, tx, h)
		} else {
			t, err = p.issue(ctx, tx, h, false)
		}
		return err
	})
	if errors.Is(err, postgres.ErrStale) {
		err = identity.ErrCredentials
	}
	return t, err
}

// rehash stores the password with today's parameters, if it is still the password.
func (p *Provider) rehash(ctx context.Context, login *postgres.Login, password string) error {
	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	err = p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := p.Store.Hold(ctx, tx, login.UserID, login.Epoch)
		if err != nil {
			return err
		}
		return h.Rehash(ctx, hash, login.PasswordHash)
	})
	if errors.Is(err, postgres.ErrStale) {
		err = identity.ErrCredentials
	}
	return err
}

func (p *Provider) challenge(ctx context.Context, tx *pg.Tx, h *postgres.Held) (identity.Tokens, error) {
	session := identity.NewToken()
	return identity.Tokens{Session: session}, h.SaveChallenge(ctx, identity.HashToken(session), tx.Now.Add(challengeLife))
}

// Answer ends a login with a code of the second factor or a recovery code. The login must
// stand on the epoch that its password was checked on.
func (p *Provider) Answer(ctx context.Context, session, code string) (identity.Tokens, error) {
	hash := identity.HashToken(session)
	c, err := p.Store.Challenge(ctx, hash, p.Clock.Now())
	if apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return identity.Tokens{}, identity.ErrSession
	}
	if err != nil {
		return identity.Tokens{}, err
	}
	login, err := p.Store.LoginByID(ctx, c.UserID)
	if err != nil {
		return identity.Tokens{}, err
	}
	var t identity.Tokens
	hold := func(tx *pg.Tx) (*postgres.Held, error) { return p.Store.Hold(ctx, tx, c.UserID, c.Epoch) }
	err = p.limits.Answer(ctx, identity.OfToken(session), identity.OfUser(c.UserID), login.Email, sixDigits.MatchString(code), func() error {
		return p.factor(ctx, c.UserID, code, hold, func(tx *pg.Tx, h *postgres.Held) error {
			ended, err := h.EndChallenge(ctx, hash)
			if err != nil {
				return err
			}
			if !ended {
				return identity.ErrSession // a rival was first
			}
			t, err = p.issue(ctx, tx, h, true)
			return err
		})
	})
	if errors.Is(err, postgres.ErrStale) {
		err = identity.ErrSession
	}
	return t, err
}

// issue starts a session: a family of refresh tokens, and the tokens of its first. factor
// tells that the login took the second factor.
func (p *Provider) issue(ctx context.Context, tx *pg.Tx, h *postgres.Held, factor bool) (identity.Tokens, error) {
	x := postgres.Session{ID: account.NewID(), Epoch: h.Epoch, Own: true, Factor: factor, BeganAt: tx.Now, ExpiresAt: tx.Now.Add(refreshLife)}
	if err := h.Begin(ctx, x); err != nil {
		return identity.Tokens{}, err
	}
	return p.give(ctx, h, &x)
}

// give adds a refresh token to a session and signs the tokens that go with it.
func (p *Provider) give(ctx context.Context, h *postgres.Held, x *postgres.Session) (identity.Tokens, error) {
	refresh := identity.NewToken()
	if err := h.SaveRefreshToken(ctx, identity.HashToken(refresh), x.ID, x.ExpiresAt); err != nil {
		return identity.Tokens{}, err
	}
	t, err := p.Keys.Tokens(identity.Subject{
		ID: h.Subject, Email: h.Email, Session: x.ID, LoggedIn: x.BeganAt, Epoch: x.Epoch, Factor: x.Factor && h.HasTotp,
	}, refresh)
	t.Address = h.Email
	return t, err
}

// Refresh rotates a refresh token. One that was used before has been stolen: its
// session ends. The session ends 30 days after the login, however often it was
// refreshed.
func (p *Provider) Refresh(ctx context.Context, token string) (identity.Tokens, error) {
	hash := identity.HashToken(token)
	var t identity.Tokens
	var stolen *postgres.Held
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, x, err := p.session(ctx, tx, hash)
		if err != nil {
			return err
		}
		old, err := h.RefreshToken(ctx, hash)
		if err != nil {
			return err
		}
		switch {
		case !h.Live(x) || !tx.Now.Before(old.ExpiresAt):
			return identity.ErrRefresh
		case old.UsedAt != nil && tx.Now.Sub(*old.UsedAt) < reuseGrace:
			return identity.ErrRefreshUsed
		case old.UsedAt != nil:
			stolen = h
			return h.EndSession(ctx, x.ID) // committed: the theft counts
		}
		if err := h.UseRefreshToken(ctx, hash); err != nil {
			return err
		}
		t, err = p.give(ctx, h, x)
		return err
	})
	if stolen != nil && err == nil {
		p.Changed()
		p.Logger.WarnContext(ctx, "a refresh token was used twice; its session has ended", "user_id", stolen.UserID)
		err = identity.ErrRefresh
	}
	if errors.Is(err, postgres.ErrNoToken) {
		err = identity.ErrRefresh
	}
	return t, err
}

// session holds the user of a refresh token and locks its session.
func (p *Provider) session(ctx context.Context, tx *pg.Tx, hash []byte) (*postgres.Held, *postgres.Session, error) {
	userID, sessionID, err := p.Store.TokenOwner(ctx, tx, hash)
	if err != nil {
		return nil, nil, err
	}
	h, err := p.Store.HoldAny(ctx, tx, userID)
	if err != nil {
		return nil, nil, err
	}
	x, err := h.Session(ctx, sessionID)
	if err == nil && x == nil {
		err = postgres.ErrNoToken
	}
	return h, x, err
}

// Logout ends the session of a refresh token; an unknown one changes nothing.
func (p *Provider) Logout(ctx context.Context, token string) error {
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, x, err := p.session(ctx, tx, identity.HashToken(token))
		if err != nil {
			return err
		}
		return h.EndSession(ctx, x.ID)
	})
	if errors.Is(err, postgres.ErrNoToken) {
		return nil
	}
	p.Changed()
	return err
}

// LogoutEverywhere ends every session of a user.
func (p *Provider) LogoutEverywhere(ctx context.Context, userID string) error {
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := p.Store.HoldAny(ctx, tx, userID)
		if err != nil {
			return err
		}
		return h.Next(ctx, "")
	})
	p.Changed()
	return err
}
