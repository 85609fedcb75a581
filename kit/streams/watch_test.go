package streams_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/streams"
)

// table is where rows are; it counts looks.
type table struct {
	mu    sync.Mutex
	rows  map[string]streams.State[int]
	looks int
	err   error
	clock *clock.Fake
}

func newTable() *table {
	return &table{rows: map[string]streams.State[int]{}, clock: clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))}
}

func (tb *table) watcher() *streams.Watcher[int] {
	return streams.NewWatcher(tb.clock, apierr.NotFound("row"), tb.look)
}

func (tb *table) look(ctx context.Context, scope, ids []string) (out []streams.State[int], err error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.looks++
	if tb.err != nil {
		return nil, tb.err
	}
	for _, id := range ids {
		row, ok := tb.rows[id]
		for _, account := range scope {
			if ok && row.Account == account {
				out = append(out, row)
			}
		}
	}
	return out, ctx.Err()
}

func (tb *table) set(id string, value int, final bool) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.rows[id] = streams.State[int]{ID: id, Account: "A", Changed: tb.clock.Now().Add(time.Duration(value)), Final: final, Row: value}
}

func (tb *table) count() int {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.looks
}

// idle waits until the last watcher has ended the looking.
func (tb *table) idle(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return tb.clock.Timers() == 0 }, 10*time.Second, time.Millisecond)
}

// tick lets the next look happen: one timer for it, and one for each of the watchers.
func (tb *table) tick(t *testing.T, watchers int) {
	t.Helper()
	before := tb.count()
	require.NoError(t, tb.clock.WaitForTimers(t.Context(), watchers+1))
	tb.clock.Advance(500 * time.Millisecond)
	require.Eventually(t, func() bool { return tb.count() > before }, 10*time.Second, time.Millisecond)
}

// TestOneLookForAll: however many watch, each time there is one look, and everybody is
// told of every change; who may not see the row sees nothing.
func TestOneLookForAll(t *testing.T) {
	t.Parallel()
	tb := newTable()
	w := tb.watcher()
	const watchers = 100
	for i := range 3 {
		tb.set(fmt.Sprint("row", i), 0, false)
	}
	told := make(chan int, 10*watchers)
	var watching errgroup.Group
	for i := range watchers {
		watching.Go(func() error {
			return w.Watch(t.Context(), []string{"A"}, fmt.Sprint("row", i%3), func(v int) error { told <- v; return nil })
		})
	}
	for range watchers {
		require.Zero(t, <-told)
	}
	require.True(t, apierr.HasReason(w.Watch(t.Context(), []string{"B"}, "row0", nil), errorv1.Reason_REASON_NOT_FOUND))
	looks := tb.count()
	require.Equal(t, watchers+1, looks, "one each at the start")
	tb.tick(t, watchers) // nothing changed
	tb.set("row0", 1, false)
	tb.tick(t, watchers)
	for range (watchers + 2) / 3 {
		require.Equal(t, 1, <-told)
	}
	require.Equal(t, looks+2, tb.count())
	for i := range 3 {
		tb.set(fmt.Sprint("row", i), 2, true)
	}
	tb.tick(t, watchers)
	require.NoError(t, watching.Wait())
	require.Len(t, told, watchers)
	tb.idle(t)
}

// TestWatchRepeats: a stream of a row that does not change is not idle.
func TestWatchRepeats(t *testing.T) {
	t.Parallel()
	tb := newTable()
	tb.set("row", 1, false)
	ctx, cancel := context.WithCancelCause(t.Context())
	told, done := make(chan int, 2), make(chan error)
	go func() {
		done <- tb.watcher().Watch(ctx, []string{"A"}, "row", func(v int) error { told <- v; return nil })
	}()
	require.Equal(t, 1, <-told)
	require.NoError(t, tb.clock.WaitForTimers(t.Context(), 2))
	tb.clock.Advance(30 * time.Second)
	require.Equal(t, 1, <-told)
	cancel(errors.New("stopping"))
	require.EqualError(t, <-done, "stopping")
}

// TestSlowReader: who does not read holds nobody up, and sees the last state.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	tb := newTable()
	tb.set("row", 0, false)
	w := tb.watcher()
	told, slow, done := make(chan int, 100), make(chan int), make(chan error, 2)
	began := make(chan struct{}, 100)
	go func() {
		done <- w.Watch(t.Context(), []string{"A"}, "row", func(v int) error { told <- v; return nil })
	}()
	go func() {
		done <- w.Watch(t.Context(), []string{"A"}, "row", func(v int) error { began <- struct{}{}; slow <- v; return nil })
	}()
	require.Zero(t, <-told)
	<-began
	for i := 1; i <= 5; i++ {
		tb.set("row", i, i == 5)
		tb.tick(t, 1)
		require.Equal(t, i, <-told)
	}
	require.Zero(t, <-slow)
	last := -1
	for last != 5 {
		next := <-slow
		require.Greater(t, next, last)
		last = next
	}
	require.NoError(t, <-done)
	require.NoError(t, <-done)
}

// TestWatchTellsFailures: a look that fails or panics, and a row that is gone, end the
// watches; later ones work.
func TestWatchTellsFailures(t *testing.T) {
	t.Parallel()
	tb := newTable()
	w := tb.watcher()
	watch := func() (told <-chan int, done <-chan error) {
		rows, ended := make(chan int, 10), make(chan error, 1)
		go func() {
			ended <- w.Watch(t.Context(), []string{"A"}, "row", func(v int) error { rows <- v; return nil })
		}()
		return rows, ended
	}
	tb.set("row", 1, false)
	told, done := watch()
	require.Equal(t, 1, <-told)
	tb.mu.Lock()
	tb.err = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "the database is away")
	tb.mu.Unlock()
	tb.tick(t, 1)
	require.True(t, apierr.HasReason(<-done, errorv1.Reason_REASON_UNAVAILABLE))
	tb.mu.Lock()
	tb.err = nil
	tb.mu.Unlock()
	tb.idle(t)
	told, done = watch()
	require.Equal(t, 1, <-told)
	tb.mu.Lock()
	delete(tb.rows, "row")
	tb.mu.Unlock()
	tb.tick(t, 1)
	require.True(t, apierr.HasReason(<-done, errorv1.Reason_REASON_NOT_FOUND))
}
