package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	eventv1 "github.com/turumba/turumba/gen/turumba/event/v1"
	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/bustest"
	"github.com/turumba/turumba/kit/bus/inproc"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
)

func systemClock() clock.Clock { return clock.System() }

// receive waits for one value.
func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		require.FailNow(t, "nothing arrived")
	}
	panic("unreachable")
}

// publisher is a bus under a test's control.
type publisher struct {
	mu     sync.Mutex
	answer func(bus.Message) error
	sent   chan bus.Message
}

func newPublisher(answer func(bus.Message) error) *publisher {
	return &publisher{answer: answer, sent: make(chan bus.Message, 100_000)}
}

func (p *publisher) set(answer func(bus.Message) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

func (p *publisher) Publish(_ context.Context, messages []bus.Message) []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	errs := make([]error, len(messages))
	for i, m := range messages {
		if errs[i] = p.answer(m); errs[i] == nil {
			p.sent <- m
		}
	}
	return errs
}

func accept(bus.Message) error { return nil }

// relay returns a relay that does not listen, so that a test decides when it
// looks.
func (b *testBundle) relay(to bus.Publisher) *outbox.Relay {
	return &outbox.Relay{Pool: b.worker, Bus: to, Clock: systemClock(), Logger: quiet(), NoListen: true}
}

// run starts a relay and returns a function that stops it.
func run(t testing.TB, r *outbox.Relay) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}

func (b *testBundle) drained(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool { return b.unpublished(t) == 0 }, patience, 5*time.Millisecond)
}

func TestRelayPublishesTheEnvelope(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := newPublisher(accept)
	r := b.relay(p)
	r.NeedsConsumer = func(kind string) bool { return kind == "group_message.queued" }
	defer run(t, r)()
	ev := event("group_message.queued")
	ev.Traceparent = "00-01-02-01"
	b.appendAll(t, ev, event("message.created"))
	r.Wake()
	got := map[string]bus.Message{}
	for range 2 {
		m := receive(t, p.sent)
		got[m.RoutingKey] = m
	}
	m := got["group_message.queued"]
	require.True(t, m.Mandatory)
	require.False(t, got["message.created"].Mandatory)
	require.Equal(t, ev.GetEventId(), m.ID)
	require.Equal(t, "application/json", m.Headers[bus.HeaderContentType])
	require.Equal(t, "group_message", m.Headers["aggregate_type"])
	require.Equal(t, ev.GetAggregateId(), m.Headers["aggregate_id"])
	require.Equal(t, "group_message.queued", m.Headers["event_type"])
	require.Equal(t, "00-01-02-01", m.Headers["traceparent"])
	decoded, err := outbox.Decode(m)
	require.NoError(t, err)
	require.Equal(t, ev.GetAccountId(), decoded.GetAccountId())
	b.drained(t)
	require.NoError(t, m.Validate())
}

// TestRelaysShareTheWork is F-13: four relays, each event published once.
func TestRelaysShareTheWork(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := newPublisher(accept)
	want := map[string]bool{}
	for range 10 {
		for _, id := range b.appendAll(t, events(200, "a.b")...) {
			want[id] = true
		}
	}
	for range 4 {
		r := b.relay(p)
		r.BatchSize = 37
		defer run(t, r)()
	}
	for range want {
		m := receive(t, p.sent)
		require.True(t, want[m.ID])
		want[m.ID] = false
	}
	b.drained(t)
	require.Empty(t, p.sent, "no event twice")
}

// TestCommitOrderInversion is F-14: the transaction that began first commits
// last.
func TestCommitOrderInversion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := newPublisher(accept)
	early, err := b.api.Begin(t.Context())
	require.NoError(t, err)
	first := event("a.first")
	require.NoError(t, outbox.Append(t.Context(), &pg.Tx{Tx: early}, first))
	b.appendAll(t, event("a.second"))
	r := b.relay(p)
	r.Poll = 20 * time.Millisecond
	defer run(t, r)()
	require.Equal(t, "a.second", receive(t, p.sent).RoutingKey)
	b.appendAll(t, event("a.third"))
	require.Equal(t, "a.third", receive(t, p.sent).RoutingKey)
	require.NoError(t, early.Commit(t.Context()))
	require.Equal(t, first.GetEventId(), receive(t, p.sent).ID)
}

// TestUnroutableWaitsAndOthersPass is F-12.
func TestUnroutableWaitsAndOthersPass(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := newPublisher(func(m bus.Message) error {
		if m.RoutingKey == "a.lost" {
			return bus.ErrUnroutable
		}
		return nil
	})
	registry := prometheus.NewRegistry()
	metrics, err := outbox.NewMetrics(registry)
	require.NoError(t, err)
	r := b.relay(p)
	r.Metrics = metrics
	defer run(t, r)()
	ids := b.appendAll(t, event("a.lost"), event("a.fine"))
	r.Wake()
	require.Equal(t, ids[1], receive(t, p.sent).ID)
	attempts := "SELECT attempts FROM outbox_events WHERE id = $1 AND published_at IS NULL AND last_error LIKE '%unroutable%' AND due_at > created_at"
	require.Eventually(t, func() bool {
		var n int
		return b.admin.QueryRow(t.Context(), attempts, ids[0]).Scan(&n) == nil && n == 1
	}, patience, 5*time.Millisecond)
	p.set(accept)
	require.Equal(t, ids[0], receive(t, p.sent).ID, "after its pause of a second or so")
	b.drained(t)
	require.Equal(t, 1, scalar[int](t, b, "SELECT count(*) FROM outbox_events WHERE id = $1 AND attempts = 2 AND last_error IS NULL", ids[0]))
	count, err := testutil.GatherAndCount(registry, "turumba_outbox_failures_total")
	require.NoError(t, err)
	require.Equal(t, 1, count)
}

// alarms collects error logs.
type alarms struct {
	slog.Handler
	seen chan slog.Record
}

func (a alarms) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		select {
		case a.seen <- r:
		default:
		}
	}
	return nil
}

func (a alarms) Enabled(context.Context, slog.Level) bool { return true }

func TestTenthFailureOfAnEventAlarms(t *testing.T) {
	t.Parallel()
	b := setup(t)
	seen := make(chan slog.Record, 10)
	r := b.relay(newPublisher(func(bus.Message) error { return bus.ErrRejected }))
	r.Logger = slog.New(alarms{Handler: slog.DiscardHandler, seen: seen})
	b.appendAll(t, event("a.b"))
	_, err := b.admin.Exec(t.Context(), "UPDATE outbox_events SET attempts = 9")
	require.NoError(t, err)
	defer run(t, r)()
	require.Contains(t, receive(t, seen).Message, "keeps failing")
	require.Equal(t, 1, b.unpublished(t), "and it is still there")
}

// TestBrokerAway is F-11 in small: nothing is marked or counted against the
// events, the relay alarms, and all of it goes out in the end.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fake := clock.NewFake(systemClock().Now())
	p := newPublisher(func(bus.Message) error { return fmt.Errorf("%w: refused", bus.ErrUnavailable) })
	seen := make(chan slog.Record, 10)
	r := b.relay(p)
	r.Clock, r.Workers = fake, 1
	r.Logger = slog.New(alarms{Handler: slog.DiscardHandler, seen: seen})
	ids := b.appendAll(t, events(700, "a.b")...)
	defer run(t, r)()
	for len(seen) == 0 {
		require.NoError(t, fake.WaitForTimers(t.Context(), 2)) // the pause and the gauges
		fake.Advance(2 * time.Second)
	}
	require.Equal(t, "outbox batch not published", receive(t, seen).Message)
	require.Equal(t, len(ids), scalar[int](t, b, "SELECT count(*) FROM outbox_events WHERE published_at IS NULL AND attempts = 0 AND due_at = created_at"))
	p.set(accept)
	for len(p.sent) < len(ids) {
		require.NoError(t, fake.WaitForTimers(t.Context(), 1))
		fake.Advance(2 * time.Second)
	}
	b.drained(t)
}

// TestUnconfirmedIsPublishedAgain is F-15: the answer to some was lost.
func TestUnconfirmedIsPublishedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	lost := true
	p := newPublisher(nil)
	p.set(func(m bus.Message) error {
		if lost && m.RoutingKey == "a.b" {
			lost = false
			return bus.ErrUnconfirmed
		}
		return nil
	})
	defer run(t, b.relay(p))()
	ids := b.appendAll(t, event("a.b"))
	require.Equal(t, ids[0], receive(t, p.sent).ID)
	b.drained(t)
}

// TestDatabaseAwayAfterPublish is the crash between confirm and mark: the batch
// goes out twice and is marked once.
func TestDatabaseAwayAfterPublish(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := true
	p := newPublisher(nil)
	p.set(func(bus.Message) error {
		if first {
			first = false
			_, err := b.admin.Exec(context.WithoutCancel(t.Context()), `
				SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE state = 'idle in transaction' AND datname = current_database() AND pid <> pg_backend_pid()`)
			return err
		}
		return nil
	})
	r := b.relay(p)
	r.Workers = 1
	defer run(t, r)()
	ids := b.appendAll(t, event("a.b"))
	r.Wake()
	require.Equal(t, ids[0], receive(t, p.sent).ID)
	require.Equal(t, ids[0], receive(t, p.sent).ID)
	b.drained(t)
}

// TestPollFallback is F-19 in the extreme: nobody ever notifies.
func TestPollFallback(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := newPublisher(accept)
	defer run(t, b.relay(p))()
	ids := b.appendAll(t, event("a.b"))
	require.Equal(t, ids[0], receive(t, p.sent).ID)
}

// TestNotifyWakes runs with a poll that would come too late for the test.
func TestNotifyWakes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := newPublisher(accept)
	r := b.relay(p)
	r.NoListen, r.Poll = false, time.Hour
	defer run(t, r)()
	n := outbox.NewNotifier(b.api, systemClock(), quiet())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	for range 20 {
		id := b.appendAll(t, event("a.b"))[0]
		n.Notify()
		require.Equal(t, id, receive(t, p.sent).ID)
	}
	cancel()
	require.NoError(t, <-done)
}

// TestNotifierDebounces counts the notifications that a thousand commits cause.
func TestNotifierDebounces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fake := clock.NewFake(time.Unix(0, 0))
	n := outbox.NewNotifier(b.api, fake, quiet())
	conn, err := b.admin.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), "LISTEN outbox_channel")
	require.NoError(t, err)
	for range 1000 {
		n.Notify()
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	require.NoError(t, fake.WaitForTimers(t.Context(), 1))
	for range 1000 {
		n.Notify()
	}
	fake.Advance(10 * time.Millisecond)
	require.NoError(t, fake.WaitForTimers(t.Context(), 1))
	fake.Advance(10 * time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	for range 2 {
		_, err := conn.Conn().WaitForNotification(t.Context())
		require.NoError(t, err)
	}
	_, err = conn.Exec(t.Context(), "SELECT 1") // would have brought a third
	require.NoError(t, err)
	soon, stop := context.WithTimeout(t.Context(), time.Millisecond)
	defer stop()
	_, err = conn.Conn().WaitForNotification(soon)
	require.Error(t, err)
}

// TestEffectOnce takes the whole way over the in-process bus with every event
// published twice: the effect is there once.
func TestEffectOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	topology := bustest.Topology("group_message.*")
	in, err := inproc.New(topology, inproc.Options{Logger: quiet()})
	require.NoError(t, err)
	_, err = b.admin.Exec(t.Context(), "CREATE TABLE effects (id uuid); GRANT INSERT ON effects TO turumba_worker")
	require.NoError(t, err)
	r := b.relay(twice{in})
	r.NeedsConsumer = func(string) bool { return true }
	stop := run(t, r)
	consumed := make(chan error, 1)
	go func() {
		consumed <- in.Consume(t.Context(), topology.Queues[0].Name, 5, outbox.Once(b.worker, "test", insertEffect))
	}()
	b.appendAll(t, events(200, "group_message.queued")...)
	r.Wake()
	require.Eventually(t, func() bool { return scalar[int](t, b, "SELECT count(*) FROM effects") >= 200 }, patience, 10*time.Millisecond)
	b.drained(t)
	stop()
	require.NoError(t, in.Close())
	require.ErrorIs(t, <-consumed, bus.ErrClosed)
	require.Equal(t, 200, scalar[int](t, b, "SELECT count(*) FROM effects"))
	require.Equal(t, 200, scalar[int](t, b, "SELECT count(DISTINCT id) FROM effects"))
}

// twice publishes everything twice.
type twice struct{ bus.Publisher }

func (p twice) Publish(ctx context.Context, m []bus.Message) []error {
	first, second := p.Publisher.Publish(ctx, m), p.Publisher.Publish(ctx, m)
	for i := range first {
		first[i] = errors.Join(first[i], second[i])
	}
	return first
}

func insertEffect(ctx context.Context, tx pgx.Tx, ev *eventv1.Event) error {
	_, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1)", ev.GetEventId())
	return err
}
