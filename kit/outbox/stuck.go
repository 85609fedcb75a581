package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Querier runs statements: a pg.DB or a transaction.
type Querier interface {
	Executor
	// Query runs a statement that returns rows.
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Stuck is an event that the relay has failed to publish so often that it alarmed.
// The relay goes on trying; it never sets an event aside for good.
type Stuck struct {
	EventID     string
	EventType   string
	AggregateID string
	CreatedAt   time.Time
	// Attempts is how often it was tried, LastError why it failed last.
	Attempts  int
	LastError string
	Payload   []byte
}

// StuckEvents returns the oldest events that keep failing, at most limit.
func StuckEvents(ctx context.Context, q Querier, limit int) ([]Stuck, error) {
	rows, err := q.Query(ctx, `
		SELECT id::text AS event_id, event_type, aggregate_id, created_at, attempts, coalesce(last_error, '') AS last_error, convert_to(payload::text, 'UTF8') AS payload
		FROM outbox_events WHERE published_at IS NULL AND attempts >= $1 AND created_at < now() + interval '1 day' ORDER BY created_at LIMIT $2`, alarmAfter, limit)
	if err != nil {
		return nil, fmt.Errorf("find stuck events: %w", err)
	}
	stuck, err := pgx.CollectRows(rows, pgx.RowToStructByName[Stuck])
	if err != nil {
		return nil, fmt.Errorf("find stuck events: %w", err)
	}
	return stuck, nil
}

// TryNow lets the relay try a stuck event again at once instead of in its turn;
// false if it is not there any more.
func TryNow(ctx context.Context, e Executor, s Stuck) (bool, error) {
	tag, err := e.Exec(ctx, "UPDATE outbox_events SET due_at = now() WHERE id = $1 AND created_at = $2 AND published_at IS NULL", s.EventID, s.CreatedAt)
	if err != nil {
		return false, fmt.Errorf("try event %s again: %w", s.EventID, err)
	}
	return tag.RowsAffected() == 1, nil
}
