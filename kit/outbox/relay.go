package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
)

// Limits of a relay.
const (
	// MaxBatch is the largest batch, in events.
	MaxBatch = 500

	defaultWorkers = 2
	defaultPoll    = time.Second
	sampleEvery    = 10 * time.Second
	sampleTimeout  = 5 * time.Second

	// batchTimeout bounds the transaction of a batch, which is the one place
	// where a transaction stays open during network traffic.
	batchTimeout   = 10 * time.Second
	publishTimeout = 7 * time.Second
	// relayStall is less than batchTimeout, so that a batch which that ends counts as a
	// standstill.
	relayStall = 8 * time.Second

	// alarmAfter failures in a row are worth waking somebody; the relay goes on.
	alarmAfter = 10

	minRelayPause = 100 * time.Millisecond
	maxRelayPause = 2 * time.Second
)

// Relay publishes the outbox of one database. Several relays share the work
// without talking to each other; every one of them may be killed at any time.
// Set Pool, Bus, Clock and Logger; the rest has defaults. Do not change the
// fields after Run has begun.
type Relay struct {
	// Pool connects as turumba_worker.
	Pool *pgxpool.Pool
	// Bus takes the events.
	Bus bus.Publisher
	// NeedsConsumer says whether an event type is published mandatory: then a
	// message that no queue wants counts as a failure. Nil means none needs one.
	NeedsConsumer func(eventType string) bool
	// Clock times the polls and pauses.
	Clock clock.Clock
	// Logger gets failures and alarms.
	Logger *slog.Logger
	// Tracer shows the publication in the trace of what caused it; nil shows none.
	Tracer trace.Tracer
	// Metrics counts; nil counts nothing that anybody sees.
	Metrics *Metrics
	// Loops get the finished turns; nil tells nobody.
	Loops *jobs.Loops

	// BatchSize is the number of events of one transaction; default and most
	// MaxBatch.
	BatchSize int
	// Workers is the number of batches in work at a time: while one waits for the
	// broker, another is claimed or marked. Default 2; each uses a connection.
	Workers int
	// Poll is the longest time between two looks; default 1 s.
	Poll time.Duration
	// NoListen leaves out the connection that listens for notifications.
	NoListen bool

	loop  jobs.Loop
	state alarmState
}

// Run publishes until ctx ends and returns nil; a batch under way is finished
// first, which takes at most 10 s. It never gives up on a database or a broker.
func (r *Relay) Run(ctx context.Context) error {
	if err := r.prepare(); err != nil {
		return err
	}
	r.Metrics.oldest.Begin(r.Clock, jobs.Age{})
	gauges := &jobs.Loop{Name: "outbox.gauges", Stall: sampleTimeout, Clock: r.Clock, Logger: r.Logger, Loops: r.Loops, Turn: r.sample}
	var g errgroup.Group
	g.Go(func() error { return r.loop.Run(ctx) })
	g.Go(func() error { return gauges.Run(ctx) })
	if !r.NoListen {
		l := &Listener{Pool: r.Pool, Clock: r.Clock, Logger: r.Logger}
		g.Go(func() error { return l.Run(ctx, r.Wake) })
	}
	return g.Wait()
}

func (r *Relay) prepare() (err error) {
	if r.BatchSize <= 0 || r.BatchSize > MaxBatch {
		r.BatchSize = MaxBatch
	}
	if r.Workers <= 0 {
		r.Workers = defaultWorkers
	}
	if r.Poll <= 0 {
		r.Poll = defaultPoll
	}
	if r.NeedsConsumer == nil {
		r.NeedsConsumer = func(string) bool { return false }
	}
	if r.Metrics == nil {
		r.Metrics, err = NewMetrics(nil)
	}
	r.loop.Name, r.loop.Workers, r.loop.Stall, r.loop.Turn, r.loop.Failed = "outbox.relay", r.Workers, relayStall, r.turn, r.failed
	r.loop.Clock, r.loop.Logger, r.loop.Loops = r.Clock, r.Logger, r.Loops
	return err
}

// Wake makes the relay look at once. It never blocks.
func (r *Relay) Wake() { r.loop.Wake() }

// turn publishes one batch.
func (r *Relay) turn(ctx context.Context) (time.Duration, error) {
	claimed, err := r.batch(ctx)
	if err != nil {
		return relayPause(r.state.failed()), err
	}
	if claimed > 0 {
		r.state.succeeded()
	}
	if claimed == r.BatchSize {
		r.Wake() // there is more than this worker's share
		return 0, nil
	}
	return r.Poll, nil
}

// relayPause is how long to wait after so many failures in a row: 100 ms, doubled with
// each and at most 2 s, with jitter.
func relayPause(failures int) time.Duration {
	pause := min(minRelayPause<<min(failures-1, 10), maxRelayPause)
	return pause/2 + rand.N(pause/2)
}

// failed tells about a batch that could not be published or marked at all.
func (r *Relay) failed(ctx context.Context, err error, delay time.Duration) {
	r.Metrics.failures.WithLabelValues(reason(err)).Inc()
	level, failures := slog.LevelWarn, r.state.inARow()
	if failures%alarmAfter == 0 {
		level = slog.LevelError
		r.Metrics.alarms.Inc()
	}
	r.Logger.LogAttrs(ctx, level, "outbox batch not published", slog.Int("failures_in_a_row", failures),
		slog.Duration("retry_in", delay), slog.Any("err", err))
}

// alarmState counts failed batches in a row, over all workers.
type alarmState struct {
	mu       sync.Mutex
	failures int
}

func (s *alarmState) failed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures++
	return s.failures
}

func (s *alarmState) inARow() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failures
}

func (s *alarmState) succeeded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = 0
}

// sample counts what waits, within bounds, and how old the oldest is. It goes
// by created_at: due_at moves with every failure.
func (r *Relay) sample(ctx context.Context) (time.Duration, error) {
	var count int
	var age float64
	err := r.Pool.QueryRow(ctx, `
		SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8
		FROM (SELECT created_at FROM outbox_events
		      WHERE published_at IS NULL AND created_at < now() + interval '1 day' LIMIT 10001) waiting`).Scan(&count, &age)
	if err != nil {
		return sampleEvery, fmt.Errorf("measure the outbox: %w", err)
	}
	r.Metrics.unpublished.Set(float64(count))
	r.Metrics.oldest.Set(jobs.Age{Age: time.Duration(max(age, 0) * float64(time.Second))})
	return sampleEvery, nil
}
