package dispatch

import (
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turumba/turumba/services/messaging/channel"
)

// line is a lane's way to a channel's provider: its callers take connections of the pool,
// which both lanes share, and its runners mark messages ahead.
type line struct {
	pool   *pool
	lane   int
	sender channel.Sender
	epoch  int64
	valve  *valve
	took   prometheus.Observer

	// All of it under the pool's lock.

	// runners share ahead, the messages that are marked as called and whose outcome is not
	// stored. Silent ones do not count.
	runners, ahead int
	// gate is how long a passage of the gate takes.
	gate time.Duration
	// window is how many messages the next window has, while the channel is quick.
	window int
	// starved are runners that wait for others' messages to be done, in their order.
	starved []*flight
}

// newPool is a channel with the lines of both lanes.
func newPool(sender channel.Sender, epoch int64, connections int, v *valve, took prometheus.Observer) *pool {
	p := &pool{shares: sharesOf(connections)}
	for lane := range p.lines {
		p.lines[lane] = &line{pool: p, lane: lane, sender: sender, epoch: epoch, valve: v, took: took, window: window}
	}
	return p
}

// connections is how many calls there may be at once, those of the other lane too.
func (l *line) connections() int { return l.pool.all }

// own is how many of them the lane has in any case.
func (l *line) own() int { return l.pool.own[l.lane] }

// take waits for a connection; false if halt is closed first.
func (l *line) take(halt <-chan struct{}) bool { return l.pool.take(l.lane, halt) }

func (l *line) free() { l.pool.free(l.lane) }

// silence is a call without an answer, and answer its end.
func (l *line) silence() (given bool) { return l.pool.silence(l.lane) }

func (l *line) answer(given bool) { l.pool.answer(l.lane, given) }

// join and part count the runners that have messages to mark.
func (l *line) join() {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.runners++
}

func (l *line) part(f *flight) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.runners--
	defer l.pool.disclaim()
	if i := slices.Index(l.starved, f); i >= 0 {
		l.starved = slices.Delete(l.starved, i, i+1)
	}
	l.feed()
}

// marks are how many messages of a channel that is not quick may be marked, over both
// lanes: what a crash leaves unknown (ADR 0045).
func (p *pool) marks() int { return min(2*p.all, bulkPerChannel*window) }

// marked are the messages of both lanes that are marked.
func (p *pool) marked() int { return p.lines[singles].ahead + p.lines[sends].ahead }

// most is how many of the marks a lane may have. Sends always leave some for the next
// single message, unless there is one connection; else a lane leaves those of the other
// one's own connections while that has messages to mark.
func (l *line) most() int {
	all, other := l.pool.marks(), l.pool.lines[1-l.lane]
	own := max(all/8, 1) // of single messages: one for each connection of theirs
	left := 0
	switch {
	case l.lane == sends && (l.pool.all > 1 || other.runners > 0):
		left = own
	case l.lane == singles && other.runners > 0:
		left = max(all/2-own, 1)
	}
	return all - max(left, other.ahead)
}

// share is how many of them one runner may have marked.
func (l *line) share() int {
	runners := max(l.runners, 1)
	return max((l.most()+runners-1)/runners, 1)
}

// reach is how many connections the lane can have now.
func (l *line) reach() int {
	taken := l.pool.use.open[1-l.lane]
	if l.lane == sends {
		taken = max(taken, l.pool.kept)
	}
	return l.pool.all - taken
}

// step is how many messages done of a share are worth a passage of the gate. So many should
// be left when it begins that none of a runner's connections waits for its end.
func step(share int, connections float64, gate, latency time.Duration) int {
	left := connections
	if latency > 0 {
		left *= 1 + 1.5*gate.Seconds()/latency.Seconds()
	}
	return max(share-int(math.Ceil(left)), share/8, 1)
}

// passed takes in how long a passage of the gate took.
func (l *line) passed(took time.Duration) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.gate += (took - l.gate) / 4
}

// mark lets a runner mark up to want further messages as called, beside those of its own
// that are open; 0 means that it must wait until there are no more open than low. stored is
// how many outcomes the same passage of the gate stores; with yield it should be passed to
// store them, so that others whose turn it is may mark messages. A channel whose calls take long has
// never more than twice its connections marked without a stored outcome, over all runners,
// and never more than a quick one: what a crash leaves unknown (ADR 0045).
func (l *line) mark(f *flight, open, stored, want int) (n, low int, yield bool) {
	p, latency := l.valve.known()
	whole := p == quick
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if whole {
		if open > 0 {
			return 0, 0, false
		}
		n = min(l.window, want)
		l.ahead += n
		return n, 0, false
	}
	share := l.share()
	enough := step(share, float64(l.reach())/float64(max(l.runners, 1)), l.gate, latency)
	n = min(share-open, l.most()-l.ahead+stored, l.pool.marks()-l.pool.marked()+stored, want)
	switch turn := slices.Index(l.starved, f); {
	case open > share-enough:
		return 0, share - enough, len(l.pool.lines[1-l.lane].starved) > 0
	case n < min(enough, want), turn != 0 && len(l.starved) > 0:
		if turn < 0 {
			l.starved = append(l.starved, f)
			l.pool.claim(l.lane)
		}
		return 0, open - 1, true
	case turn == 0:
		l.starved = slices.Delete(l.starved, 0, 1)
		l.feed()
	}
	l.ahead += n
	return n, 0, false
}

// reserve marks n messages whatever is marked already: those that try the channel.
func (l *line) reserve(n int) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.ahead += n
}

// resize sets the next window of a quick channel.
func (l *line) resize(n int) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.window = n
}

// done says that the outcomes of n marked messages are stored, or that they are not called.
func (l *line) done(n int) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.ahead -= n
	l.feed()
	l.pool.disclaim()
}

// feed wakes the runners of both lanes that wait.
func (l *line) feed() {
	for _, line := range l.pool.lines {
		for _, f := range line.starved {
			signal(f.wake)
		}
	}
}
