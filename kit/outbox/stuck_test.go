package outbox_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	eventv1 "github.com/turumba/turumba/gen/turumba/event/v1"
	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/bustest"
	"github.com/turumba/turumba/kit/bus/rabbitmq"
	"github.com/turumba/turumba/kit/bus/rabbitmq/rabbittest"
	"github.com/turumba/turumba/kit/outbox"
)

func TestStuckEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.appendAll(t, event("a.b"), event("a.c"))
	_, err := b.admin.Exec(t.Context(), "UPDATE outbox_events SET attempts = 10, last_error = 'bus: message unroutable', due_at = now() + interval '1 hour' WHERE id = $1", ids[1])
	require.NoError(t, err)
	stuck, err := outbox.StuckEvents(t.Context(), b.worker, 10)
	require.NoError(t, err)
	require.Len(t, stuck, 1)
	require.Equal(t, []any{ids[1], "a.c", 10, "bus: message unroutable"}, []any{stuck[0].EventID, stuck[0].EventType, stuck[0].Attempts, stuck[0].LastError})
	require.Contains(t, string(stuck[0].Payload), ids[1])
	done, err := outbox.TryNow(t.Context(), b.worker, stuck[0])
	require.NoError(t, err)
	require.True(t, done)
	var due bool
	require.NoError(t, b.admin.QueryRow(t.Context(), "SELECT due_at <= now() FROM outbox_events WHERE id = $1", ids[1]).Scan(&due))
	require.True(t, due)
	_, err = b.admin.Exec(t.Context(), "UPDATE outbox_events SET published_at = now()")
	require.NoError(t, err)
	done, err = outbox.TryNow(t.Context(), b.worker, stuck[0])
	require.NoError(t, err)
	require.False(t, done, "it was published meanwhile")
}

// TestRedriveHasOneEffect gives a dead letter back three times, as an operator does
// whose connection broke: the effect happens once.
func TestRedriveHasOneEffect(t *testing.T) {
	t.Parallel()
	b, url := setup(t), rabbittest.URL(t)
	topology := bustest.Topology("a.*")
	broker, err := rabbitmq.Dial(t.Context(), url, topology, rabbitmq.Options{Policy: bus.Policy{Attempts: 2, RetryDelay: time.Millisecond}, Logger: quiet()})
	require.NoError(t, err)
	require.NoError(t, broker.Ready(t.Context()))
	var mended atomic.Bool
	var effects, deliveries atomic.Int64
	effect := outbox.Once(b.workerDB, "test", func(context.Context, pgx.Tx, *eventv1.Event) error {
		if !mended.Load() {
			return errors.New("not yet")
		}
		effects.Add(1)
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- broker.Consume(ctx, topology.Queues[0].Name, 10, func(ctx context.Context, m bus.Message) error {
			defer deliveries.Add(1)
			return effect(ctx, m)
		})
	}()
	id := b.appendAll(t, event("a.b"))[0]
	var payload string
	require.NoError(t, b.admin.QueryRow(t.Context(), "SELECT payload::text FROM outbox_events WHERE id = $1", id).Scan(&payload))
	m := bus.Message{ID: id, RoutingKey: "a.b", Body: []byte(payload), Mandatory: true}
	require.NoError(t, broker.Publish(t.Context(), []bus.Message{m})[0])

	dead, err := rabbitmq.OpenDeadLetters(t.Context(), url, topology, rabbitmq.Options{})
	require.NoError(t, err)
	redriven := 0
	redrive := func(l rabbitmq.DeadLetter) bool {
		require.Equal(t, id, l.ID)
		mended.Store(true)
		redriven++
		return true
	}
	require.Eventually(t, func() bool {
		require.NoError(t, dead.Review(t.Context(), redrive, func(_ rabbitmq.DeadLetter, err error) { require.NoError(t, err) }))
		return redriven == 1
	}, patience, 20*time.Millisecond)
	// What a crash before the acknowledgement leaves.
	require.Equal(t, []error{nil, nil}, broker.Publish(t.Context(), []bus.Message{m, m}))
	require.Eventually(t, func() bool { return deliveries.Load() == 2+3 }, patience, 10*time.Millisecond)
	require.EqualValues(t, 1, effects.Load())
	cancel()
	require.NoError(t, <-done)
	dead.Close(t.Context())
	require.NoError(t, broker.Close())
}
