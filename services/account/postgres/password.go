package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
)

// PasswordReset is a code that was mailed.
type PasswordReset struct {
	UserID    string
	CodeHash  []byte
	ExpiresAt time.Time
}

// SaveReset stores the hash of a code for the user of an address, in place of an
// older one; it reports whether there is such a user.
func (s *Store) SaveReset(ctx context.Context, tx *pg.Tx, email string, hash []byte, expires time.Time) (bool, error) {
	tag, err := tx.Exec(ctx, `
		INSERT INTO password_resets (user_id, code_hash, expires_at)
		SELECT id, $2, $3 FROM users WHERE email = $1 AND is_active AND password_hash IS NOT NULL
		ON CONFLICT (user_id) DO UPDATE SET code_hash = excluded.code_hash, expires_at = excluded.expires_at`, email, hash, expires)
	if err != nil {
		return false, fmt.Errorf("save password reset: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// Reset locks and returns the code of an address; INVALID_CODE when there is none.
func (s *Store) Reset(ctx context.Context, tx *pg.Tx, email string) (*PasswordReset, error) {
	rows, err := tx.Query(ctx, `
		SELECT r.user_id, r.code_hash, r.expires_at FROM password_resets r JOIN users u ON u.id = r.user_id
		WHERE u.email = $1 AND u.is_active FOR UPDATE OF r`, email)
	if err != nil {
		return nil, fmt.Errorf("read password reset: %w", err)
	}
	return pg.One[PasswordReset](errCode)(rows)
}

// SetPassword stores a hash and voids the codes that were mailed.
func (s *Store) SetPassword(ctx context.Context, tx *pg.Tx, userID, hash string) error {
	b := &pgx.Batch{}
	b.Queue("UPDATE users SET password_hash = $2, updated_at = $3 WHERE id = $1", userID, hash, tx.Now)
	b.Queue("DELETE FROM password_resets WHERE user_id = $1", userID)
	b.Queue("DELETE FROM login_challenges WHERE user_id = $1", userID)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	return nil
}
