package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
)

// Totp is the second factor of a user.
type Totp struct {
	Secret    []byte
	EnabledAt *time.Time
	LastStep  int64
}

// Totp locks and returns the second factor of a user; nil when there is none.
func (s *Store) Totp(ctx context.Context, tx *pg.Tx, userID string) (*Totp, error) {
	rows, err := tx.Query(ctx, "SELECT secret, enabled_at, last_step FROM user_totp WHERE user_id = $1 FOR UPDATE", userID)
	if err != nil {
		return nil, fmt.Errorf("read second factor: %w", err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[Totp])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return t, err
}

// SaveTotp stores a secret that waits for its first code.
func (s *Store) SaveTotp(ctx context.Context, tx *pg.Tx, userID string, sealed []byte) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO user_totp (user_id, secret, created_at) VALUES ($1, $2, $3)
		ON CONFLICT (user_id) DO UPDATE SET secret = excluded.secret, last_step = 0, created_at = excluded.created_at
		WHERE user_totp.enabled_at IS NULL`, userID, sealed, tx.Now)
	if err != nil {
		return fmt.Errorf("save second factor: %w", err)
	}
	return nil
}

// EnableTotp turns the second factor on.
func (s *Store) EnableTotp(ctx context.Context, tx *pg.Tx, userID string) error {
	if _, err := tx.Exec(ctx, "UPDATE user_totp SET enabled_at = $2 WHERE user_id = $1", userID, tx.Now); err != nil {
		return fmt.Errorf("enable second factor: %w", err)
	}
	return nil
}

// UseTotpStep notes the newest step whose code was used.
func (s *Store) UseTotpStep(ctx context.Context, tx *pg.Tx, userID string, step int64) error {
	if _, err := tx.Exec(ctx, "UPDATE user_totp SET last_step = $2 WHERE user_id = $1", userID, step); err != nil {
		return fmt.Errorf("use second factor: %w", err)
	}
	return nil
}

// DeleteTotp turns the second factor off; its recovery codes go with it.
func (s *Store) DeleteTotp(ctx context.Context, tx *pg.Tx, userID string) error {
	if _, err := tx.Exec(ctx, "DELETE FROM user_totp WHERE user_id = $1", userID); err != nil {
		return fmt.Errorf("delete second factor: %w", err)
	}
	return nil
}

// SaveRecoveryCodes replaces the hashes of a user's recovery codes.
func (s *Store) SaveRecoveryCodes(ctx context.Context, tx *pg.Tx, userID string, hashes [][]byte) error {
	b := &pgx.Batch{}
	b.Queue("DELETE FROM recovery_codes WHERE user_id = $1", userID)
	b.Queue("INSERT INTO recovery_codes (user_id, code_hash) SELECT $1, unnest($2::bytea[])", userID, hashes)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("save recovery codes: %w", err)
	}
	return nil
}

// UseRecoveryCode removes a recovery code; it reports whether there was one.
func (s *Store) UseRecoveryCode(ctx context.Context, tx *pg.Tx, userID string, hash []byte) (bool, error) {
	tag, err := tx.Exec(ctx, "DELETE FROM recovery_codes WHERE user_id = $1 AND code_hash = $2", userID, hash)
	if err != nil {
		return false, fmt.Errorf("use recovery code: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}
