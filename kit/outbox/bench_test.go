package outbox_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/bustest"
	"github.com/turumba/turumba/kit/bus/rabbitmq"
	"github.com/turumba/turumba/kit/bus/rabbitmq/rabbittest"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/embedded"
)

// benchTopology is one quorum queue for everything.
func benchTopology() bus.Topology { return bustest.Topology("group_message.*") }

// BenchmarkPublish measures what a relay cannot beat: publishing with batched
// confirms and nothing else, by the client library and by our bus.
func BenchmarkPublish(b *testing.B) {
	url := rabbittest.URL(b)
	for _, size := range []int{100, 500} {
		b.Run(fmt.Sprintf("library-%d", size), func(b *testing.B) { benchLibrary(b, url, size) })
		b.Run(fmt.Sprintf("bus-%d", size), func(b *testing.B) { benchBus(b, url, size) })
	}
}

// BenchmarkRelay drains a backlog with a real database (fsync and
// synchronous_commit on) and a real broker.
func BenchmarkRelay(b *testing.B) {
	url := rabbittest.URL(b)
	server, err := embedded.Start(b.Context(), embedded.Options{DataDir: b.TempDir()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, server.Stop(context.WithoutCancel(b.Context()))) })
	require.NoError(b, pg.Migrate(b.Context(), server.URL("postgres"), outbox.Migrations()))
	db, err := pg.Open(b.Context(), pg.Config{URL: server.URL("postgres"), Clock: systemClock()})
	require.NoError(b, err)
	b.Cleanup(db.Close)
	pool, err := pgxpool.New(b.Context(), server.URL("postgres"))
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	var fsync, synchronous string
	require.NoError(b, db.QueryRow(b.Context(), "SELECT current_setting('fsync'), current_setting('synchronous_commit')").Scan(&fsync, &synchronous))
	b.Logf("fsync=%s synchronous_commit=%s", fsync, synchronous)
	for _, size := range []int{100, 500} {
		b.Run(fmt.Sprintf("batch-%d", size), func(b *testing.B) { benchRelay(b, url, db, pool, size) })
	}
}

func benchMessages(size int) []bus.Message {
	batch := make([]bus.Message, size)
	for i := range batch {
		batch[i] = bus.Message{
			ID: fmt.Sprintf("0198c0de-0000-7000-8000-%012d", i), RoutingKey: "group_message.queued", Body: make([]byte, 350), Mandatory: true,
			Headers: map[string]string{bus.HeaderContentType: "application/json", "event_type": "group_message.queued"},
		}
	}
	return batch
}

func dialBench(b *testing.B, url string) *rabbitmq.Bus {
	b.Helper()
	r, err := rabbitmq.Dial(b.Context(), url, benchTopology(), rabbitmq.Options{Logger: quiet()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, r.Close()) })
	require.NoError(b, r.Ready(b.Context()))
	return r
}

func benchBus(b *testing.B, url string, size int) {
	b.Helper()
	r, batch := dialBench(b, url), benchMessages(size)
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += size {
		for _, err := range r.Publish(b.Context(), batch) {
			require.NoError(b, err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func benchLibrary(b *testing.B, url string, size int) {
	b.Helper()
	topology := benchTopology()
	r, err := rabbitmq.Dial(b.Context(), url, topology, rabbitmq.Options{Logger: quiet()})
	require.NoError(b, err)
	require.NoError(b, r.Ready(b.Context()))
	require.NoError(b, r.Close())
	conn, err := amqp.Dial(url)
	require.NoError(b, err)
	defer func() { require.NoError(b, conn.Close()) }()
	ch, err := conn.Channel()
	require.NoError(b, err)
	require.NoError(b, ch.Confirm(false))
	confirms, batch := ch.NotifyPublish(make(chan amqp.Confirmation, size)), benchMessages(size)
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += size {
		for _, m := range batch {
			require.NoError(b, ch.PublishWithContext(b.Context(), topology.Exchange, m.RoutingKey, true, false, amqp.Publishing{
				MessageId: m.ID, Body: m.Body, DeliveryMode: amqp.Persistent, ContentType: "application/json",
				Headers: amqp.Table{"event_type": m.RoutingKey},
			}))
		}
		for range batch {
			require.True(b, (<-confirms).Ack)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func benchRelay(b *testing.B, url string, db *pg.DB, pool *pgxpool.Pool, size int) {
	b.Helper()
	bundle := &testBundle{admin: pool, worker: pool, workerDB: db}
	_, err := pool.Exec(b.Context(), `
		INSERT INTO outbox_events (id, event_type, aggregate_type, aggregate_id, payload)
		SELECT gen_random_uuid(), 'group_message.queued', 'group_message', '0198c0de-0000-7000-8000-000000000001',
		       jsonb_build_object('event_id', gen_random_uuid(), 'padding', repeat('x', 290)) FROM generate_series(1, $1)`, b.N)
	require.NoError(b, err)
	counted := &counter{Publisher: dialBench(b, url), want: b.N, done: make(chan struct{})}
	r := bundle.relay(counted)
	r.BatchSize, r.NeedsConsumer = size, func(string) bool { return true }
	b.ResetTimer()
	stop := run(b, r)
	<-counted.done
	stop() // finishes the marks
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.StopTimer()
	require.Zero(b, bundle.unpublished(b))
}

// counter closes done when want messages are confirmed.
type counter struct {
	bus.Publisher
	mu   sync.Mutex
	want int
	done chan struct{}
}

func (c *counter) Publish(ctx context.Context, m []bus.Message) []error {
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
