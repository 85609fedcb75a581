package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, pgtest.Goleak()...) }

// In these tests the machine's clock is the one of a synctest bubble: it moves when
// every goroutine waits, so that limits of contexts are exact too.

type job struct{ id int }

// bench is a queue and what happened to its jobs.
type bench struct {
	*jobs.Queue[job]
	registry *prometheus.Registry

	mu       sync.Mutex
	waiting  []*job
	released []time.Duration
	extended int
	done     []int
}

func newBench(t *testing.T, ids ...int) *bench {
	t.Helper()
	b := &bench{registry: prometheus.NewRegistry()}
	loops, err := jobs.NewLoops(clock.System(), b.registry)
	require.NoError(t, err)
	for _, id := range ids {
		b.waiting = append(b.waiting, &job{id})
	}
	b.Queue = &jobs.Queue[job]{
		Name: "bench", Lease: 9 * time.Second, Retry: 2 * time.Second, Clock: clock.System(), Logger: telemetry.Discard(), Loops: loops,
		Claim: b.claim, Release: b.release, ID: func(j *job) string { return fmt.Sprint(j.id) },
		Do: func(_ context.Context, j *job) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.done = append(b.done, j.id)
			return nil
		},
	}
	return b
}

func (b *bench) claim(context.Context, time.Duration) (*job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		return nil, nil
	}
	j := b.waiting[0]
	b.waiting = b.waiting[1:]
	return j, nil
}

func (b *bench) release(_ context.Context, _ *job, delay time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.released = append(b.released, delay)
	return nil
}

func (b *bench) extend(context.Context, *job, time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.extended++
	return nil
}

// run runs the queue for a while and stops it.
func (b *bench) run(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	pass(d)
	stop()
	require.NoError(t, <-ran)
}

// pass lets time pass in a bubble.
func pass(d time.Duration) {
	_ = clock.Sleep(context.Background(), clock.System(), d) // its context does not end
	synctest.Wait()
}

func TestEveryJobIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1, 2, 3)
		b.Workers = 2
		b.run(t, time.Millisecond)
		require.ElementsMatch(t, []int{1, 2, 3}, b.done)
		require.Empty(t, b.released)
	})
}

// TestHangingClaim: a claim over a dead connection costs its limit, and the next one
// finds the job.
func TestHangingClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		var first atomic.Bool
		b.Claim = func(ctx context.Context, lease time.Duration) (*job, error) {
			if !first.Swap(true) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return b.claim(ctx, lease)
		}
		b.run(t, jobs.DefaultLimit+jobs.DefaultPoll+time.Millisecond)
		require.Equal(t, []int{1}, b.done)
		require.Equal(t, "1", failures(t, b.registry, "stalled"))
	})
}

// TestClaimsThatAlwaysHang make the process not ready, although each ends by its limit.
func TestClaimsThatAlwaysHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Claim = func(ctx context.Context, _ time.Duration) (*job, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- b.Run(ctx) }()
		pass(jobs.StaleAfter - time.Millisecond)
		require.NoError(t, b.Loops.Ready(t.Context()))
		pass(time.Millisecond)
		require.ErrorContains(t, b.Loops.Ready(t.Context()), "bench")
		pass(time.Minute)
		require.Equal(t, 90*time.Second, b.Loops.Ages()["bench"], "it goes on growing")
		stop()
		require.NoError(t, <-ran)
		require.NoError(t, b.Loops.Ready(t.Context()), "a loop that ended is no loop")
	})
}

// TestRefusedClaims: where the server is away and says so, the loop itself goes round.
func TestRefusedClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Claim = func(context.Context, time.Duration) (*job, error) { return nil, errors.New("connection refused") }
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- b.Run(ctx) }()
		pass(time.Minute)
		require.NoError(t, b.Loops.Ready(t.Context()))
		stop()
		require.NoError(t, <-ran)
	})
}

func TestFailedJobIsReleased(t *testing.T) {
	for _, c := range []struct {
		name     string
		err      error
		released []time.Duration
		reason   string
	}{
		{"an error that may pass", errors.New("away"), []time.Duration{2 * time.Second}, "error"},
		{"fenced", fmt.Errorf("store: %w", jobs.ErrFenced), nil, "fenced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, 1)
				b.Do = func(context.Context, *job) error { return c.err }
				b.run(t, time.Millisecond)
				require.Equal(t, c.released, b.released)
				require.Equal(t, "1", failures(t, b.registry, c.reason))
			})
		})
	}
}

// TestHangingRelease costs its limit too.
func TestHangingRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1, 2)
		do := b.Do
		b.Do = func(ctx context.Context, j *job) error {
			if j.id == 1 {
				return errors.New("away")
			}
			return do(ctx, j)
		}
		b.Release = func(ctx context.Context, _ *job, _ time.Duration) error {
			<-ctx.Done()
			return ctx.Err()
		}
		b.run(t, jobs.DefaultLimit+time.Millisecond)
		require.Equal(t, []int{2}, b.done)
	})
}

// TestStopInMidClaim: the claim is made all the same, so its job is given back.
func TestStopInMidClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		b.Claim = func(ctx context.Context, lease time.Duration) (*job, error) {
			if err := clock.Sleep(ctx, clock.System(), time.Second); err != nil {
				return nil, err
			}
			return b.claim(ctx, lease)
		}
		b.run(t, time.Second/2)
		require.Empty(t, b.done)
		require.Equal(t, []time.Duration{0}, b.released)
	})
}

func TestStopInMidJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		b.Do = func(ctx context.Context, _ *job) error {
			<-ctx.Done()
			return ctx.Err()
		}
		b.run(t, time.Second)
		require.Equal(t, []time.Duration{0}, b.released)
		require.Empty(t, failures(t, b.registry, "error"), "a stop is no failure")
	})
}

// TestJobWithoutProgress: its context ends, and it is given back for later.
func TestJobWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		b.Extend = b.extend
		b.Do = func(ctx context.Context, _ *job) error {
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), jobs.ErrStalled)
			return ctx.Err()
		}
		b.run(t, jobs.DefaultStall+jobs.DefaultStall/4)
		require.Equal(t, []time.Duration{2 * time.Second}, b.released)
		require.Zero(t, b.extended, "a lease is kept by progress alone")
		require.Equal(t, "1", failures(t, b.registry, "stalled"))
	})
}

// TestJobThatNothingEnds shows: in readiness, by name, and in its age.
func TestJobThatNothingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		end := make(chan struct{})
		b.Do = func(context.Context, *job) error {
			<-end
			return nil
		}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- b.Run(ctx) }()
		pass(jobs.StaleAfter)
		err := b.Loops.Ready(t.Context())
		var stale *jobs.StaleError
		require.ErrorAs(t, err, &stale)
		require.Equal(t, []string{"bench"}, stale.NotReady())
		pass(30 * time.Second)
		require.NoError(t, testutil.GatherAndCompare(b.registry, strings.NewReader(`
			# HELP turumba_loop_last_turn_age_seconds Time since a background loop finished a turn or a step of one, or since its pause was over; of several with the same name, the longest.
			# TYPE turumba_loop_last_turn_age_seconds gauge
			turumba_loop_last_turn_age_seconds{loop="bench"} 60
			`), "turumba_loop_last_turn_age_seconds"))
		close(end)
		synctest.Wait()
		require.NoError(t, b.Loops.Ready(t.Context()))
		stop()
		require.NoError(t, <-ran)
	})
}

// TestLongJob: ten minutes of work with a step every nine seconds, and a call of two
// minutes in it, are neither ended nor out of readiness, and keep their lease.
func TestLongJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		b.Extend = b.extend
		b.Do = func(ctx context.Context, j *job) error {
			for range 60 {
				if err := clock.Sleep(ctx, clock.System(), 9*time.Second); err != nil {
					return err
				}
				jobs.Progress(ctx)
				require.NoError(t, b.Loops.Ready(ctx))
			}
			done := jobs.Call(ctx, 2*time.Minute)
			if err := clock.Sleep(ctx, clock.System(), 119*time.Second); err != nil {
				return err
			}
			done()
			done()
			b.done = append(b.done, j.id)
			return nil
		}
		b.run(t, 12*time.Minute)
		require.Equal(t, []int{1}, b.done)
		require.Greater(t, b.extended, 60)
	})
}

// TestCallPastItsLimit is silence from then on.
func TestCallPastItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		var ended time.Duration
		began := clock.System().Now()
		b.Do = func(ctx context.Context, _ *job) error {
			defer jobs.Call(ctx, time.Minute)()
			<-ctx.Done()
			ended = clock.System().Now().Sub(began)
			return ctx.Err()
		}
		b.run(t, 2*time.Minute)
		require.GreaterOrEqual(t, ended, time.Minute+jobs.DefaultStall)
		require.LessOrEqual(t, ended, time.Minute+jobs.DefaultStall*5/4)
	})
}

// TestFencedByAnExtension ends the job, which is not released: it is another's.
func TestFencedByAnExtension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		b.Extend = func(context.Context, *job, time.Duration) error { return jobs.ErrFenced }
		b.Do = func(ctx context.Context, _ *job) error {
			for clock.Sleep(ctx, clock.System(), time.Second) == nil {
				jobs.Progress(ctx)
			}
			require.ErrorIs(t, context.Cause(ctx), jobs.ErrFenced)
			return ctx.Err()
		}
		b.run(t, 5*time.Second)
		require.Empty(t, b.released)
		require.Equal(t, "1", failures(t, b.registry, "fenced"))
	})
}

// TestHangingExtension costs its limit and neither ends the job nor keeps the lease.
func TestHangingExtension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		b.Extend = func(ctx context.Context, _ *job, _ time.Duration) error {
			<-ctx.Done()
			return ctx.Err()
		}
		do := b.Do
		b.Do = func(ctx context.Context, j *job) error {
			for range 30 {
				if err := clock.Sleep(ctx, clock.System(), time.Second); err != nil {
					return err
				}
				jobs.Progress(ctx)
			}
			return do(ctx, j)
		}
		b.run(t, 35*time.Second)
		require.Equal(t, []int{1}, b.done)
	})
}

// TestPanic gives the job back, and ends neither the loop nor another job.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1, 2)
		do, panicked := b.Do, false
		b.Do = func(ctx context.Context, j *job) error {
			if j.id == 1 && !panicked {
				panicked = true
				panic("a fault")
			}
			return do(ctx, j)
		}
		b.run(t, 10*time.Second)
		require.True(t, panicked)
		require.Equal(t, []int{2}, b.done)
		require.Equal(t, []time.Duration{b.Retry}, b.released)
	})
}

func TestWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Poll = time.Hour
		for range 10 {
			b.Wake() // before Run, and never blocking
		}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- b.Run(ctx) }()
		pass(time.Second)
		b.mu.Lock()
		b.waiting = append(b.waiting, &job{7})
		b.mu.Unlock()
		b.Wake()
		synctest.Wait()
		require.Equal(t, []int{7}, b.done)
		stop()
		require.NoError(t, <-ran)
	})
}

func failures(t *testing.T, r *prometheus.Registry, reason string) string {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "turumba_loop_failures_total" && l.GetValue() == reason {
					return fmt.Sprint(m.GetCounter().GetValue())
				}
			}
		}
	}
	return ""
}
