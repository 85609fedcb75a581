package chaos_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// meshes is how many run rows side by side: most rows wait, for processes that start,
// leases that end and heartbeats that do not come.
const meshes = 3

// suite is a run of the rows: how much of them, on which meshes, and what they found.
type suite struct {
	t      *testing.T
	run    scope
	seed   uint64
	worlds []*world // those that were started so far

	mu    sync.Mutex
	total figures
}

// TestFaults runs the fault rows: CHAOS=full all of them, CHAOS=quick the quick ones,
// with a fixed seed; first those that may run beside others, on several meshes, then
// the rest one by one. -run TestFaults/F-41 selects one; CHAOS_SEED sets the seed.
func TestFaults(t *testing.T) {
	s := &suite{t: t, run: map[string]scope{"full": full, "quick": quick}[os.Getenv("CHAOS")]}
	s.seed = seed(t, s.run)
	by := map[company][]row{}
	for _, row := range rows() {
		if row.from <= s.run {
			by[row.with] = append(by[row.with], row)
		}
	}
	s.play(by[beside], s.lanes())
	s.play(by[alone], 1)
	t.Logf("REPORT %s seed=%d", &s.total, s.seed)
}

// seed is CHAOS_SEED, or else 1, or any for the full run.
func seed(t *testing.T, run scope) uint64 {
	t.Helper()
	if text := os.Getenv("CHAOS_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		return n
	}
	if run == full {
		return rand.Uint64()
	}
	return 1
}

// lanes is how many rows may run at once: one beside all other tests, and when the
// command line names the rows, for which one mesh is started sooner than three.
func (s *suite) lanes() int {
	if s.run == smoke || strings.Contains(flag.Lookup("test.run").Value.String(), "/") {
		return 1
	}
	return meshes
}

// play runs the rows on so many meshes, each row on the one that is free next. A mesh
// that stands has begun while the next one starts.
func (s *suite) play(rows []row, lanes int) {
	s.t.Helper()
	queue := make(chan row, len(rows))
	for _, row := range rows {
		queue <- row
	}
	close(queue)
	var busy sync.WaitGroup
	defer busy.Wait()
	for i := range min(lanes, len(rows)) {
		w := s.world(i)
		busy.Go(func() {
			for row := range queue {
				s.t.Run(row.id, func(t *testing.T) { s.trial(t, w).play(row, s.sum) })
			}
		})
	}
}

// world is the i-th mesh, which is started when it is first asked for.
func (s *suite) world(i int) *world {
	s.t.Helper()
	if i == len(s.worlds) {
		s.worlds = append(s.worlds, newWorld(s.t))
	}
	return s.worlds[i]
}

// trial is a row on a mesh. What chance decides in it depends on the seed alone.
func (s *suite) trial(t *testing.T, w *world) *trial {
	t.Helper()
	return &trial{world: w, t: t, full: s.run == full, rand: rand.New(rand.NewPCG(s.seed, 0))}
}

func (s *suite) sum(f figures) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total.add(f)
}
