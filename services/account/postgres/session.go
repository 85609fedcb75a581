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
	UserID    string
	SessionID string `db:"family_id"`
	ExpiresAt time.Time
	UsedAt    *time.Time
}

// ErrNoToken is a refresh token that was never given.
var ErrNoToken = apierr.NotFound("refresh token")

// TokenOwner is the user of a refresh token and its session; nothing is locked.
func (s *Store) TokenOwner(ctx context.Context, tx *pg.Tx, hash []byte) (userID, sessionID string, err error) {
	err = tx.QueryRow(ctx, "SELECT user_id::text, family_id FROM refresh_tokens WHERE token_hash = $1", hash).Scan(&userID, &sessionID)
	return userID, sessionID, pg.NoRows(err, ErrNoToken)
}

// Session is a login: a family of refresh tokens, or one at another identity provider.
type Session struct {
	ID string
	// Epoch is the user's credential epoch that the session stands on.
	Epoch int64 `db:"credential_epoch"`
	// Own says that it is of our own provider.
	Own bool
	// Factor says that its login took the second factor.
	Factor    bool
	BeganAt   time.Time
	ExpiresAt time.Time
	RevokedAt *time.Time
}

const sessionColumns = "id, credential_epoch, own, factor, began_at, expires_at, revoked_at"

var errSession = apierr.NotFound("session")

// Session locks and returns a session of the user; nil when there is none.
func (h *Held) Session(ctx context.Context, id string) (*Session, error) {
	rows, err := h.tx.Query(ctx, "SELECT "+sessionColumns+" FROM sessions WHERE user_id = $1 AND id = $2 FOR UPDATE", h.UserID, id)
	if err != nil {
		return nil, fmt.Errorf("read session: %w", err)
	}
	x, err := pg.One[Session](errSession)(rows)
	if errors.Is(err, errSession) {
		return nil, nil
	}
	return x, err
}

// Live reports whether what the session gives counts: it has neither ended nor run out,
// and stands on the user's epoch.
func (h *Held) Live(x *Session) bool {
	return x != nil && h.IsActive && x.RevokedAt == nil && x.Epoch == h.Epoch && h.tx.Now.Before(x.ExpiresAt)
}

// Begin starts a session on the user's epoch.
func (h *Held) Begin(ctx context.Context, x Session) error {
	_, err := h.tx.Exec(ctx, `
		INSERT INTO sessions (user_id, id, credential_epoch, own, factor, began_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		h.UserID, x.ID, h.Epoch, x.Own, x.Factor, x.BeganAt, x.ExpiresAt)
	if err != nil {
		return fmt.Errorf("begin session: %w", err)
	}
	return nil
}

// EndSession ends a session; one that has ended, or is not there, stays so.
func (h *Held) EndSession(ctx context.Context, id string) error {
	_, err := h.tx.Exec(ctx, "UPDATE sessions SET revoked_at = $3 WHERE user_id = $1 AND id = $2 AND revoked_at IS NULL", h.UserID, id, h.tx.Now)
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// EndOther ends a session of another identity provider, of which nothing may be known
// here yet.
func (h *Held) EndOther(ctx context.Context, x Session) error {
	_, err := h.tx.Exec(ctx, `
		INSERT INTO sessions AS s (user_id, id, credential_epoch, own, began_at, expires_at, revoked_at) VALUES ($1, $2, $3, false, $4, $5, $6)
		ON CONFLICT (user_id, id) DO UPDATE SET revoked_at = coalesce(s.revoked_at, excluded.revoked_at)`,
		h.UserID, x.ID, h.Epoch, x.BeganAt, x.ExpiresAt, h.tx.Now)
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// Admits reports whether a session of another identity provider that is not known here
// may begin: its login was in a later second than the sessions last ended.
func (h *Held) Admits(loggedIn time.Time) bool {
	return h.IsActive && (h.Since == nil || loggedIn.After(*h.Since))
}

// SaveRefreshToken stores the hash of a new token of a session.
func (h *Held) SaveRefreshToken(ctx context.Context, hash []byte, sessionID string, expires time.Time) error {
	_, err := h.tx.Exec(ctx, `
		INSERT INTO refresh_tokens (token_hash, family_id, user_id, expires_at, created_at) VALUES ($1, $2, $3, $4, $5)`,
		hash, sessionID, h.UserID, expires, h.tx.Now)
	if err != nil {
		return fmt.Errorf("save refresh token: %w", err)
	}
	return nil
}

// RefreshToken locks and returns a token of the user by its hash.
func (h *Held) RefreshToken(ctx context.Context, hash []byte) (*RefreshToken, error) {
	rows, err := h.tx.Query(ctx, `
		SELECT user_id, family_id, expires_at, used_at FROM refresh_tokens WHERE token_hash = $1 AND user_id = $2 FOR UPDATE`, hash, h.UserID)
	if err != nil {
		return nil, fmt.Errorf("read refresh token: %w", err)
	}
	return pg.One[RefreshToken](ErrNoToken)(rows)
}

// UseRefreshToken marks a token used.
func (h *Held) UseRefreshToken(ctx context.Context, hash []byte) error {
	_, err := h.tx.Exec(ctx, "UPDATE refresh_tokens SET used_at = $2 WHERE token_hash = $1", hash, h.tx.Now)
	if err != nil {
		return fmt.Errorf("use refresh token: %w", err)
	}
	return nil
}

// Access tokens live shorter than this: ours, and those of other identity providers.
// Sessions that ended or moved earlier need not be told any more.
const (
	tokenLife      = 20 * time.Minute
	otherTokenLife = 25 * time.Hour // Cognito allows a day
	mostSessions   = 1000           // that are told; those of an older epoch are refused untold
)

// toldSessions are the sessions of a user that access tokens must be held to: those that
// ended, and those that count although their tokens are older than the epoch or the time.
// Of other providers the latter are also the logins of the very second of that time.
func (s *Store) toldSessions(ctx context.Context, userID string) (ended, kept []string, err error) {
	now := s.db.Now()
	const recent = "> CASE WHEN x.own THEN $2::timestamptz ELSE $3::timestamptz END"
	err = s.db.QueryRow(ctx, `
		SELECT ARRAY (SELECT x.id FROM sessions x WHERE x.user_id = u.id AND x.revoked_at `+recent+` ORDER BY x.revoked_at DESC LIMIT $4),
			ARRAY (SELECT x.id FROM sessions x WHERE x.user_id = u.id AND x.revoked_at IS NULL AND x.credential_epoch = u.credential_epoch
				AND (x.moved_at `+recent+` OR NOT x.own AND x.began_at < u.sessions_since + interval '1 second' AND x.began_at > $3)
				ORDER BY x.began_at DESC LIMIT $4)
		FROM users u WHERE u.id = $1`, userID, now.Add(-tokenLife), now.Add(-otherTokenLife), mostSessions).Scan(&ended, &kept)
	if err != nil {
		return nil, nil, fmt.Errorf("read sessions: %w", err)
	}
	return ended, kept, nil
}

// Challenge is a login that waits for the second factor.
type Challenge struct {
	UserID string
	Epoch  int64 `db:"credential_epoch"`
}

// SaveChallenge stores the hash of a session that waits for the second factor.
func (h *Held) SaveChallenge(ctx context.Context, hash []byte, expires time.Time) error {
	_, err := h.tx.Exec(ctx, "INSERT INTO login_challenges (session_hash, user_id, credential_epoch, expires_at) VALUES ($1, $2, $3, $4)", hash, h.UserID, h.Epoch, expires)
	if err != nil {
		return fmt.Errorf("save challenge: %w", err)
	}
	return nil
}

// Challenge finds a login that waits for the second factor.
func (s *Store) Challenge(ctx context.Context, hash []byte, now time.Time) (*Challenge, error) {
	rows, err := s.db.Query(ctx, "SELECT user_id, credential_epoch FROM login_challenges WHERE session_hash = $1 AND expires_at > $2", hash, now)
	if err != nil {
		return nil, fmt.Errorf("read challenge: %w", err)
	}
	return pg.One[Challenge](errSession)(rows)
}

// EndChallenge removes a session that waited; it reports whether it was still there.
func (h *Held) EndChallenge(ctx context.Context, hash []byte) (bool, error) {
	tag, err := h.tx.Exec(ctx, "DELETE FROM login_challenges WHERE session_hash = $1 AND user_id = $2", hash, h.UserID)
	if err != nil {
		return false, fmt.Errorf("end challenge: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// Next raises the user's credential epoch: whatever was given on an older one works no
// more, but for the session keep, if it is live; it moves to the new epoch. Codes that
// were mailed and logins that wait for the second factor end too.
func (h *Held) Next(ctx context.Context, keep string) error {
	b := &pgx.Batch{}
	// Not the time of the transaction: others may have logged in while it waited for the lock.
	b.Queue("UPDATE users SET credential_epoch = $2, sessions_since = $3 WHERE id = $1", h.UserID, h.Epoch+1, h.s.db.Now())
	b.Queue("DELETE FROM password_resets WHERE user_id = $1", h.UserID)
	b.Queue("DELETE FROM login_challenges WHERE user_id = $1", h.UserID)
	b.Queue(`UPDATE sessions SET credential_epoch = $3, moved_at = $4
		WHERE user_id = $1 AND id = $2 AND credential_epoch = $3 - 1 AND revoked_at IS NULL`, h.UserID, keep, h.Epoch+1, h.tx.Now)
	b.Queue("UPDATE sessions SET revoked_at = $3 WHERE user_id = $1 AND credential_epoch < $2 AND revoked_at IS NULL", h.UserID, h.Epoch+1, h.tx.Now)
	if err := h.tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("raise the credential epoch: %w", err)
	}
	h.Epoch++
	return nil
}
