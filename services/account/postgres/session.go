package postgres

import (
	"context"
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

// RevokeSessions ends every session of a user but keep. Without one to keep, it ends
// those of every identity provider.
func (s *Store) RevokeSessions(ctx context.Context, tx *pg.Tx, userID, keep string) error {
	_, err := tx.Exec(ctx, `
		UPDATE refresh_tokens SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL AND family_id::text <> $3`, userID, tx.Now, keep)
	if err != nil {
		return fmt.Errorf("revoke sessions: %w", err)
	}
	if keep != "" {
		return nil
	}
	// Tokens tell the second in which their session began.
	if _, err := tx.Exec(ctx, "UPDATE users SET sessions_since = date_trunc('second', $2::timestamptz) WHERE id = $1", userID, tx.Now); err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	return nil
}

// EndSession ends a session that another identity provider began.
func (s *Store) EndSession(ctx context.Context, tx *pg.Tx, userID, sessionID string) error {
	_, err := tx.Exec(ctx, "INSERT INTO ended_sessions (user_id, session_id, ended_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", userID, sessionID, tx.Now)
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// Access tokens live shorter than this: ours, and those of other identity providers.
// Sessions that ended earlier need not be told any more.
const (
	tokenLife      = 20 * time.Minute
	otherTokenLife = 25 * time.Hour // Cognito allows a day
)

// endedSessions are the sessions of a user whose access tokens may still be good.
func (s *Store) endedSessions(ctx context.Context, userID string) ([]string, error) {
	now := s.db.Now()
	rows, err := s.db.Query(ctx, `
		SELECT family_id::text FROM refresh_tokens WHERE user_id = $1 AND revoked_at > $2
		UNION SELECT session_id FROM ended_sessions WHERE user_id = $1 AND ended_at > $3`,
		userID, now.Add(-tokenLife), now.Add(-otherTokenLife))
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
	err = s.db.QueryRow(ctx, "SELECT user_id FROM login_challenges WHERE session_hash = $1 AND expires_at > $2", hash, now).Scan(&userID)
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
