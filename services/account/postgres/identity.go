package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
)

// Login is what the local identity provider checks a password against.
type Login struct {
	UserID       string
	Email        string
	Subject      string
	PasswordHash string
	IsActive     bool
	// HasTotp says that the second factor is on.
	HasTotp bool
	// Pending says that the hash is of a registration that waits for its code.
	Pending bool
}

const loginColumns = `id::text AS user_id, email, idp_subject AS subject, coalesce(password_hash, '') AS password_hash, is_active,
	EXISTS (SELECT FROM user_totp t WHERE t.user_id = users.id AND t.enabled_at IS NOT NULL) AS has_totp, false AS pending`

// Login finds the user or the pending registration of an address.
func (s *Store) Login(ctx context.Context, email string) (*Login, error) {
	rows, err := s.db.Query(ctx, "SELECT "+loginColumns+` FROM users WHERE email = $1
		UNION ALL
		SELECT '', email, '', password_hash, true, false, true FROM pending_registrations WHERE email = $1 AND user_id IS NULL
		ORDER BY pending LIMIT 1`, email)
	if err != nil {
		return nil, fmt.Errorf("read login: %w", err)
	}
	return pg.One[Login](errUser)(rows)
}

// LoginByID finds the login of a user.
func (s *Store) LoginByID(ctx context.Context, userID string) (*Login, error) {
	rows, err := s.db.Query(ctx, "SELECT "+loginColumns+" FROM users WHERE id = $1", userID)
	if err != nil {
		return nil, fmt.Errorf("read login: %w", err)
	}
	return pg.One[Login](errUser)(rows)
}

// UserExists reports whether the address belongs to a user.
func (s *Store) UserExists(ctx context.Context, tx *pg.Tx, email string) (bool, error) {
	var exists bool
	err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM users WHERE email = $1)", email).Scan(&exists)
	if err != nil {
		return false, fmt.Errorf("look for user: %w", err)
	}
	return exists, nil
}

// SaveRegistration stores a registration that waits for its code; a newer one
// of the same address replaces it.
func (s *Store) SaveRegistration(ctx context.Context, tx *pg.Tx, r account.Registration) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO pending_registrations (email, password_hash, full_name, account_name, code_hash, code_expires, created_at, invitation_hash)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (email) DO UPDATE SET password_hash = excluded.password_hash, full_name = excluded.full_name,
			account_name = excluded.account_name, code_hash = excluded.code_hash, code_expires = excluded.code_expires,
			attempts = 0, user_id = NULL, account_id = NULL, created_at = excluded.created_at, invitation_hash = excluded.invitation_hash`,
		r.Email, r.PasswordHash, r.FullName, r.AccountName, r.CodeHash, r.CodeExpires, tx.Now, r.InvitationHash)
	if err != nil {
		return fmt.Errorf("save registration: %w", err)
	}
	return nil
}

// RenewCode replaces the code of a registration that still waits; it reports
// whether there was one.
func (s *Store) RenewCode(ctx context.Context, tx *pg.Tx, email string, hash []byte, expires time.Time) (bool, error) {
	tag, err := tx.Exec(ctx, `
		UPDATE pending_registrations SET code_hash = $2, code_expires = $3, attempts = 0
		WHERE email = $1 AND user_id IS NULL`, email, hash, expires)
	if err != nil {
		return false, fmt.Errorf("renew code: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// Registration locks and returns the registration of an address.
func (s *Store) Registration(ctx context.Context, tx *pg.Tx, email string) (*account.Registration, error) {
	rows, err := tx.Query(ctx, `
		SELECT email, password_hash, full_name, account_name, code_hash, code_expires, attempts,
			'' AS subject, coalesce(user_id::text, '') AS user_id, coalesce(account_id::text, '') AS account_id, invitation_hash
		FROM pending_registrations WHERE email = $1 FOR UPDATE`, email)
	if err != nil {
		return nil, fmt.Errorf("read registration: %w", err)
	}
	return pg.One[account.Registration](account.ErrInvalidCode)(rows)
}

// registrationInvitation is the hash of the token that an address registers with;
// nil without one.
func (s *Store) registrationInvitation(ctx context.Context, email string) ([]byte, error) {
	var hash []byte
	err := s.db.QueryRow(ctx, "SELECT invitation_hash FROM pending_registrations WHERE email = $1 AND user_id IS NULL", email).Scan(&hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read registration: %w", err)
	}
	return hash, nil
}

// RegisteringWith is the invitation that an address registers with; nil without one.
func (s *Store) RegisteringWith(ctx context.Context, email string) (*account.Invitation, error) {
	hash, err := s.registrationInvitation(ctx, email)
	if err != nil || hash == nil {
		return nil, err
	}
	i, err := s.InvitationByToken(ctx, hash)
	if apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return nil, account.ErrInvitationOver // it was sent again, with another token
	}
	return i, err
}

// CountAttempt notes a wrong code.
func (s *Store) CountAttempt(ctx context.Context, tx *pg.Tx, email string) error {
	_, err := tx.Exec(ctx, "UPDATE pending_registrations SET attempts = attempts + 1 WHERE email = $1", email)
	if err != nil {
		return fmt.Errorf("count attempt: %w", err)
	}
	return nil
}

// FinishRegistration creates the user of a verified registration, and the account
// with its roles and the Owner membership, or the membership of the invitation,
// in the transaction that checked its code; the transaction's scope must be that
// account.
func (s *Store) FinishRegistration(ctx context.Context, tx *pg.Tx, r *account.Registration, i *account.Invitation, issuer string) error {
	ctx = actingAs(ctx, r.UserID)
	given, family := account.SplitName(r.FullName)
	_, err := tx.Exec(ctx, `
		INSERT INTO users (id, email, given_name, family_name, idp_issuer, idp_subject, password_hash, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, nullif($7, ''), $8, $8)`,
		r.UserID, r.Email, given, family, issuer, r.Subject, r.PasswordHash, tx.Now)
	if pg.IsUnique(err, "users_email_key") {
		return account.ErrInvalidCode // somebody with this address was first
	}
	if err != nil {
		return fmt.Errorf("insert user: %w", err)
	}
	if i != nil {
		_, err = s.AcceptInvitation(ctx, tx, i, r.UserID, r.Email)
	} else {
		err = s.CreateAccount(ctx, tx, account.Account{ID: r.AccountID, Name: r.AccountName, Status: account.StatusActive}, r.UserID)
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "UPDATE pending_registrations SET user_id = $2, account_id = $3, code_hash = $4, password_hash = '' WHERE email = $1",
		r.Email, r.UserID, r.AccountID, r.CodeHash)
	if err != nil {
		return fmt.Errorf("finish registration: %w", err)
	}
	return nil
}

// SigningKey is a key that signs tokens; the private half is sealed.
type SigningKey struct {
	KID        string `db:"kid"`
	PrivateKey []byte
	PublicJWK  []byte `db:"public_jwk"`
	CreatedAt  time.Time
}

// SigningKeys returns the signing keys, newest first.
func (s *Store) SigningKeys(ctx context.Context) ([]*SigningKey, error) {
	rows, err := s.db.Query(ctx, "SELECT kid, private_key, public_jwk, created_at FROM signing_keys ORDER BY created_at DESC, kid")
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	return pg.All[SigningKey](rows)
}

// AddFirstSigningKey stores the key unless there is one already; several
// processes may try at once.
func (s *Store) AddFirstSigningKey(ctx context.Context, k SigningKey) error {
	return s.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(7319003)"); err != nil {
			return fmt.Errorf("lock signing keys: %w", err)
		}
		_, err := tx.Exec(ctx, `
			INSERT INTO signing_keys (kid, private_key, public_jwk, created_at)
			SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT FROM signing_keys)`, k.KID, k.PrivateKey, k.PublicJWK, tx.Now)
		if err != nil {
			return fmt.Errorf("insert signing key: %w", err)
		}
		return nil
	})
}
