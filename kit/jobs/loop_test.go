package jobs_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/telemetry"
)

// TestLoop: pauses, wakes, failures.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := clock.System().Now()
		var at []time.Duration
		var fail atomic.Bool
		l := &jobs.Loop{Name: "loop", Clock: clock.System(), Logger: telemetry.Discard(), Turn: func(context.Context) (time.Duration, error) {
			at = append(at, clock.System().Now().Sub(began))
			if fail.Load() {
				return time.Minute, errors.New("away")
			}
			return time.Hour, nil
		}}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- l.Run(ctx) }()
		pass(time.Second)
		fail.Store(true)
		l.Wake() // cuts the hour short
		pass(time.Second)
		fail.Store(false)
		l.Wake() // but not the pause after an error
		pass(time.Minute)
		stop()
		require.NoError(t, <-ran)
		require.Equal(t, []time.Duration{0, time.Second, 61 * time.Second}, at[:3])
	})
}

// TestStalledTurn: a step over a dead connection costs its limit.
func TestStalledTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loops, err := jobs.NewLoops(clock.System(), nil)
		require.NoError(t, err)
		turns := 0
		l := &jobs.Loop{Name: "loop", Stall: 4 * time.Second, Clock: clock.System(), Logger: telemetry.Discard(), Loops: loops, Turn: func(ctx context.Context) (time.Duration, error) {
			if turns++; turns == 1 {
				<-ctx.Done()
				return time.Second, ctx.Err()
			}
			return time.Hour, nil
		}}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- l.Run(ctx) }()
		pass(6 * time.Second)
		require.Equal(t, 2, turns)
		pass(50 * time.Minute)
		require.NoError(t, loops.Ready(ctx), "a pause is no standstill")
		stop()
		require.NoError(t, <-ran)
	})
}

// TestBusyLoop: turns without pauses are turns.
func TestBusyLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loops, err := jobs.NewLoops(clock.System(), nil)
		require.NoError(t, err)
		l := &jobs.Loop{Name: "loop", Clock: clock.System(), Logger: telemetry.Discard(), Loops: loops, Turn: func(ctx context.Context) (time.Duration, error) {
			return 0, clock.Sleep(ctx, clock.System(), time.Second)
		}}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- l.Run(ctx) }()
		pass(10 * time.Minute)
		require.NoError(t, loops.Ready(ctx))
		stop()
		require.NoError(t, <-ran)
	})
}

// TestOutsideALoop: what reports progress also runs for callers.
func TestOutsideALoop(t *testing.T) {
	t.Parallel()
	jobs.Progress(t.Context())
	jobs.Call(t.Context(), time.Second)()
	var none *jobs.Loops
	turns := none.Start("nobody")
	turns.Done()
	turns.End()
	require.NoError(t, none.Ready(t.Context()))
}
