package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
)

// Mail is a queued mail; what it says is sealed.
type Mail struct {
	ID       string
	Sealed   []byte
	Attempts int32 // the claim's own among them
}

// QueueMail stores a mail that the commit makes ready.
func (s *Store) QueueMail(ctx context.Context, tx *pg.Tx, id, purpose string, sealed []byte, expires time.Time) error {
	_, err := tx.Exec(ctx, "INSERT INTO outgoing_mails (id, purpose, sealed, not_before, expires_at) VALUES ($1, $2, $3, $4, $5)", id, purpose, sealed, tx.Now, expires)
	if err != nil {
		return fmt.Errorf("queue mail: %w", err)
	}
	tx.Wake(mailQueued{})
	return nil
}

// mailQueued is what QueueMail wakes.
type mailQueued struct{}

// OnMail calls wake after each commit that queued a mail. It must not block.
func (s *Store) OnMail(wake func()) { s.db.OnWake(mailQueued{}, wake) }

// MailsWait reports whether at least so many mails of a purpose wait to be sent.
func (s *Store) MailsWait(ctx context.Context, purpose string, most int) (bool, error) {
	var n int
	err := s.db.QueryRow(ctx, "SELECT count(*) FROM (SELECT FROM outgoing_mails WHERE purpose = $1 AND expires_at > $2 LIMIT $3) AS waiting", purpose, s.db.Now(), most).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("count mails: %w", err)
	}
	return n >= most, nil
}

// ClaimMail takes the mail of the purpose that is due longest, of any other if there is
// none, for as long as the lease; nil when none is due.
func (s *Store) ClaimMail(ctx context.Context, purpose string, lease time.Duration) (*Mail, error) {
	now := s.db.Now()
	rows, err := s.db.Query(ctx, `
		UPDATE outgoing_mails SET attempts = attempts + 1, not_before = $2
		WHERE id = (SELECT id FROM outgoing_mails WHERE not_before <= $1 AND expires_at > $1
			ORDER BY purpose <> $3, not_before LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING id, sealed, attempts`, now, now.Add(lease), purpose)
	if err != nil {
		return nil, fmt.Errorf("claim mail: %w", err)
	}
	m, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[Mail])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return m, err
}

// ReleaseMail gives back a mail that was not sent. It is due again after delay, doubled
// with each attempt and at most an hour; attempts is what fences a newer claim.
func (s *Store) ReleaseMail(ctx context.Context, m *Mail, delay time.Duration) error {
	_, err := s.db.Exec(ctx, `
		UPDATE outgoing_mails SET not_before = $3::timestamptz + least($4::interval * power(2, least(attempts - 1, 20)), interval '1 hour')
		WHERE id = $1 AND attempts = $2`, m.ID, m.Attempts, s.db.Now(), delay)
	if err != nil {
		return fmt.Errorf("release mail: %w", err)
	}
	return nil
}

// DeleteMail removes a mail that was sent.
func (s *Store) DeleteMail(ctx context.Context, id string) error {
	if _, err := s.db.Exec(ctx, "DELETE FROM outgoing_mails WHERE id = $1", id); err != nil {
		return fmt.Errorf("delete mail: %w", err)
	}
	return nil
}
