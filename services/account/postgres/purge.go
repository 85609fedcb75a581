package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	account "github.com/turumba/turumba/services/account"
)

// purgeLimit is how long each step of a purge may take: after a standstill there is much to
// remove at once.
const purgeLimit = time.Minute

// Purge removes what has expired.
func (s *Store) Purge(ctx context.Context) error {
	now := s.db.Now()
	b := &pgx.Batch{}
	b.Queue("DELETE FROM refresh_tokens WHERE expires_at < $1", now)
	b.Queue("DELETE FROM sessions WHERE expires_at < $1", now)
	b.Queue("DELETE FROM pending_registrations WHERE created_at < $1", now.Add(-account.RegistrationLife))
	b.Queue("DELETE FROM attempt_limits WHERE window_end < $1", now)
	b.Queue("DELETE FROM password_resets WHERE expires_at < $1", now)
	b.Queue("DELETE FROM login_challenges WHERE expires_at < $1", now)
	b.Queue("DELETE FROM outgoing_mails WHERE expires_at < $1", now)
	if err := s.db.Within(purgeLimit).SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("purge identities: %w", err)
	}
	if err := s.purgeAudit(ctx); err != nil {
		return err
	}
	if err := s.purgeImports(ctx); err != nil {
		return err
	}
	_, err := s.db.Within(purgeLimit).PurgeIdempotencyKeys(ctx)
	return err
}
