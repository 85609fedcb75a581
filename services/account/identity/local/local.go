// Package local is the identity provider that the product brings along: e-mail
// and password (argon2id), mailed codes, a second factor (TOTP), RS256 tokens in
// Cognito's claim shape, and refresh tokens that rotate and notice their theft.
// Answers and their times do not tell whether an address is known.
package local

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"math/big"

	"google.golang.org/protobuf/proto"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/postgres"
)

// Config is what the provider needs.
type Config struct {
	Store *postgres.Store
	Vault *vault.Vault
	// Keys sign the tokens.
	Keys *identity.Keys
	// Mail takes codes and notices.
	Mail   *identity.Postbox
	Clock  clock.Clock
	Logger *slog.Logger
	// Changed is called when sessions ended, to drop cached contexts.
	Changed func()
}

// Provider is the local identity provider.
type Provider struct {
	Config
	limits identity.Limits
	hasher *hasher
}

// New prepares the provider.
func New(cfg Config) (*Provider, error) {
	h, err := newHasher()
	if err != nil {
		return nil, err
	}
	return &Provider{Config: cfg, limits: identity.Limits{Store: cfg.Store}, hasher: h}, nil
}

// Register starts a registration, mails the code and answers the token by which it is
// verified; a known address gets a notice instead, and a registration that gives nothing.
// respond makes the answer, which is stored for the idempotency key.
func (p *Provider) Register(ctx context.Context, r account.Registration, password string, respond func(token string) proto.Message) error {
	r.Email = account.NormalEmail(r.Email)
	if err := account.CheckPassword("password", password, r.Email, r.FullName, r.AccountName); err != nil {
		return err
	}
	if err := p.limits.Register(ctx, &r); err != nil {
		return err
	}
	r.Asker = identity.AskerFrom(ctx).Mark()
	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	code, err := p.newCode(ctx, r.Email)
	if err != nil {
		return err
	}
	token := identity.NewToken()
	r.TokenHash, r.PasswordHash, r.CodeHash = identity.HashToken(token), hash, identity.HashCode(token, code)
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, "email:"+identity.Digest(r.Email)); err != nil {
			return err
		}
		if r.Known, err = p.Store.UserExists(ctx, tx, r.Email); err != nil {
			return err
		}
		if r.Known {
			r.PasswordHash = "" // of no use to anybody
		}
		r.CodeExpires = tx.Now.Add(account.CodeLife)
		if err := p.Store.SaveRegistration(ctx, tx, r); err != nil {
			return err
		}
		if err := p.mailCode(ctx, tx, &r, code); err != nil {
			return err
		}
		return tx.Respond(ctx, respond(token))
	})
}

// mailCode mails the code of a registration, or that the address is known.
func (p *Provider) mailCode(ctx context.Context, tx *pg.Tx, r *account.Registration, code string) error {
	if r.Known {
		return p.Mail.Queue(ctx, tx, r.Email, identity.KnownLetter())
	}
	return p.Mail.Queue(ctx, tx, r.Email, identity.CodeLetter(r.FullName, code))
}

// Verify checks a code and creates what was registered. The same good code gives
// the same answer again. So many wrong codes of six digits end all of the address; the next
// ones are longer, so that nobody can keep its owner out.
func (p *Provider) Verify(ctx context.Context, email, code, token string) (*account.Registration, error) {
	email = account.NormalEmail(email)
	hash := identity.HashToken(token)
	begun, err := p.Store.RegistrationBegun(ctx, email, hash)
	if err != nil {
		return nil, err
	}
	joins := account.NewID() // the account that the user makes or joins
	invitation, err := p.Store.InvitationOf(ctx, begun)
	if err != nil {
		return nil, err
	}
	if invitation != nil {
		joins = invitation.AccountID
	}
	var r *account.Registration
	err = p.limits.Verify(ctx, email, token, sixDigits.MatchString(code), account.ErrInvalidCode, func() error {
		r, err = p.verify(ctx, email, code, token, joins, invitation)
		return err
	})
	return r, err
}

// verify checks a code and creates what was registered.
func (p *Provider) verify(ctx context.Context, email, code, token, joins string, invitation *account.Invitation) (r *account.Registration, err error) {
	hash := identity.HashToken(token)
	wrong := false
	err = p.Store.DB().InTx(ctx, []string{joins}, func(tx *pg.Tx) error {
		if r, err = p.Store.Registration(ctx, tx, email, hash); err != nil {
			return err
		}
		if r.Attempts >= account.MaxCodeAttempts || !tx.Now.Before(r.CodeExpires) {
			return account.ErrInvalidCode
		}
		if r.Known || subtle.ConstantTimeCompare(identity.HashCode(token, code), r.CodeHash) != 1 {
			wrong = true
			return p.Store.CountAttempt(ctx, tx, hash) // committed: a wrong code counts
		}
		if r.UserID != "" {
			return nil
		}
		r.UserID, r.AccountID = account.NewID(), joins
		r.Subject = r.UserID
		return p.Store.FinishRegistration(ctx, tx, r, invitation, p.Keys.Issuer)
	})
	if err == nil && wrong {
		err = account.ErrInvalidCode
	}
	return r, err
}

// Resend mails a new code if the registration waits for one; one of a known address gets
// the notice again.
func (p *Provider) Resend(ctx context.Context, email, token string) error {
	email = account.NormalEmail(email)
	if _, err := p.Store.RegistrationBegun(ctx, email, identity.HashToken(token)); err != nil {
		if errors.Is(err, account.ErrInvalidCode) {
			err = nil
		}
		return err
	}
	if err := p.limits.Resend(ctx, email, token); err != nil {
		return err
	}
	code, err := p.newCode(ctx, email)
	if err != nil {
		return err
	}
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		r, err := p.Store.Registration(ctx, tx, email, identity.HashToken(token))
		if errors.Is(err, account.ErrInvalidCode) || (err == nil && r.UserID != "") {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.Store.RenewCode(ctx, tx, r.TokenHash, identity.HashCode(token, code), tx.Now.Add(account.CodeLife)); err != nil {
			return err
		}
		return p.mailCode(ctx, tx, r, code)
	})
}

// newCode is a code for an address: six random digits, or twelve where somebody guesses.
func (p *Provider) newCode(ctx context.Context, email string) (string, error) {
	guessed, err := p.limits.Guessed(ctx, email)
	if err != nil {
		return "", err
	}
	if guessed {
		return digits() + digits(), nil
	}
	return digits(), nil
}

// digits are six random ones.
func digits() string {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		panic(err) // crypto/rand never fails on supported systems
	}
	return fmt.Sprintf("%06d", n.Int64())
}
