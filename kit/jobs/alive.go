package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turumba/turumba/kit/clock"
)

// StaleAfter is how long a loop may go without a finished turn until its process is not
// ready any more.
const StaleAfter = 30 * time.Second

// Loops are the background loops of a process, each with the time of its last finished
// turn: what readiness and the age metrics are made of. A nil *Loops knows none.
type Loops struct {
	clock    clock.Clock
	age      *prometheus.Desc
	failures *prometheus.CounterVec

	mu      sync.Mutex
	running map[*Turns]struct{}
}

// NewLoops makes a registry whose metrics go to r; nil registers none.
func NewLoops(c clock.Clock, r prometheus.Registerer) (*Loops, error) {
	l := &Loops{
		clock: c, running: map[*Turns]struct{}{},
		age: prometheus.NewDesc("turumba_loop_last_turn_age_seconds",
			"Time since a background loop finished a turn or a step of one, or since its pause was over; of several with the same name, the longest.", []string{"loop"}, nil),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turumba_loop_failures_total", Help: "Turns and jobs that failed, made no progress (stalled), or belonged to another worker by then (fenced).",
		}, []string{"loop", "reason"}),
	}
	if r == nil {
		return l, nil
	}
	for _, c := range []prometheus.Collector{l, l.failures} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return l, nil
}

// Start registers a goroutine of a loop until Turns.End.
func (l *Loops) Start(name string) *Turns {
	t := &Turns{loops: l, name: name}
	if l == nil {
		t.clock = clock.System()
	} else {
		t.clock = l.clock
		l.mu.Lock()
		defer l.mu.Unlock()
		l.running[t] = struct{}{}
	}
	t.at = t.clock.Now()
	return t
}

// Ages are how long each loop has gone without a finished turn; of several of the same
// name, the longest.
func (l *Loops) Ages() map[string]time.Duration {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now, ages := l.clock.Now(), map[string]time.Duration{}
	for t := range l.running {
		ages[t.name] = max(ages[t.name], now.Sub(t.last()))
	}
	return ages
}

// Ready returns a *StaleError when a loop stands still; it is a telemetry.Check.
func (l *Loops) Ready(context.Context) error {
	var stale StaleError
	for name, age := range l.Ages() {
		if age >= StaleAfter {
			stale.Loops = append(stale.Loops, name)
		}
	}
	if len(stale.Loops) == 0 {
		return nil
	}
	slices.Sort(stale.Loops)
	return &stale
}

// StaleError names the loops that have finished no turn for StaleAfter.
type StaleError struct{ Loops []string }

// Error implements error.
func (e *StaleError) Error() string {
	return "no turn in " + StaleAfter.String() + ": " + strings.Join(e.Loops, ", ")
}

// NotReady tells readiness what to name.
func (e *StaleError) NotReady() []string { return e.Loops }

// Describe implements prometheus.Collector.
func (l *Loops) Describe(out chan<- *prometheus.Desc) { out <- l.age }

// Collect implements prometheus.Collector.
func (l *Loops) Collect(out chan<- prometheus.Metric) {
	for name, age := range l.Ages() {
		out <- prometheus.MustNewConstMetric(l.age, prometheus.GaugeValue, age.Seconds(), name)
	}
}

func (l *Loops) failed(name string, err error) {
	if l == nil {
		return
	}
	reason := "error"
	switch {
	case errors.Is(err, ErrFenced):
		reason = "fenced"
	case errors.Is(err, ErrStalled):
		reason = "stalled"
	}
	l.failures.WithLabelValues(name, reason).Inc()
}

// Turns are those of one goroutine of a loop. Loop and Queue report theirs themselves;
// a loop that is written by hand calls Done after each turn. They are safe for
// concurrent use.
type Turns struct {
	loops *Loops
	name  string
	clock clock.Clock

	mu    sync.Mutex
	at    time.Time   // of the last progress, or the end of a pause
	calls []time.Time // until when each call in flight may take
}

// Done says that a turn is finished, or a step of one.
func (t *Turns) Done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at = t.clock.Now()
}

// Rest says that nothing is to happen for d.
func (t *Turns) Rest(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at = t.clock.Now().Add(d)
}

// Resume ends a rest early: from now on, silence counts.
func (t *Turns) Resume() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := t.clock.Now(); t.at.After(now) {
		t.at = now
	}
}

// Call says that a call is in flight which may take limit: so long, silence is no
// standstill. done ends it, and is progress.
func (t *Turns) Call(limit time.Duration) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	until := t.clock.Now().Add(limit)
	t.calls = append(t.calls, until)
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		i := slices.Index(t.calls, until)
		t.calls, t.at = slices.Delete(t.calls, i, i+1), t.clock.Now()
	})
}

// End takes the goroutine from the registry.
func (t *Turns) End() {
	if t.loops == nil {
		return
	}
	t.loops.mu.Lock()
	defer t.loops.mu.Unlock()
	delete(t.loops.running, t)
}

// last is since when silence counts; it may lie ahead.
func (t *Turns) last() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.at
	for _, until := range t.calls {
		if until.After(last) {
			last = until
		}
	}
	return last
}

type turnsKey struct{}

// Progress says that a step of the job or turn that ctx belongs to is finished: a
// statement or a call. It does nothing elsewhere.
func Progress(ctx context.Context) {
	if t, ok := ctx.Value(turnsKey{}).(*Turns); ok {
		t.Done()
	}
}

// Call says that the job or turn that ctx belongs to waits for a call which may take
// limit, after which the caller ends it. done is progress. It does nothing elsewhere.
func Call(ctx context.Context, limit time.Duration) (done func()) {
	if t, ok := ctx.Value(turnsKey{}).(*Turns); ok {
		return t.Call(limit)
	}
	return func() {}
}
