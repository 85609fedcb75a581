// Package local is the identity provider that the product brings along: e-mail
// and password (argon2id), 6-digit verification codes, RS256 tokens in Cognito's
// claim shape, and refresh tokens that rotate and notice their theft. Answers
// and their times do not tell whether an address is known.
package local

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"time"

	"github.com/alexedwards/argon2id"
	"google.golang.org/protobuf/proto"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

// Limits of tokens and logins.
const (
	accessLife    = 15 * time.Minute
	refreshLife   = 30 * 24 * time.Hour
	failureWindow = 15 * time.Minute
	maxFailures   = 10  // per address and window
	maxFailuresIP = 100 // per IP and window
)

// hashParams follow RFC 9106 section 4's second choice, with one lane per core
// of a small machine.
var hashParams = &argon2id.Params{Memory: 32 * 1024, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// Mailer sends the provider's own mails.
type Mailer interface {
	// Send sends one plain-text mail.
	Send(ctx context.Context, to, subject, text string) error
}

// Config is what the provider needs.
type Config struct {
	Store  *postgres.Store
	Vault  *vault.Vault
	Mailer Mailer
	Clock  clock.Clock
	Logger *slog.Logger
	// Issuer is the iss of the tokens, and ClientID their client_id.
	Issuer, ClientID string
}

// Provider is the local identity provider.
type Provider struct {
	Config
	keys  *keyring
	dummy string // a hash that no password has, for the time it takes to check
}

// New prepares the provider; it makes the first signing key when there is none.
func New(ctx context.Context, cfg Config) (*Provider, error) {
	keys, err := loadKeys(ctx, cfg)
	if err != nil {
		return nil, err
	}
	dummy, err := argon2id.CreateHash(rand.Text(), hashParams)
	if err != nil {
		return nil, fmt.Errorf("hash: %w", err)
	}
	return &Provider{Config: cfg, keys: keys, dummy: dummy}, nil
}

// Register starts a registration and mails the code; a known address gets a
// notice instead. respond is the stored answer for the idempotency key.
func (p *Provider) Register(ctx context.Context, r account.Registration, password string, respond proto.Message) error {
	r.Email = account.NormalEmail(r.Email)
	if err := account.CheckPassword(password, r.Email); err != nil {
		return err
	}
	hash, err := argon2id.CreateHash(password, hashParams)
	if err != nil {
		return fmt.Errorf("hash the password: %w", err)
	}
	code := newCode()
	r.PasswordHash, r.CodeHash = hash, hashCode(r.Email, code)
	known := false
	err = p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, "email:"+digest(r.Email)); err != nil {
			return err
		}
		if known, err = p.Store.UserExists(ctx, tx, r.Email); err != nil {
			return err
		}
		r.CodeExpires = tx.Now.Add(account.CodeLife)
		if !known {
			if err := p.Store.SaveRegistration(ctx, tx, r); err != nil {
				return err
			}
		}
		return tx.Respond(ctx, respond)
	})
	if err != nil {
		return err
	}
	if known {
		p.mail(ctx, r.Email, "You have an account already", "Somebody tried to register with this address. You have an account already; log in with your password.\n")
		return nil
	}
	p.mailCode(ctx, r.Email, code)
	return nil
}

func (p *Provider) mailCode(ctx context.Context, email, code string) {
	p.mail(ctx, email, code+" is your verification code", "Your verification code is "+code+". It is good for 15 minutes.\nIf you did not register, ignore this mail.\n")
}

// mail sends and logs a failure: the answer must not tell which address exists,
// and the code can be asked for again.
func (p *Provider) mail(ctx context.Context, to, subject, text string) {
	if err := p.Mailer.Send(ctx, to, subject, text); err != nil {
		p.Logger.ErrorContext(ctx, "a mail could not be sent", "err", err)
	}
}

// Verify checks a code and creates what was registered. The same good code gives
// the same answer again.
func (p *Provider) Verify(ctx context.Context, email, code string) (*account.Registration, error) {
	email = account.NormalEmail(email)
	newAccount := account.NewID()
	var r *account.Registration
	wrong := false
	err := p.Store.DB().InTx(ctx, []string{newAccount}, func(tx *pg.Tx) error {
		var err error
		if r, err = p.Store.Registration(ctx, tx, email); err != nil {
			return err
		}
		if r.Attempts >= account.MaxCodeAttempts || !tx.Now.Before(r.CodeExpires) {
			return account.ErrInvalidCode
		}
		if subtle.ConstantTimeCompare(hashCode(email, code), r.CodeHash) != 1 {
			wrong = true
			return p.Store.CountAttempt(ctx, tx, email) // committed: a wrong code counts
		}
		if r.UserID != "" {
			return nil
		}
		r.UserID, r.AccountID = account.NewID(), newAccount
		return p.Store.FinishRegistration(ctx, tx, r, p.Issuer)
	})
	if err == nil && wrong {
		err = account.ErrInvalidCode
	}
	return r, err
}

// Resend mails a new code if a registration waits for one.
func (p *Provider) Resend(ctx context.Context, email string) error {
	email = account.NormalEmail(email)
	code := newCode()
	waits, err := p.Store.RenewCode(ctx, email, hashCode(email, code), p.Clock.Now().Add(account.CodeLife))
	if err != nil {
		return err
	}
	if waits {
		p.mailCode(ctx, email, code)
	}
	return nil
}

var (
	errCredentials = apierr.New(errorv1.Reason_REASON_INVALID_CREDENTIALS, "e-mail and password do not match")
	errNotVerified = apierr.New(errorv1.Reason_REASON_EMAIL_NOT_VERIFIED, "the e-mail address still waits for verification")
	errTooMany     = apierr.New(errorv1.Reason_REASON_RATE_LIMITED, "too many failed logins").WithRetryAfter(failureWindow)
	errRefresh     = apierr.New(errorv1.Reason_REASON_INVALID_REFRESH_TOKEN, "the refresh token is unknown, used or expired")
)

// Login checks a password and starts a family of refresh tokens. ip is the
// caller's address, for the limit.
func (p *Provider) Login(ctx context.Context, email, password, ip string) (Tokens, error) {
	email = account.NormalEmail(email)
	if err := p.checkLimits(ctx, email, ip); err != nil {
		return Tokens{}, err
	}
	login, err := p.Store.Login(ctx, email)
	if err != nil && !errors.Is(err, apierr.NotFound("user")) {
		return Tokens{}, err
	}
	hash := p.dummy
	if login != nil && login.PasswordHash != "" {
		hash = login.PasswordHash
	}
	match, err := argon2id.ComparePasswordAndHash(password, hash)
	if err != nil {
		return Tokens{}, fmt.Errorf("check the password: %w", err)
	}
	if !match || login == nil || !login.IsActive {
		if err := p.Store.CountFailure(ctx, p.limitKeys(email, ip), p.Clock.Now().Add(-failureWindow)); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, errCredentials
	}
	if login.Pending {
		return Tokens{}, errNotVerified
	}
	if err := p.Store.ForgetFailures(ctx, p.limitKeys(email, "")[0]); err != nil {
		return Tokens{}, err
	}
	return p.issue(ctx, login.UserID, login.Subject, email)
}

func (p *Provider) limitKeys(email, ip string) []string {
	keys := []string{"email:" + digest(email)}
	if ip != "" {
		keys = append(keys, "ip:"+digest(ip))
	}
	return keys
}

func (p *Provider) checkLimits(ctx context.Context, email, ip string) error {
	since := p.Clock.Now().Add(-failureWindow)
	keys := p.limitKeys(email, ip)
	n, err := p.Store.Failures(ctx, keys[:1], since)
	if err != nil {
		return err
	}
	if n >= maxFailures {
		return errTooMany
	}
	if len(keys) == 1 {
		return nil
	}
	if n, err = p.Store.Failures(ctx, keys[1:], since); err != nil {
		return err
	}
	if n >= maxFailuresIP {
		return errTooMany
	}
	return nil
}

func (p *Provider) issue(ctx context.Context, userID, subject, email string) (Tokens, error) {
	refresh := newRefreshToken()
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		return p.Store.SaveRefreshToken(ctx, tx, hashToken(refresh), account.NewID(), userID, tx.Now.Add(refreshLife))
	})
	if err != nil {
		return Tokens{}, err
	}
	return p.keys.tokens(p.Config, subject, email, refresh)
}

// Refresh rotates a refresh token. One that was used before has been stolen:
// its family is revoked.
func (p *Provider) Refresh(ctx context.Context, token string) (Tokens, error) {
	next := newRefreshToken()
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
		case old.Used:
			stolen = true
			return p.Store.RevokeFamily(ctx, tx, old.FamilyID) // committed: the theft counts
		}
		if err := p.Store.UseRefreshToken(ctx, tx, hashToken(token)); err != nil {
			return err
		}
		return p.Store.SaveRefreshToken(ctx, tx, hashToken(next), old.FamilyID, old.UserID, tx.Now.Add(refreshLife))
	})
	if errors.Is(err, postgres.ErrNoToken) || stolen {
		return Tokens{}, errRefresh
	}
	if err != nil {
		return Tokens{}, err
	}
	return p.keys.tokens(p.Config, old.Subject, "", next)
}

// Logout revokes the family of a refresh token; an unknown one changes nothing.
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
	return err
}

// newCode is six random digits.
func newCode() string {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		panic(err) // crypto/rand never fails on supported systems
	}
	return fmt.Sprintf("%06d", n.Int64())
}

func hashCode(email, code string) []byte {
	sum := sha256.Sum256([]byte(email + "\x00" + code))
	return sum[:]
}

func newRefreshToken() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // it never fails on supported systems
	return base64.RawURLEncoding.EncodeToString(b)
}

func hashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
