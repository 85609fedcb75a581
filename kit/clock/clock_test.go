package clock_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
)

func start() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func fired(t clock.Timer) bool {
	select {
	case <-t.C():
		return true
	default:
		return false
	}
}

func TestSystemRunsForward(t *testing.T) {
	t.Parallel()
	c := clock.System()
	before := c.Now()
	require.NoError(t, clock.Sleep(t.Context(), c, time.Millisecond))
	require.True(t, c.Now().After(before))
	timer := c.NewTimer(time.Hour)
	require.True(t, timer.Stop())
	require.False(t, timer.Stop())
}

func TestFakeFiresWhatIsDue(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(start())
	early, late, now := c.NewTimer(time.Second), c.NewTimer(time.Minute), c.NewTimer(0)
	require.True(t, fired(now))
	c.Advance(999 * time.Millisecond)
	require.False(t, fired(early))
	c.Advance(time.Millisecond)
	require.True(t, fired(early))
	require.False(t, early.Stop())
	require.False(t, fired(late))
	require.True(t, late.Stop())
	c.Set(start().Add(time.Hour))
	require.False(t, fired(late))
	require.Equal(t, start().Add(time.Hour), c.Now())
	require.Zero(t, c.Timers())
}

func TestSleepOnFake(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(start())
	done := make(chan error, 1)
	go func() { done <- clock.Sleep(t.Context(), c, time.Hour) }()
	require.NoError(t, c.WaitForTimers(t.Context(), 1))
	c.Advance(time.Hour)
	require.NoError(t, <-done)
}

func TestSleepEndsWithContext(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(start())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- clock.Sleep(ctx, c, time.Hour) }()
	require.NoError(t, c.WaitForTimers(t.Context(), 1))
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Zero(t, c.Timers())
	require.ErrorIs(t, clock.Sleep(ctx, c, 0), context.Canceled)
	require.ErrorIs(t, c.WaitForTimers(ctx, 1), context.Canceled)
	require.NoError(t, clock.Sleep(t.Context(), c, -1))
}
