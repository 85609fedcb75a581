package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/turumba/turumba/kit/pg"
)

// Login is what the local identity provider checks a password against.
type Login struct {
	UserID       string
	Email        string
	Subject      string
	PasswordHash string
	IsActive     bool
	// Epoch is the credential epoch that a check of the password or a code is of.
	Epoch int64
	// Since is when the sessions last ended all at once; nil when they never did.
	Since *time.Time
	// HasTotp says that the second factor is on.
	HasTotp bool
	// Pending says that the hash is of a registration that waits for its code.
	Pending bool
}

const loginColumns = `id::text AS user_id, email, idp_subject AS subject, coalesce(password_hash, '') AS password_hash, is_active, credential_epoch AS epoch, sessions_since AS since,
	EXISTS (SELECT FROM user_totp t WHERE t.user_id = users.id AND t.enabled_at IS NOT NULL) AS has_totp, false AS pending`

// Login finds the user of an address, or the registration of it that waits longest.
func (s *Store) Login(ctx context.Context, email string) (*Login, error) {
	rows, err := s.db.Query(ctx, "SELECT "+loginColumns+` FROM users WHERE email = $1
		UNION ALL (
		SELECT '', email, '', password_hash, true, 0, NULL, false, true FROM pending_registrations
		WHERE email = $1 AND user_id IS NULL AND NOT known AND code_expires > $2 ORDER BY created_at, token_hash LIMIT 1)
		ORDER BY pending LIMIT 1`, email, s.db.Now())
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
