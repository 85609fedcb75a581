// Package local is the identity provider that the product brings along: e-mail
// and password (argon2id), mailed codes, a second factor (TOTP), RS256 tokens in
// Cognito's claim shape, and refresh tokens that rotate and notice their theft.
// Answers and their times do not tell whether an address is known.
package local

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
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

// Register starts a registration and mails the code; a known address gets a
// notice instead. respond is the stored answer for the idempotency key.
func (p *Provider) Register(ctx context.Context, r account.Registration, password string, respond proto.Message) error {
	r.Email = account.NormalEmail(r.Email)
	if err := account.CheckPassword("password", password, r.Email, r.FullName, r.AccountName); err != nil {
		return err
	}
	if err := p.limits.Attempt(ctx, identity.LimitMail.By(r.Email)); err != nil {
		return err
	}
	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	code := newCode()
	r.PasswordHash, r.CodeHash = hash, identity.HashCode(r.Email, code)
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, "email:"+identity.Digest(r.Email)); err != nil {
			return err
		}
		known, err := p.Store.UserExists(ctx, tx, r.Email)
		if err != nil {
			return err
		}
		if known {
			err = p.Mail.Queue(ctx, tx, r.Email, identity.KnownSubject, identity.KnownText)
		} else {
			r.CodeExpires = tx.Now.Add(account.CodeLife)
			if err = p.Store.SaveRegistration(ctx, tx, r); err == nil {
				err = p.mailCode(ctx, tx, r.Email, code)
			}
		}
		if err != nil {
			return err
		}
		return tx.Respond(ctx, respond)
	})
}

func (p *Provider) mailCode(ctx context.Context, tx *pg.Tx, email, code string) error {
	return p.Mail.Queue(ctx, tx, email, code+" is your verification code", "Your verification code is "+code+". It is good for 15 minutes.\nIf you did not register, ignore this mail.\n")
}

// Verify checks a code and creates what was registered. The same good code gives
// the same answer again.
func (p *Provider) Verify(ctx context.Context, email, code string) (*account.Registration, error) {
	email = account.NormalEmail(email)
	joins := account.NewID() // the account that the user makes or joins
	invitation, err := p.Store.RegisteringWith(ctx, email)
	if err != nil {
		return nil, err
	}
	if invitation != nil {
		joins = invitation.AccountID
	}
	var r *account.Registration
	wrong := false
	err = p.Store.DB().InTx(ctx, []string{joins}, func(tx *pg.Tx) error {
		if r, err = p.Store.Registration(ctx, tx, email); err != nil {
			return err
		}
		if r.Attempts >= account.MaxCodeAttempts || !tx.Now.Before(r.CodeExpires) {
			return account.ErrInvalidCode
		}
		if subtle.ConstantTimeCompare(identity.HashCode(email, code), r.CodeHash) != 1 {
			wrong = true
			return p.Store.CountAttempt(ctx, tx, email) // committed: a wrong code counts
		}
		if r.UserID != "" {
			return nil
		}
		if (invitation == nil) != (r.InvitationHash == nil) {
			return account.ErrInvalidCode // registered again in between
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

// Resend mails a new code if a registration waits for one.
func (p *Provider) Resend(ctx context.Context, email string) error {
	email = account.NormalEmail(email)
	if err := p.limits.Attempt(ctx, identity.LimitMail.By(email)); err != nil {
		return err
	}
	code := newCode()
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		waits, err := p.Store.RenewCode(ctx, tx, email, identity.HashCode(email, code), tx.Now.Add(account.CodeLife))
		if err != nil || !waits {
			return err
		}
		return p.mailCode(ctx, tx, email, code)
	})
}

// newCode is six random digits.
func newCode() string {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		panic(err) // crypto/rand never fails on supported systems
	}
	return fmt.Sprintf("%06d", n.Int64())
}

// newSecret is 256 random bits.
func newSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // it never fails on supported systems
	return base64.RawURLEncoding.EncodeToString(b)
}

func hashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}
