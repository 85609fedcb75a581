package dispatch

import (
	"slices"
	"sync"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// The lanes of a channel, as its pool counts them.
const (
	singles = iota // the transactional lane
	sends          // the bulk lane
	lanes
)

func laneOf(name string) int {
	if name == postgres.LaneTransactional {
		return singles
	}
	return sends
}

// keepFrom is how many connections a channel must have for one of them to be kept free for
// single messages at all times: it costs sends less than a tenth then.
const keepFrom = 16

// shares say how the lanes divide a channel's connections (ADR 0052). What a lane does not
// use is lent to the other one, until a call ends and its owner wants it back.
type shares struct {
	all int
	// own is what a lane has in any case while both have work. One connection is both
	// lanes' own, and they take turns.
	own [lanes]int
	// kept connections are never lent to sends.
	kept int
}

func sharesOf(connections int) shares {
	c := messaging.Channel{Connections: int32(max(connections, 1))} //nolint:gosec // at most 64
	transactional, bulk := c.SplitConnections()
	s := shares{all: int(c.Connections), own: [lanes]int{singles: int(transactional), sends: int(bulk)}}
	if s.all >= keepFrom {
		s.kept = 1
	}
	return s
}

// usage is what the lanes have of a pool, and what they want.
type usage struct {
	// open connections are taken, and so many callers wait for one.
	open, waiting [lanes]int
	// mute of the open ones are kept by calls without an answer; given were given back by
	// such calls, which are open all the same.
	mute, given [lanes]int
	last        int // the lane that took one last
	// claimed: a single message that is not marked yet has the next connection of its lane.
	claimed bool
}

func (u *usage) free(s shares) int { return s.all - u.open[singles] - u.open[sends] }

// may reports whether a caller of the lane could take a connection now. A lane beyond its
// own borrows: single messages whatever is free, sends never the kept ones, and nothing
// while calls of theirs are open that gave their connection back.
func (s shares) may(u *usage, lane int) bool {
	free := u.free(s)
	switch {
	case free <= 0:
		return false
	case u.open[lane] < s.own[lane], lane == singles:
		return true
	}
	return u.given[sends] == 0 && free > s.kept-u.open[singles]
}

// next is the lane whose caller takes the next connection; false if none does, or if the
// connection waits for a single message that claimed it. Single messages come first until
// they have their own: the first of them waits for the end of one call at most.
func (s shares) next(u *usage) (lane int, ok bool) {
	lane, ok = s.turn(u)
	return lane, ok && u.waiting[lane] > 0
}

func (s shares) turn(u *usage) (lane int, ok bool) {
	single := (u.waiting[singles] > 0 || u.claimed) && s.may(u, singles)
	bulk := u.waiting[sends] > 0 && s.may(u, sends)
	switch {
	case !single && !bulk:
		return 0, false
	case !bulk:
		return singles, true
	case !single:
		return sends, true
	case s.all == 1:
		return 1 - u.last, true
	case u.open[singles] < s.own[singles]:
		return singles, true
	}
	return sends, true
}

// silent reports whether a call without an answer may keep its connection: one is always
// left to try the channel by, and those of sends leave single messages their own.
func (s shares) silent(u *usage, lane int) (keeps bool) {
	most := s.all - 1
	if lane == sends {
		most = s.own[sends] - 1
	}
	return u.mute[lane] < most && u.mute[singles]+u.mute[sends] < s.all-1
}

// pool is a channel's connections, of which there are never more calls open than it has,
// whatever its adapter would allow (catalogue F-53), and the marks of both lanes.
type pool struct {
	shares
	lines [lanes]*line

	mu     sync.Mutex
	use    usage
	queues [lanes][]chan struct{} // of those that wait, in their order
}

// take waits for a connection; false if halt is closed first.
func (p *pool) take(lane int, halt <-chan struct{}) bool {
	ready, ok := p.ask(lane)
	if ok {
		return true
	}
	select {
	case <-ready:
		return true
	case <-halt:
		p.leave(lane, ready)
		return false
	}
}

// ask takes a connection; if none can be had, ready is closed when one is.
func (p *pool) ask(lane int) (ready chan struct{}, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.use.waiting[lane]++
	// Nobody waits who could have it: that one would have taken it already.
	if next, ok := p.next(&p.use); ok && next == lane {
		p.grant(lane)
		return nil, true
	}
	ready = make(chan struct{})
	p.queues[lane] = append(p.queues[lane], ready)
	return ready, false
}

// grant takes a connection for one that waits.
func (p *pool) grant(lane int) {
	p.use.waiting[lane]--
	p.use.open[lane]++
	p.use.last = lane
	if lane == singles {
		p.use.claimed = false
	}
}

// leave ends the wait of a caller, or gives back what it was given meanwhile.
func (p *pool) leave(lane int, ready chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.queues[lane], ready)
	if i < 0 {
		p.release(lane)
		return
	}
	p.queues[lane] = slices.Delete(p.queues[lane], i, i+1)
	p.use.waiting[lane]--
	p.settle()
}

// claim holds the next connection of single messages for one that waits to be marked. Only
// beside one connection there may be no mark for it.
func (p *pool) claim(lane int) {
	if lane == singles && p.all == 1 {
		p.use.claimed = true
	}
}

// disclaim gives the claim up when nobody is left to use it.
func (p *pool) disclaim() {
	if l := p.lines[singles]; p.use.claimed && l.runners == 0 && l.ahead <= 0 {
		p.use.claimed = false
		p.settle()
	}
}

// free gives a connection back.
func (p *pool) free(lane int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release(lane)
}

func (p *pool) release(lane int) {
	p.use.open[lane]--
	p.settle()
}

// settle hands free connections to those that wait.
func (p *pool) settle() {
	for {
		lane, ok := p.next(&p.use)
		if !ok {
			return
		}
		close(p.queues[lane][0])
		p.queues[lane] = p.queues[lane][1:]
		p.grant(lane)
	}
}

// silence takes note of a call without an answer; true says that its connection was given
// back.
func (p *pool) silence(lane int) (given bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silent(&p.use, lane) {
		p.use.mute[lane]++
		return false
	}
	p.use.given[lane]++
	p.release(lane)
	return true
}

// answer is the end of a call that was silent.
func (p *pool) answer(lane int, given bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if given {
		p.use.given[lane]--
		p.settle()
		return
	}
	p.use.mute[lane]--
	p.release(lane)
}
