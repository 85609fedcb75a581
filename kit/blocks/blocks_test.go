package blocks

import (
	"context"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

const mib = 1 << 20

// fakeHeap is a heap whose collections the test makes.
type fakeHeap struct {
	live, goal, other, limit int64
	waiting                  []func()
}

func (h *fakeHeap) read() (live, goal, other int64) { return h.live, h.goal, h.other }

func (h *fakeHeap) setLimit(limit int64) (before int64) {
	before = h.limit
	if limit >= 0 {
		h.limit = limit
	}
	return before
}

func (h *fakeHeap) collected(f func()) { h.waiting = append(h.waiting, f) }

func (h *fakeHeap) collect(live int64) {
	h.live = live
	waiting := h.waiting
	h.waiting = nil
	for _, f := range waiting {
		f()
	}
}

// TestPace: blocks have a limit from the first one on until a collection finds that there
// was none since the one before.
func TestPace(t *testing.T) {
	t.Parallel()
	const size, goal, other = 32 * mib, 100 * mib, 10 * mib
	const ours = goal + other + size // two at once
	type step struct {
		begin, end int
		live       int64 // what a collection leaves; 0 for none
		limit      int64
	}
	for _, tc := range []struct {
		name   string
		before int64
		steps  []step
	}{
		{"one block and then none", math.MaxInt64, []step{
			{begin: 1, limit: ours}, {end: 1, limit: ours}, {live: 20 * mib, limit: ours}, {live: 20 * mib, limit: math.MaxInt64}, {live: 20 * mib, limit: math.MaxInt64},
		}},
		{"a block that is in use all the time", math.MaxInt64, []step{
			{begin: 1, limit: ours}, {live: 52 * mib, limit: ours}, {live: 52 * mib, limit: ours}, {end: 1, live: 20 * mib, limit: ours}, {live: 20 * mib, limit: math.MaxInt64},
		}},
		{"a flood", math.MaxInt64, []step{
			{begin: 2, limit: ours}, {end: 2, begin: 2, limit: ours}, {live: 84 * mib, limit: ours}, {end: 2, begin: 2, live: 148 * mib, limit: ours}, {live: 84 * mib, limit: ours},
		}},
		{"more lives than before", math.MaxInt64, []step{
			{begin: 1, limit: ours}, {live: 232 * mib, limit: (10 + 232 + 200) * mib}, {end: 1, live: 40 * mib, limit: ours},
		}},
		{"a limit of the environment that is lower", 50 * mib, []step{
			{begin: 1, limit: 50 * mib}, {live: 500 * mib, limit: 50 * mib}, {end: 1, live: 20 * mib, limit: 50 * mib}, {live: 20 * mib, limit: 50 * mib},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := &fakeHeap{goal: goal, other: other, limit: tc.before}
			p := &pace{heap: h, most: 2}
			for i, s := range tc.steps {
				for range s.end {
					p.end(size)
				}
				for range s.begin {
					p.begin(size)
				}
				if s.live > 0 {
					h.collect(s.live)
				}
				require.Equal(t, s.limit, h.limit, "step %d", i)
			}
		})
	}
}

// TestRun: no more run at once than there are cores, and nobody waits for ever.
func TestRun(t *testing.T) {
	t.Parallel()
	var running, most atomic.Int64
	var wg sync.WaitGroup
	for range 4 * cores {
		wg.Go(func() {
			if err := Run(t.Context(), mib, func() {
				n := running.Add(1)
				for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
				}
				runtime.Gosched()
				running.Add(-1)
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, most.Load(), cores)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, places.Acquire(t.Context(), cores))
	defer places.Release(cores)
	require.ErrorIs(t, Run(ctx, mib, func() { t.Error("it has no place") }), context.Canceled)
}

// TestRuntimeHeap: what the pace relies on of Go's memory.
func TestRuntimeHeap(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	runtimeHeap{}.collected(func() { close(done) })
	runtime.GC()
	<-done
	live, goal, other := runtimeHeap{}.read()
	require.Positive(t, live)
	require.Greater(t, goal, live)
	require.Positive(t, other)
}
