package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
)

// RefreshToken is one stored refresh token.
type RefreshToken struct {
	FamilyID  string
	UserID    string
	Subject   string
	Email     string
	IsActive  bool
	ExpiresAt time.Time
	UsedAt    *time.Time
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
		SELECT t.family_id, t.user_id, u.idp_subject AS subject, u.email, u.is_active, t.expires_at,
			t.used_at, t.revoked_at IS NOT NULL AS revoked
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

// RevokeFamily ends a session: every token of the family.
func (s *Store) RevokeFamily(ctx context.Context, tx *pg.Tx, familyID string) error {
	_, err := tx.Exec(ctx, "UPDATE refresh_tokens SET revoked_at = $2 WHERE family_id = $1 AND revoked_at IS NULL", familyID, tx.Now)
	if err != nil {
		return fmt.Errorf("revoke refresh tokens: %w", err)
	}
	return nil
}

// RevokeSessions ends every session of a user but keep, which may be empty.
func (s *Store) RevokeSessions(ctx context.Context, tx *pg.Tx, userID, keep string) error {
	_, err := tx.Exec(ctx, `
		UPDATE refresh_tokens SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL AND family_id::text <> $3`, userID, tx.Now, keep)
	if err != nil {
		return fmt.Errorf("revoke sessions: %w", err)
	}
	return nil
}

// tokenLife is longer than any access token lives: sessions that ended earlier
// need not be told any more.
const tokenLife = 20 * time.Minute

// endedSessions are the sessions of a user whose access tokens may still be good.
func (s *Store) endedSessions(ctx context.Context, userID string) ([]string, error) {
	rows, err := s.db.Pool().Query(ctx, "SELECT DISTINCT family_id::text FROM refresh_tokens WHERE user_id = $1 AND revoked_at > $2",
		userID, s.db.Now().Add(-tokenLife))
	if err != nil {
		return nil, fmt.Errorf("read ended sessions: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// SaveChallenge stores the hash of a session that waits for the second factor.
func (s *Store) SaveChallenge(ctx context.Context, tx *pg.Tx, hash []byte, userID string, expires time.Time) error {
	_, err := tx.Exec(ctx, "INSERT INTO login_challenges (session_hash, user_id, expires_at) VALUES ($1, $2, $3)", hash, userID, expires)
	if err != nil {
		return fmt.Errorf("save challenge: %w", err)
	}
	return nil
}

// Challenge is the user of a session that waits for the second factor.
func (s *Store) Challenge(ctx context.Context, hash []byte, now time.Time) (userID string, err error) {
	err = s.db.Pool().QueryRow(ctx, "SELECT user_id FROM login_challenges WHERE session_hash = $1 AND expires_at > $2", hash, now).Scan(&userID)
	return userID, pg.NoRows(err, apierr.NotFound("session"))
}

// EndChallenge removes a session; it reports whether it was still there.
func (s *Store) EndChallenge(ctx context.Context, tx *pg.Tx, hash []byte) (bool, error) {
	tag, err := tx.Exec(ctx, "DELETE FROM login_challenges WHERE session_hash = $1", hash)
	if err != nil {
		return false, fmt.Errorf("end challenge: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// Limit is how often something may happen in a window.
type Limit struct {
	Key    string
	Most   int
	Window time.Duration
}

// TakeAttempt counts one attempt for each limit. When one is used up it returns
// how long to wait; the attempt counts all the same.
func (s *Store) TakeAttempt(ctx context.Context, limits []Limit) (wait time.Duration, err error) {
	err = s.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		for _, l := range limits { // the same order everywhere, so that rivals cannot lock each other out
			var attempts int
			var end time.Time
			err := tx.QueryRow(ctx, `
				INSERT INTO attempt_limits AS a (key, attempts, window_end) VALUES ($1, 1, $3)
				ON CONFLICT (key) DO UPDATE SET
					attempts = CASE WHEN a.window_end > $2 THEN a.attempts + 1 ELSE 1 END,
					window_end = CASE WHEN a.window_end > $2 THEN a.window_end ELSE $3 END
				RETURNING attempts, window_end`, l.Key, tx.Now, tx.Now.Add(l.Window)).Scan(&attempts, &end)
			if err != nil {
				return fmt.Errorf("count an attempt: %w", err)
			}
			if attempts > l.Most {
				wait = max(wait, end.Sub(tx.Now))
			}
		}
		return nil
	})
	return wait, err
}

// RefundAttempt takes back what a good attempt counted.
func (s *Store) RefundAttempt(ctx context.Context, limits []Limit) error {
	keys := make([]string, len(limits))
	for i, l := range limits {
		keys[i] = l.Key
	}
	_, err := s.db.Pool().Exec(ctx, `
		UPDATE attempt_limits SET attempts = attempts - 1
		WHERE key IN (SELECT key FROM attempt_limits WHERE key = ANY ($1) AND attempts > 0 ORDER BY array_position($1, key) FOR UPDATE)`, keys)
	if err != nil {
		return fmt.Errorf("take back an attempt: %w", err)
	}
	return nil
}

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

// Purge removes what has expired.
func (s *Store) Purge(ctx context.Context) error {
	now := s.db.Now()
	b := &pgx.Batch{}
	b.Queue("DELETE FROM refresh_tokens WHERE expires_at < $1", now)
	b.Queue("DELETE FROM pending_registrations WHERE created_at < $1", now.Add(-7*24*time.Hour))
	b.Queue("DELETE FROM attempt_limits WHERE window_end < $1", now)
	b.Queue("DELETE FROM password_resets WHERE expires_at < $1", now)
	b.Queue("DELETE FROM login_challenges WHERE expires_at < $1", now)
	b.Queue("DELETE FROM outgoing_mails WHERE expires_at < $1", now)
	if err := s.db.Pool().SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("purge identities: %w", err)
	}
	if err := s.purgeAudit(ctx); err != nil {
		return err
	}
	_, err := s.db.PurgeIdempotencyKeys(ctx)
	return err
}
