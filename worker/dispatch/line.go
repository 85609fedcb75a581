package dispatch

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turumba/turumba/services/messaging/channel"
)

// line is a lane's open connections of a channel: as many calls at once as it has of
// them, whatever its adapter would allow (catalogue F-53).
type line struct {
	sender channel.Sender
	epoch  int64
	slots  chan struct{}
	valve  *valve
	took   prometheus.Observer

	mu sync.Mutex
	// mute is how many calls without an answer keep their connection. One is always left
	// for a message that tries the channel.
	mute int
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

func newLine(sender channel.Sender, epoch int64, connections int, v *valve, took prometheus.Observer) *line {
	return &line{
		sender: sender, epoch: epoch, slots: make(chan struct{}, max(connections, 1)), valve: v, took: took,
		window: window,
	}
}

// connections is how many calls there may be at once.
func (l *line) connections() int { return cap(l.slots) }

// take waits for a connection; false if halt is closed first.
func (l *line) take(halt <-chan struct{}) bool {
	select {
	case l.slots <- struct{}{}:
		return true
	default:
	}
	select {
	case l.slots <- struct{}{}:
		return true
	case <-halt:
		return false
	}
}

func (l *line) free() { <-l.slots }

// silence leaves a connection for others where calls without an answer would have all of
// them; true says that the call's own was given away.
func (l *line) silence() (given bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mute < cap(l.slots)-1 {
		l.mute++
		return false
	}
	l.free()
	return true
}

// answer is the end of a call that was silent and kept its connection.
func (l *line) answer() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute--
	l.free()
}

// join and part count the runners that have messages to mark.
func (l *line) join() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runners++
}

func (l *line) part(f *flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runners--
	if i := slices.Index(l.starved, f); i >= 0 {
		l.starved = slices.Delete(l.starved, i, i+1)
	}
	l.feed()
}

// most is how many messages of a channel that is not quick may be marked.
func (l *line) most() int { return min(2*l.connections(), bulkPerChannel*window) }

// share is how many of them one runner may have marked.
func (l *line) share() int { return max(l.most()/max(l.runners, 1), 1) }

// step is how many messages done are worth a passage of the gate. Half of a share are calls
// that are open; of the others so many should be left when the passage begins that none of
// the connections waits for its end.
func step(share int, gate, latency time.Duration) int {
	begun := 0.5
	if latency > 0 {
		begun = max(0.5-0.75*gate.Seconds()/latency.Seconds(), 0.125)
	}
	return max(int(float64(share)*begun), 1)
}

// passed takes in how long a passage of the gate took.
func (l *line) passed(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if whole {
		if open > 0 {
			return 0, 0, false
		}
		n = min(l.window, want)
		l.ahead += n
		return n, 0, false
	}
	share := l.share()
	enough := step(share, l.gate, latency)
	n = min(share-open, l.most()-(l.ahead-stored), want)
	switch turn := slices.Index(l.starved, f); {
	case open > share-enough:
		return 0, share - enough, false
	case n < min(enough, want), turn != 0 && len(l.starved) > 0:
		if turn < 0 {
			l.starved = append(l.starved, f)
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
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ahead += n
}

// resize sets the next window of a quick channel.
func (l *line) resize(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.window = n
}

// done says that the outcomes of n marked messages are stored, or that they are not called.
func (l *line) done(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ahead -= n
	l.feed()
}

func (l *line) feed() {
	for _, f := range l.starved {
		signal(f.wake)
	}
}
