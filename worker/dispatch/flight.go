package dispatch

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// call is one message that is marked as called, until its outcome is taken.
type call struct {
	*postgres.ChunkMessage

	window *sentWindow
	// place is the ordinal that the outcome is stored by: another one in a chunk that the
	// call was set aside in.
	place   int
	outcome messaging.Outcome

	// Of a call that is open, under the flight's lock:
	home  *flight
	at    int // where it is in home.open
	began time.Time
	given bool // it gave its connection away
	// silent calls have been judged: what they say later says nothing of the channel now.
	silent atomic.Bool
}

// flight is the messages of a chunk that are marked as called: those whose turn has not
// come (queued, by ordinal), those that are called (open), and those whose outcome waits to
// be stored (done).
type flight struct {
	line *line
	send func(*call) (o messaging.Outcome, urgent bool)
	// wake has a signal when the runner has something to do.
	wake chan struct{}
	// halt is closed when no further message is called.
	halt chan struct{}
	// calling counts the goroutines that call.
	calling *sync.WaitGroup

	mu      *sync.Mutex // shared by a flight and what was set aside of it
	queued  []*call
	next    int // the first of queued that was not called
	open    []*call
	done    []*call
	taken   []*call // the room of those that were taken last
	callers int
	low     int // the runner wants to know when so many are left of queued and open
}

func newFlight(l *line, calling *sync.WaitGroup, send func(*call) (messaging.Outcome, bool)) *flight {
	return &flight{line: l, send: send, calling: calling, wake: make(chan struct{}, 1), halt: make(chan struct{}), mu: new(sync.Mutex)}
}

// add lets marked messages be called, as many at a time as there are connections.
func (f *flight) add(calls []call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range calls {
		calls[i].home, calls[i].place = f, calls[i].Ordinal
		f.queued = append(f.queued, &calls[i])
	}
	f.spawn()
}

// spawn starts one more goroutine if there is something for it. Each starts the next one
// before its first call, so that calls which wait soon have all of them, and calls which
// do not are done by a few.
func (f *flight) spawn() {
	if f.next < len(f.queued) && f.callers < f.line.connections() {
		f.callers++
		f.calling.Go(f.work)
	}
}

func (f *flight) work() {
	for first := true; f.line.take(f.halt); first = false {
		c := f.begin(first)
		if c == nil {
			f.line.free()
			return
		}
		o, urgent := f.send(c)
		if f.land(c, o, urgent) {
			return // another one may have taken its place
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.callers--
}

// begin takes the next message; nil if there is none, and the caller is one less.
func (f *flight) begin(first bool) *call {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next == len(f.queued) {
		f.callers--
		return nil
	}
	c := f.queued[f.next]
	if f.next++; f.next == len(f.queued) {
		f.queued, f.next = f.queued[:0], 0
	}
	c.began, c.at = c.window.now(), len(f.open)
	f.open = append(f.open, c)
	if first {
		f.spawn()
	}
	return c
}

// land takes in the outcome of a call, in the flight where it belongs by now.
func (f *flight) land(c *call, o messaging.Outcome, urgent bool) (silent bool) {
	f.mu.Lock()
	h := c.home
	h.remove(c)
	c.outcome = o
	h.done = append(h.done, c)
	silent = c.silent.Load()
	given := c.given
	if left := h.count(); left <= h.low || urgent {
		signal(h.wake)
	}
	f.mu.Unlock()
	if silent {
		f.line.answer(given)
	} else {
		f.line.free()
	}
	return silent
}

func (f *flight) remove(c *call) {
	last := len(f.open) - 1
	f.open[c.at], f.open[last].at = f.open[last], c.at
	f.open[last] = nil
	f.open = f.open[:last]
}

// left is how many messages are marked and have no outcome.
func (f *flight) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count()
}

// empty reports whether nothing is marked, and no outcome waits to be taken.
func (f *flight) empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count()+len(f.done) == 0
}

func (f *flight) count() int { return len(f.queued) - f.next + len(f.open) }

// wants says how few may be left before the runner is woken.
func (f *flight) wants(low int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.low = low; f.count() <= low {
		signal(f.wake)
	}
}

// take returns the calls that ended, until it is called again.
func (f *flight) take() []*call {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done, f.taken = f.taken[:0], f.done
	return f.taken
}

// recall takes back what was not called, and lets nothing more be called. from is the
// first ordinal of it, if there is any.
func (f *flight) recall() (from, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.halt:
		return 0, 0
	default:
		close(f.halt)
	}
	if n = len(f.queued) - f.next; n > 0 {
		from = f.queued[f.next].Ordinal
		f.line.done(n)
	}
	f.queued, f.next = nil, 0
	return from, n
}

// oldest is when the oldest open call began that is not silent; zero for none.
func (f *flight) oldest() (began time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.open {
		if !c.silent.Load() && (began.IsZero() || c.began.Before(began)) {
			began = c.began
		}
	}
	return began
}

// setAside moves open calls that began until then into a flight of their own; nil if there
// is none.
func (f *flight) setAside(until time.Time) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	aside := &flight{line: f.line, wake: make(chan struct{}, 1), halt: f.halt, mu: f.mu, low: math.MaxInt}
	for _, c := range slices.Clone(f.open) {
		if c.began.After(until) {
			continue
		}
		f.remove(c)
		c.home, c.at, c.place = aside, len(aside.open), len(aside.open)
		aside.open = append(aside.open, c)
	}
	if len(aside.open) == 0 {
		return nil
	}
	return aside
}

// ids are the messages that were set aside, by place.
func (f *flight) ids() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := make([]string, len(f.open)+len(f.done))
	for _, c := range slices.Concat(f.open, f.done) {
		ids[c.place] = c.ID
	}
	return ids
}

// join takes back what was set aside.
func (f *flight) join(aside *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range aside.open {
		c.home, c.at, c.place = f, len(f.open), c.Ordinal
		f.open = append(f.open, c)
	}
	for _, c := range aside.done {
		c.place = c.Ordinal
		f.done = append(f.done, c)
	}
	aside.open, aside.done = nil, nil
	signal(f.wake)
}

// silence judges open calls that began until then: they leave a connection for others.
func (f *flight) silence(until time.Time) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.open {
		if !c.began.After(until) && !c.silent.Load() {
			c.given = f.line.silence()
			c.silent.Store(true)
			f.line.done(1)
			f.callers--
			n++
		}
	}
	f.spawn()
	return n
}

// callLimits are the contexts of calls. One for each call would cost more than many a
// message.
type callLimits struct {
	work context.Context

	mu    sync.Mutex
	users int             // runners that have open calls; the contexts end with the last
	ctx   context.Context // of calls that begin before until
	until time.Time
	ends  []context.CancelFunc
}

func newLimits(work context.Context) *callLimits { return &callLimits{work: work, users: 1} }

// at is the context of a call that begins now.
func (l *callLimits) at(now time.Time) context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx == nil || now.After(l.until) {
		ctx, end := context.WithTimeout(l.work, sendLimit)
		l.ctx, l.until, l.ends = ctx, now.Add(sameLimit), append(l.ends, end)
	}
	return l.ctx
}

func (l *callLimits) share() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users++
}

func (l *callLimits) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users > 0 {
		return
	}
	for _, end := range l.ends {
		end()
	}
}
