package dispatch

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSideBySide: each number is called once, by no more goroutines than are allowed, and
// calls that wait for each other have all of them.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ n, most int }{{0, 4}, {1, 4}, {4, 4}, {5, 4}, {128, 1}, {128, 300}, {500, 32}} {
		called := make([]atomic.Int32, c.n)
		var running, peak atomic.Int32
		together := min(c.n, c.most)
		var arrived sync.WaitGroup
		arrived.Add(together)
		sideBySide(c.n, c.most, func(i int) {
			called[i].Add(1)
			peak.Store(max(peak.Load(), running.Add(1)))
			if i < together {
				arrived.Done()
				arrived.Wait()
			}
			running.Add(-1)
		})
		for i := range called {
			require.EqualValues(t, 1, called[i].Load(), "%+v: %d", c, i)
		}
		require.LessOrEqual(t, int(peak.Load()), c.most, "%+v", c)
	}
}
