package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
)

// Login is what the local identity provider checks a password against.
type Login struct {
	UserID       string
	Subject      string
	PasswordHash string
	IsActive     bool
	// Pending says that the hash is of a registration that waits for its code.
	Pending bool
}

// Login finds the user or the pending registration of an address.
func (s *Store) Login(ctx context.Context, email string) (*Login, error) {
	rows, err := s.db.Pool().Query(ctx, `
		SELECT id::text AS user_id, idp_subject AS subject, coalesce(password_hash, '') AS password_hash, is_active, false AS pending
		FROM users WHERE email = $1
		UNION ALL
		SELECT '', '', password_hash, true, true FROM pending_registrations WHERE email = $1 AND user_id IS NULL
		ORDER BY pending LIMIT 1`, email)
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
		INSERT INTO pending_registrations (email, password_hash, full_name, account_name, code_hash, code_expires, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (email) DO UPDATE SET password_hash = excluded.password_hash, full_name = excluded.full_name,
			account_name = excluded.account_name, code_hash = excluded.code_hash, code_expires = excluded.code_expires,
			attempts = 0, user_id = NULL, account_id = NULL, created_at = excluded.created_at`,
		r.Email, r.PasswordHash, r.FullName, r.AccountName, r.CodeHash, r.CodeExpires, tx.Now)
	if err != nil {
		return fmt.Errorf("save registration: %w", err)
	}
	return nil
}

// RenewCode replaces the code of a registration that still waits; it reports
// whether there was one.
func (s *Store) RenewCode(ctx context.Context, email string, hash []byte, expires time.Time) (bool, error) {
	tag, err := s.db.Pool().Exec(ctx, `
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
			coalesce(user_id::text, '') AS user_id, coalesce(account_id::text, '') AS account_id
		FROM pending_registrations WHERE email = $1 FOR UPDATE`, email)
	if err != nil {
		return nil, fmt.Errorf("read registration: %w", err)
	}
	return pg.One[account.Registration](account.ErrInvalidCode)(rows)
}

// CountAttempt notes a wrong code.
func (s *Store) CountAttempt(ctx context.Context, tx *pg.Tx, email string) error {
	_, err := tx.Exec(ctx, "UPDATE pending_registrations SET attempts = attempts + 1 WHERE email = $1", email)
	if err != nil {
		return fmt.Errorf("count attempt: %w", err)
	}
	return nil
}

// FinishRegistration creates the user, the account, its roles and the Owner
// membership of a verified registration, in the transaction that checked its
// code; the transaction's scope must be the new account.
func (s *Store) FinishRegistration(ctx context.Context, tx *pg.Tx, r *account.Registration, issuer string) error {
	given, family := account.SplitName(r.FullName)
	_, err := tx.Exec(ctx, `
		INSERT INTO users (id, email, given_name, family_name, idp_issuer, idp_subject, password_hash, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $8, $6, $7, $7)`,
		r.UserID, r.Email, given, family, issuer, r.PasswordHash, tx.Now, r.UserID)
	if pg.IsUnique(err, "users_email_key") {
		return account.ErrInvalidCode // somebody with this address was first
	}
	if err != nil {
		return fmt.Errorf("insert user: %w", err)
	}
	a := account.Account{ID: r.AccountID, Name: r.AccountName, Status: account.StatusActive}
	if err := s.CreateAccount(ctx, tx, a, r.UserID); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "UPDATE pending_registrations SET user_id = $2, account_id = $3, password_hash = '' WHERE email = $1", r.Email, r.UserID, r.AccountID)
	if err != nil {
		return fmt.Errorf("finish registration: %w", err)
	}
	return nil
}

// RefreshToken is one stored refresh token.
type RefreshToken struct {
	FamilyID  string
	UserID    string
	Subject   string
	IsActive  bool
	ExpiresAt time.Time
	Used      bool
	Revoked   bool
}

// ErrNoToken is a refresh token that was never given.
var ErrNoToken = apierr.NotFound("refresh token")

// SaveRefreshToken stores the hash of a new token of a family.
func (s *Store) SaveRefreshToken(ctx context.Context, tx *pg.Tx, hash []byte, familyID, userID string, expires time.Time) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO refresh_tokens (token_hash, family_id, user_id, expires_at, created_at) VALUES ($1, $2, $3, $4, $5)`,
		hash, familyID, userID, expires, tx.Now)
	if err != nil {
		return fmt.Errorf("save refresh token: %w", err)
	}
	return nil
}

// RefreshToken locks and returns a token by its hash.
func (s *Store) RefreshToken(ctx context.Context, tx *pg.Tx, hash []byte) (*RefreshToken, error) {
	rows, err := tx.Query(ctx, `
		SELECT t.family_id, t.user_id, u.idp_subject AS subject, u.is_active, t.expires_at,
			t.used_at IS NOT NULL AS used, t.revoked_at IS NOT NULL AS revoked
		FROM refresh_tokens t JOIN users u ON u.id = t.user_id WHERE t.token_hash = $1 FOR UPDATE OF t`, hash)
	if err != nil {
		return nil, fmt.Errorf("read refresh token: %w", err)
	}
	return pg.One[RefreshToken](ErrNoToken)(rows)
}

// UseRefreshToken marks a token used.
func (s *Store) UseRefreshToken(ctx context.Context, tx *pg.Tx, hash []byte) error {
	_, err := tx.Exec(ctx, "UPDATE refresh_tokens SET used_at = $2 WHERE token_hash = $1", hash, tx.Now)
	if err != nil {
		return fmt.Errorf("use refresh token: %w", err)
	}
	return nil
}

// RevokeFamily revokes every token of a family.
func (s *Store) RevokeFamily(ctx context.Context, tx *pg.Tx, familyID string) error {
	_, err := tx.Exec(ctx, "UPDATE refresh_tokens SET revoked_at = $2 WHERE family_id = $1 AND revoked_at IS NULL", familyID, tx.Now)
	if err != nil {
		return fmt.Errorf("revoke refresh tokens: %w", err)
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
	rows, err := s.db.Pool().Query(ctx, "SELECT kid, private_key, public_jwk, created_at FROM signing_keys ORDER BY created_at DESC, kid")
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

// Failures returns how often each key failed within the window.
func (s *Store) Failures(ctx context.Context, keys []string, since time.Time) (int, error) {
	var worst int
	err := s.db.Pool().QueryRow(ctx, "SELECT coalesce(max(failures), 0) FROM login_failures WHERE key = ANY ($1) AND started_at > $2", keys, since).Scan(&worst)
	if err != nil {
		return 0, fmt.Errorf("read login failures: %w", err)
	}
	return worst, nil
}

// CountFailure notes a failed login for the keys; an old window starts anew.
func (s *Store) CountFailure(ctx context.Context, keys []string, since time.Time) error {
	_, err := s.db.Pool().Exec(ctx, `
		INSERT INTO login_failures AS f (key, failures, started_at)
		SELECT k, 1, $3 FROM unnest($1::text[]) AS k ORDER BY k
		ON CONFLICT (key) DO UPDATE SET
			failures = CASE WHEN f.started_at > $2 THEN f.failures + 1 ELSE 1 END,
			started_at = CASE WHEN f.started_at > $2 THEN f.started_at ELSE excluded.started_at END`,
		keys, since, s.db.Now())
	if err != nil {
		return fmt.Errorf("count login failure: %w", err)
	}
	return nil
}

// ForgetFailures clears a key after a good login.
func (s *Store) ForgetFailures(ctx context.Context, key string) error {
	if _, err := s.db.Pool().Exec(ctx, "DELETE FROM login_failures WHERE key = $1", key); err != nil {
		return fmt.Errorf("forget login failures: %w", err)
	}
	return nil
}

// Purge removes what the identity provider no longer needs.
func (s *Store) Purge(ctx context.Context) error {
	now := s.db.Now()
	b := &pgx.Batch{}
	b.Queue("DELETE FROM refresh_tokens WHERE expires_at < $1", now)
	b.Queue("DELETE FROM pending_registrations WHERE created_at < $1", now.Add(-7*24*time.Hour))
	b.Queue("DELETE FROM login_failures WHERE started_at < $1", now.Add(-24*time.Hour))
	if err := s.db.Pool().SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("purge identities: %w", err)
	}
	_, err := s.db.PurgeIdempotencyKeys(ctx)
	return err
}
