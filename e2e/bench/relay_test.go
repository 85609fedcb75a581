package bench_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/rabbitmq"
	"github.com/turumba/turumba/kit/bus/rabbitmq/rabbittest"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/telemetry"
)

// relayEvents is how many events one round carries, relayBatch how many are
// confirmed at a time by both.
const (
	relayEvents = 50_000
	relayBatch  = 100
)

const benchKey = "group_message.queued"

// BenchmarkRelay empties an outbox into a quorum queue beside publishing the
// same number of messages with the client library and batched confirms only.
func BenchmarkRelay(b *testing.B) {
	url := rabbittest.URL(b)
	s := server(b)
	require.NoError(b, pg.Migrate(b.Context(), s.URL("postgres"), outbox.Migrations()))
	p := pool(b, s.URL("postgres"))
	db, err := pg.Open(b.Context(), pg.Config{URL: s.URL("postgres")})
	require.NoError(b, err)
	b.Cleanup(db.Close)
	topology := bus.Topology{
		Exchange: "bench", DeadLetterExchange: "bench.dlx", DeadLetterQueue: "bench.dlq",
		Queues: []bus.Queue{{Name: "bench", Bindings: []string{"#"}, Quorum: true}},
	}
	broker, err := rabbitmq.Dial(b.Context(), url, topology, rabbitmq.Options{Logger: telemetry.Discard()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, broker.Close()) })
	require.NoError(b, broker.Ready(b.Context()))
	compare(b, "events", func() { fill(b, p) }, func() int {
		drain(b, db, broker)
		return relayEvents
	}, func() int {
		publish(b, url, topology.Exchange)
		return relayEvents
	})
}

// fill leaves a backlog of relayEvents in the outbox, if there is none.
func fill(b *testing.B, p *pgxpool.Pool) {
	b.Helper()
	_, err := p.Exec(b.Context(), `
		INSERT INTO outbox_events (id, event_type, aggregate_type, aggregate_id, payload)
		SELECT gen_random_uuid(), $2, 'group_message', 'x', jsonb_build_object('event_id', gen_random_uuid(), 'padding', repeat('x', 290))
		FROM generate_series(1, $1 - (SELECT count(*) FROM outbox_events WHERE published_at IS NULL))`, relayEvents, benchKey)
	require.NoError(b, err)
}

// confirmed counts what the broker has confirmed.
type confirmed struct {
	bus.Publisher
	mu   sync.Mutex
	want int
	done chan struct{}
}

// Publish implements bus.Publisher.
func (c *confirmed) Publish(ctx context.Context, m []bus.Message) []error {
	errs := c.Publisher.Publish(ctx, m)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, err := range errs {
		if err == nil {
			if c.want--; c.want == 0 {
				close(c.done)
			}
		}
	}
	return errs
}

func drain(b *testing.B, db *pg.DB, broker bus.Publisher) {
	b.Helper()
	c := &confirmed{Publisher: broker, want: relayEvents, done: make(chan struct{})}
	r := &outbox.Relay{DB: db, Bus: c, NeedsConsumer: func(string) bool { return true }, Clock: clock.System(), Logger: telemetry.Discard(), BatchSize: relayBatch, NoListen: true}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-c.done
	stop()
	require.NoError(b, <-done) // the marks too
}

func publish(b *testing.B, url, exchange string) {
	b.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(b, err)
	defer func() { require.NoError(b, conn.Close()) }()
	ch, err := conn.Channel()
	require.NoError(b, err)
	require.NoError(b, ch.Confirm(false))
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, relayBatch))
	body := make([]byte, 350)
	for sent := 0; sent < relayEvents; sent += relayBatch {
		for i := range relayBatch {
			require.NoError(b, ch.PublishWithContext(b.Context(), exchange, benchKey, true, false, amqp.Publishing{
				MessageId: fmt.Sprint(sent + i), Body: body, DeliveryMode: amqp.Persistent, ContentType: "application/json",
			}))
		}
		for range relayBatch {
			require.True(b, (<-confirms).Ack)
		}
	}
}
