package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	eventv1 "github.com/turumba/turumba/gen/turumba/event/v1"
	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/pg"
)

// Inbox notes in tx that consumer has had its effect from the event. fresh is
// false if it was noted before; then the effect must be left out. A rival
// transaction with the same event waits here for the end of this one. Rows are
// kept InboxDays; a delivery later than that counts as fresh.
func Inbox(ctx context.Context, tx pgx.Tx, consumer, eventID string) (fresh bool, err error) {
	tag, err := tx.Exec(ctx, "INSERT INTO inbox (event_id, consumer) VALUES ($1, $2) ON CONFLICT DO NOTHING", eventID, consumer)
	if err != nil {
		return false, fmt.Errorf("note event %s in the inbox: %w", eventID, err)
	}
	return tag.RowsAffected() == 1, nil
}

// Effect is what a consumer does with an event inside its transaction: at most
// one second, no network, only marking work that is claimed from the database.
type Effect func(ctx context.Context, tx pgx.Tx, ev *eventv1.Event) error

// Once returns a handler that decodes the event and, in one transaction, notes
// it in the inbox and runs the effect if it is fresh.
func Once(db *pg.DB, consumer string, effect Effect) bus.Handler {
	return func(ctx context.Context, m bus.Message) error {
		ev, err := Decode(m)
		if err != nil {
			return err
		}
		return db.InTx(ctx, nil, func(tx *pg.Tx) error {
			fresh, err := Inbox(ctx, tx, consumer, ev.GetEventId())
			if err != nil || !fresh {
				return err
			}
			return effect(ctx, tx, ev)
		})
	}
}
