package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// QueueDepth is what waits for dispatch in one lane of a channel type.
type QueueDepth struct {
	ChannelType, Lane string
	// Messages wait in chunks, or for their next attempt (Lane is "retry").
	Messages int64
	// Oldest is how long the oldest chunk has been there, or how late the retry is that
	// should have been made first.
	Oldest time.Duration
}

// depthLimit bounds what a look at the queues reads: a backlog beyond it is told as
// that much.
const depthLimit = 100_000

// LaneRetry stands for messages that wait for their next attempt.
const LaneRetry = "retry"

// QueueDepths looks at the queues of all accounts, within bounds. Lanes in which
// nothing waits are left out.
func (s *Store) QueueDepths(ctx context.Context) ([]QueueDepth, error) {
	rows, err := s.db.Query(ctx, `
		SELECT channel_type, lane, sum(n - calling_upto)::bigint, greatest(extract(epoch FROM now() - min(created_at)), 0)::float8
		FROM (SELECT channel_type, lane, n, calling_upto, created_at FROM dispatch_chunks LIMIT $1) AS waiting GROUP BY 1, 2
		UNION ALL
		SELECT channel_type, $2, count(*), greatest(extract(epoch FROM now() - min(due_at)), 0)::float8
		FROM (SELECT channel_type, due_at FROM message_due LIMIT $1) AS due GROUP BY 1`, depthLimit, LaneRetry)
	if err != nil {
		return nil, fmt.Errorf("look at the queues: %w", err)
	}
	depths, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d QueueDepth, err error) {
		var seconds float64
		err = row.Scan(&d.ChannelType, &d.Lane, &d.Messages, &seconds)
		d.Oldest = time.Duration(seconds * float64(time.Second))
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("look at the queues: %w", err)
	}
	return depths, nil
}
