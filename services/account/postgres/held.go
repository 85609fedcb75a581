package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
)

// Held is a user whose row the transaction has locked. Everything that gives, changes or
// ends what a user logs in by is a method of it, so that none of it can happen between
// another's look and deed (ADR 0044). The lock lets others refer to the user meanwhile.
type Held struct {
	*Login
	s  *Store
	tx *pg.Tx
}

// ErrStale is a change, or the end of a login, that began on credentials which no longer
// hold: the epoch was raised meanwhile, or the user disabled.
var ErrStale = errors.New("the credentials changed meanwhile")

// Hold locks a user until the transaction ends, if the credentials are those that were
// checked; else ErrStale.
func (s *Store) Hold(ctx context.Context, tx *pg.Tx, userID string, checked int64) (*Held, error) {
	h, err := s.HoldAny(ctx, tx, userID)
	if err != nil {
		return nil, err
	}
	if h.Epoch != checked || !h.IsActive {
		return nil, ErrStale
	}
	return h, nil
}

// HoldIn locks the user of a session that is live; else ErrStale.
func (s *Store) HoldIn(ctx context.Context, tx *pg.Tx, userID, sessionID string) (*Held, error) {
	h, err := s.HoldAny(ctx, tx, userID)
	if err != nil {
		return nil, err
	}
	x, err := h.Session(ctx, sessionID)
	if err != nil {
		return nil, err
	}
	if !h.Live(x) {
		return nil, ErrStale
	}
	return h, nil
}

// HoldAny locks a user in whatever state, to end something.
func (s *Store) HoldAny(ctx context.Context, tx *pg.Tx, userID string) (*Held, error) {
	// The second statement sees what the holder before us did to other tables; the first
	// one, which may have waited for it, would not.
	if _, err := tx.Exec(ctx, "SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE", userID); err != nil {
		return nil, fmt.Errorf("lock user: %w", err)
	}
	rows, err := tx.Query(ctx, "SELECT "+loginColumns+" FROM users WHERE id = $1", userID)
	if err != nil {
		return nil, fmt.Errorf("read login: %w", err)
	}
	l, err := pg.One[Login](errUser)(rows)
	if err != nil {
		return nil, err
	}
	return &Held{Login: l, s: s, tx: tx}, nil
}

// HoldAddress is HoldAny by the address of the user.
func (s *Store) HoldAddress(ctx context.Context, tx *pg.Tx, email string) (*Held, error) {
	var id string
	if err := tx.QueryRow(ctx, "SELECT id::text FROM users WHERE email = $1", email).Scan(&id); err != nil {
		return nil, pg.NoRows(err, errUser)
	}
	return s.HoldAny(ctx, tx, id)
}

// SetPassword stores a hash and raises the epoch; the session keep goes on, if it is live.
func (h *Held) SetPassword(ctx context.Context, hash, keep string) error {
	if _, err := h.tx.Exec(ctx, "UPDATE users SET password_hash = $2, updated_at = $3 WHERE id = $1", h.UserID, hash, h.tx.Now); err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	return h.Next(ctx, keep)
}

// Rehash stores the same password with other parameters, in place of the hash that it
// was checked against and of no other.
func (h *Held) Rehash(ctx context.Context, hash, checked string) error {
	if _, err := h.tx.Exec(ctx, "UPDATE users SET password_hash = $2 WHERE id = $1 AND password_hash = $3", h.UserID, hash, checked); err != nil {
		return fmt.Errorf("rehash the password: %w", err)
	}
	return nil
}

// Totp is the second factor of the user; nil when there is none.
func (h *Held) Totp(ctx context.Context) (*Totp, error) {
	rows, err := h.tx.Query(ctx, "SELECT secret, enabled_at, last_step FROM user_totp WHERE user_id = $1", h.UserID)
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
func (h *Held) SaveTotp(ctx context.Context, sealed []byte) error {
	_, err := h.tx.Exec(ctx, `
		INSERT INTO user_totp (user_id, secret, created_at) VALUES ($1, $2, $3)
		ON CONFLICT (user_id) DO UPDATE SET secret = excluded.secret, last_step = 0, created_at = excluded.created_at
		WHERE user_totp.enabled_at IS NULL`, h.UserID, sealed, h.tx.Now)
	if err != nil {
		return fmt.Errorf("save second factor: %w", err)
	}
	return nil
}

// EnableTotp turns the second factor on and raises the epoch; the session keep goes on.
func (h *Held) EnableTotp(ctx context.Context, keep string) error {
	if _, err := h.tx.Exec(ctx, "UPDATE user_totp SET enabled_at = $2 WHERE user_id = $1", h.UserID, h.tx.Now); err != nil {
		return fmt.Errorf("enable second factor: %w", err)
	}
	return h.Next(ctx, keep)
}

// UseTotpStep notes the newest step whose code was used.
func (h *Held) UseTotpStep(ctx context.Context, step int64) error {
	if _, err := h.tx.Exec(ctx, "UPDATE user_totp SET last_step = $2 WHERE user_id = $1", h.UserID, step); err != nil {
		return fmt.Errorf("use second factor: %w", err)
	}
	return nil
}

// DeleteTotp turns the second factor off, with its recovery codes, and raises the epoch;
// the session keep goes on, as one without it.
func (h *Held) DeleteTotp(ctx context.Context, keep string) error {
	b := &pgx.Batch{}
	b.Queue("DELETE FROM user_totp WHERE user_id = $1", h.UserID)
	b.Queue("UPDATE sessions SET factor = false WHERE user_id = $1 AND factor", h.UserID)
	if err := h.tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("delete second factor: %w", err)
	}
	return h.Next(ctx, keep)
}

// SaveRecoveryCodes replaces the hashes of the user's recovery codes.
func (h *Held) SaveRecoveryCodes(ctx context.Context, hashes [][]byte) error {
	b := &pgx.Batch{}
	b.Queue("DELETE FROM recovery_codes WHERE user_id = $1", h.UserID)
	b.Queue("INSERT INTO recovery_codes (user_id, code_hash) SELECT $1, unnest($2::bytea[])", h.UserID, hashes)
	if err := h.tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("save recovery codes: %w", err)
	}
	return nil
}

// UseRecoveryCode removes a recovery code; it reports whether there was one.
func (h *Held) UseRecoveryCode(ctx context.Context, hash []byte) (bool, error) {
	tag, err := h.tx.Exec(ctx, "DELETE FROM recovery_codes WHERE user_id = $1 AND code_hash = $2", h.UserID, hash)
	if err != nil {
		return false, fmt.Errorf("use recovery code: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}
