package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/turumba/turumba/kit/jobs"
)

// How long things are kept and prepared, in days.
const (
	// AheadDays is for how many days after today partitions are made. A server
	// without upkeep for longer refuses new events, and with them the
	// transactions that append them.
	AheadDays = 14
	// KeepDays is how long published events are kept.
	KeepDays = 7
	// InboxDays is how long the inbox remembers an event.
	InboxDays = 8
)

// purgeBatch bounds the rows that one statement deletes.
const purgeBatch = 5000

// Upkept says what Upkeep did.
type Upkept struct {
	// Created and Dropped count partitions, that is days.
	Created, Dropped int
	// Held counts days that are old enough to go and were left: something in them
	// is unpublished, or the table was in use.
	Held int
	// ReadyUntil is the last UTC day with a partition.
	ReadyUntil time.Time
	// Purged counts inbox rows deleted.
	Purged int64
}

// Executor runs statements: a pool, a connection or a transaction.
type Executor interface {
	// Exec runs a statement.
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	// QueryRow runs a query of one row.
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Upkeep makes partitions for the days ahead, drops days that are over and
// published, and forgets old inbox rows. Call it at every start after the
// migrations, before the first Append, and then every hour; more often and from
// several processes does no harm. The role must be turumba_worker or the owner.
func Upkeep(ctx context.Context, db Executor) (Upkept, error) {
	var u Upkept
	err := db.QueryRow(ctx, "SELECT created, dropped, held, ready_until FROM outbox_upkeep($1, $2)", AheadDays, KeepDays).
		Scan(&u.Created, &u.Dropped, &u.Held, &u.ReadyUntil)
	if err != nil {
		return u, fmt.Errorf("keep up the outbox partitions: %w", err)
	}
	for {
		tag, err := db.Exec(ctx, `
			DELETE FROM inbox WHERE (event_id, consumer) IN (
				SELECT event_id, consumer FROM inbox
				WHERE received_at < now() - make_interval(days => $1) ORDER BY received_at LIMIT $2)`, InboxDays, purgeBatch)
		if err != nil {
			return u, fmt.Errorf("purge the inbox: %w", err)
		}
		jobs.Progress(ctx)
		u.Purged += tag.RowsAffected()
		if tag.RowsAffected() < purgeBatch {
			return u, nil
		}
	}
}
