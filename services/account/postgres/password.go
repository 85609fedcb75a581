package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/turumba/turumba/kit/pg"
)

// PasswordReset is a code that was mailed.
type PasswordReset struct {
	UserID    string
	CodeHash  []byte
	Epoch     int64 `db:"credential_epoch"`
	ExpiresAt time.Time
}

// SaveReset stores the hash of a code for the user, beside those of earlier mails: whoever
// asks for another one must not void the one that its owner is about to enter.
func (h *Held) SaveReset(ctx context.Context, hash []byte, expires time.Time) error {
	_, err := h.tx.Exec(ctx, `
		INSERT INTO password_resets (user_id, code_hash, credential_epoch, expires_at) VALUES ($1, $2, $3, $4)`,
		h.UserID, hash, h.Epoch, expires)
	if err != nil {
		return fmt.Errorf("save password reset: %w", err)
	}
	return nil
}

// Reset returns a code of the user by its hash; INVALID_CODE when there is none.
func (h *Held) Reset(ctx context.Context, hash []byte) (*PasswordReset, error) {
	rows, err := h.tx.Query(ctx, "SELECT user_id, code_hash, credential_epoch, expires_at FROM password_resets WHERE user_id = $1 AND code_hash = $2", h.UserID, hash)
	if err != nil {
		return nil, fmt.Errorf("read password reset: %w", err)
	}
	return pg.One[PasswordReset](errCode)(rows)
}
