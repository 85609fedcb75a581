package dispatch

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

func testLine(connections int) *line {
	return newPool(nil, 1, connections, &valve{}, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "took"})).lines[singles]
}

// marked are n messages that the gate was passed for.
func marked(from, n int) []call {
	w := &sentWindow{now: clock.System().Now}
	calls := make([]call, n)
	for i := range calls {
		calls[i] = call{ChunkMessage: &postgres.ChunkMessage{ID: strconv.Itoa(from + i), Ordinal: from + i}, window: w}
	}
	return calls
}

// TestFlight: each message is called once, by no more at a time than there are connections,
// and calls that wait for each other have all of them.
func TestFlight(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ n, connections int }{{1, 4}, {4, 4}, {5, 4}, {128, 1}, {128, 300}, {500, 32}} {
		called := make([]atomic.Int32, c.n)
		var running, peak atomic.Int32
		together := min(c.n, c.connections)
		var arrived, calling sync.WaitGroup
		arrived.Add(together)
		f := newFlight(testLine(c.connections), &calling, func(m *call) (messaging.Outcome, bool) {
			called[m.Ordinal].Add(1)
			peak.Store(max(peak.Load(), running.Add(1)))
			if m.Ordinal < together {
				arrived.Done()
				arrived.Wait()
			}
			running.Add(-1)
			return messaging.Outcome{MessageID: m.ID}, false
		})
		f.add(marked(0, c.n))
		calling.Wait()
		require.Zero(t, f.left())
		require.Len(t, f.take(), c.n)
		for i := range called {
			require.EqualValues(t, 1, called[i].Load(), "%+v: %d", c, i)
		}
		require.LessOrEqual(t, int(peak.Load()), c.connections, "%+v", c)
	}
}

// TestFlightIsRecalled: what was not called is known by its first message, and is not called
// later.
func TestFlightIsRecalled(t *testing.T) {
	t.Parallel()
	var calling sync.WaitGroup
	ends := make(chan struct{})
	var called atomic.Int32
	f := newFlight(testLine(3), &calling, func(m *call) (messaging.Outcome, bool) {
		called.Add(1)
		<-ends
		return messaging.Outcome{MessageID: m.ID}, false
	})
	f.add(marked(10, 8))
	require.Eventually(t, func() bool { return called.Load() == 3 }, 10*time.Second, time.Millisecond)
	from, n := f.recall()
	require.Equal(t, []int{13, 5}, []int{from, n})
	_, n = f.recall()
	require.Zero(t, n)
	close(ends)
	calling.Wait()
	require.EqualValues(t, 3, called.Load())
	require.Len(t, f.take(), 3)
}

// TestCallsSetAside: calls that are set aside, and some of them taken back, have their
// outcome once, in the flight where they are, by the place that they have there.
func TestCallsSetAside(t *testing.T) {
	t.Parallel()
	for range 200 {
		var calling sync.WaitGroup
		n, answers := 1+rand.IntN(20), make(chan struct{})
		f := newFlight(testLine(n), &calling, func(m *call) (messaging.Outcome, bool) {
			<-answers
			return messaging.Outcome{MessageID: m.ID}, false
		})
		f.add(marked(0, n))
		go func() {
			for range n {
				answers <- struct{}{}
			}
		}()
		aside := f.setAside(clock.System().Now())
		back := rand.IntN(2) == 0
		var ids []string
		if aside != nil {
			ids = aside.ids()
			if back {
				f.join(aside)
			}
		}
		calling.Wait()
		found := map[string]bool{}
		for _, c := range f.take() {
			require.Equal(t, c.Ordinal, c.place)
			found[c.outcome.MessageID] = true
		}
		if aside != nil && !back {
			for _, c := range aside.take() {
				require.Equal(t, ids[c.place], c.ID)
				found[c.outcome.MessageID] = true
			}
		}
		require.Len(t, found, n)
		require.Zero(t, f.left())
	}
}

// TestSilentCallsLeaveAConnection: however many calls have no answer, there is a connection
// for one more, and all of them when they are answered.
func TestSilentCallsLeaveAConnection(t *testing.T) {
	t.Parallel()
	for connections := 1; connections <= 4; connections++ {
		var calling sync.WaitGroup
		ends := make(chan struct{})
		l, closed := testLine(connections), make(chan struct{})
		close(closed)
		free := func() (n int) {
			for range connections {
				if l.take(closed) {
					n++
				}
			}
			for range n {
				l.free()
			}
			return n
		}
		f := newFlight(l, &calling, func(m *call) (messaging.Outcome, bool) {
			<-ends
			return messaging.Outcome{MessageID: m.ID}, false
		})
		for range 3 {
			f.add(marked(0, free()))
			require.Eventually(t, func() bool { return free() == 0 }, 10*time.Second, time.Millisecond)
			require.Positive(t, f.silence(clock.System().Now()))
			require.Eventually(t, func() bool { return free() == 1 }, 10*time.Second, time.Millisecond)
		}
		close(ends)
		calling.Wait()
		require.Equal(t, connections, free())
	}
}

// TestMarked: of a channel that is not quick no more is marked than twice its connections,
// by chance and over several runners of both lanes, and each runner gets on.
func TestMarked(t *testing.T) {
	t.Parallel()
	for range 50 {
		connections, runners := 1+rand.IntN(40), 1+rand.IntN(16)
		p := testLine(connections).pool
		type of struct {
			l            *line
			f            *flight
			open, stored int
			done         int
		}
		list := make([]*of, runners)
		for i := range list {
			list[i] = &of{l: p.lines[rand.IntN(lanes)], f: &flight{wake: make(chan struct{}, 1)}}
			list[i].l.join()
		}
		ahead := 0
		for range 4000 {
			r := list[rand.IntN(runners)]
			landed := rand.IntN(r.open + 1)
			r.open, r.stored = r.open-landed, r.stored+landed
			n, low, _ := r.l.mark(r.f, r.open, r.stored, 1+rand.IntN(500))
			if n == 0 {
				require.Less(t, low, max(r.open, 1), "it waits for something")
				r.l.done(r.stored)
				ahead, r.stored = ahead-r.stored, 0
				continue
			}
			r.l.done(r.stored)
			ahead += n - r.stored
			r.open, r.stored, r.done = r.open+n, 0, r.done+n
			require.LessOrEqual(t, ahead, 2*connections)
			require.LessOrEqual(t, ahead, bulkPerChannel*window)
		}
		for i, r := range list {
			require.Positive(t, r.done, "runner %d of %d, %d connections", i, runners, connections)
		}
	}
}

// TestMarksOfALane: a lane alone has enough messages marked for all connections that it can
// have, and a single message in front of sends is marked at once.
func TestMarksOfALane(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 64; n++ {
		for lane := range lanes {
			p := testLine(n).pool
			for range 2 {
				p.lines[lane].join()
			}
			marked := 0
			for more := true; more; {
				var got int
				got, _, _ = p.lines[lane].mark(&flight{wake: make(chan struct{}, 1)}, 0, 0, 500)
				marked, more = marked+got, got > 0
			}
			require.GreaterOrEqual(t, marked, p.lines[lane].reach(), "%d connections", n)
			require.LessOrEqual(t, marked, 2*n)
			if lane == singles {
				continue
			}
			p.lines[singles].join()
			got, _, _ := p.lines[singles].mark(&flight{wake: make(chan struct{}, 1)}, 0, 0, 1)
			require.Equal(t, n > 1, got == 1, "%d connections", n)
		}
	}
}

// TestOneConnection: a single message in front of sends that have both marks is marked when
// the outcome of the call is stored that is open, and called next, though a message of
// the sends waits for longer.
func TestOneConnection(t *testing.T) {
	t.Parallel()
	p := testLine(1).pool
	bulk, single := p.lines[sends], p.lines[singles]
	campaign, code := &flight{wake: make(chan struct{}, 1)}, &flight{wake: make(chan struct{}, 1)}
	bulk.join()
	n, _, _ := bulk.mark(campaign, 0, 0, 500)
	require.Equal(t, 2, n)
	_, ok := p.ask(sends)
	require.True(t, ok)
	waits, ok := p.ask(sends)
	require.False(t, ok)

	single.join()
	n, _, _ = single.mark(code, 0, 0, 1)
	require.Zero(t, n)
	bulk.free()
	require.Zero(t, p.use.open, "the connection is held")
	n, _, yield := bulk.mark(campaign, 1, 1, 500)
	require.Zero(t, n)
	require.True(t, yield, "the outcome is stored at once")
	bulk.done(1)
	n, _, _ = single.mark(code, 0, 0, 1)
	require.Equal(t, 1, n)
	single.part(code)
	_, ok = p.ask(singles)
	require.True(t, ok)
	single.free()
	<-waits

	// A claim ends with who made it.
	single.done(1)
	bulk.free()
	bulk.mark(campaign, 0, 1, 500)
	single.join()
	p.claim(singles)
	_, ok = p.ask(sends)
	require.False(t, ok)
	single.part(code)
	require.Equal(t, 1, p.use.open[sends])
}

// TestPace: what is known of a channel's calls.
func TestPace(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	v := &valve{}
	var told []pace
	v.changed = func(_ *valve, p pace) { told = append(told, p) }
	answer := func(took time.Duration, n int) {
		for range n {
			v.note(messaging.Outcome{Class: "ok"}, took, now)
		}
	}
	require.Equal(t, unproven, v.pace())
	answer(5*time.Millisecond, 1)
	require.Equal(t, quick, v.pace())
	answer(300*time.Millisecond, 1)
	require.Equal(t, steady, v.pace())
	answer(5*time.Millisecond, 60)
	require.Equal(t, quick, v.pace())
	answer(1600*time.Millisecond, 30)
	require.Equal(t, slow, v.pace())
	require.True(t, v.moving(now.Add(2*time.Second)))
	require.False(t, v.moving(now.Add(10*time.Second)))
	answer(5*time.Millisecond, 200)
	require.Equal(t, quick, v.pace())
	v.belate(1)
	require.Equal(t, slow, v.pace())
	v.belate(-1)
	require.Equal(t, quick, v.pace())
	require.False(t, v.silence(now.Add(-time.Second)), "it answered others meanwhile")
	require.True(t, v.silence(now))
	require.Equal(t, slow, v.pace())
	answer(5*time.Millisecond, 1)
	require.Equal(t, quick, v.pace())
	require.Equal(t, []pace{quick, steady, quick, steady, slow, steady, quick, slow, quick, slow, quick}, told)
}
