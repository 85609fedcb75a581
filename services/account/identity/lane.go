package identity

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
)

const (
	// maxWait is how long a call may wait for a place; with its own work an answer comes
	// within about 2 s.
	maxWait = 1500 * time.Millisecond
	// mostWaiting is how many calls may wait in a lane: each keeps its request in memory.
	mostWaiting = 512
	// crowd is how many calls of one side or device may be there at once until their refusals
	// are held for a while: who asks on and on would cost more than what is refused.
	crowd = 8
	hold  = time.Second
	// many is of how many the calls are there at once when a crowd is there; then those who
	// have tried something have a quarter of the places, so that the others find both a
	// place and a core that is not busy.
	many = 16
	// fadeAfter is when what somebody has tried counts half.
	fadeAfter = 5 * time.Minute
	// mostTried is of how many is remembered what they tried.
	mostTried = 100_000
)

// ErrBusy is a call that found no place in time.
var ErrBusy = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "too many calls at once").WithRetryAfter(2 * time.Second)

// lanes are the places for calls that have a budget, each kind apart: what one kind costs
// is not missing for another. Who has tried least comes first, so that the many tries of
// some do not hold up the one of somebody else.
type lanes struct {
	clock clock.Clock

	mu     sync.Mutex
	tried  map[Who]int // calls that are here, and those that count
	here   map[Who]int // calls that are here
	fadeAt time.Time
	of     [kinds]lane
}

// kind is what calls are of.
type kind int

const (
	others        kind = iota // they mail, or look for a token
	logins                    // they check a password, mostly
	registrations             // likewise, and anybody can begin one
	kinds
)

// lane is the places of a kind, and who waits for one.
type lane struct {
	places, free int
	waiting      []*waiter // the next first
}

// waiter is a call that waits for its turn. turn is told nil, or why it gets none.
type waiter struct {
	tried int
	turn  chan error
}

// Places are how many calls of those that take long are handled at once.
type Places struct{ Logins, Registrations int }

func newLanes(c clock.Clock, p Places) *lanes {
	l := &lanes{clock: c, tried: map[Who]int{}, here: map[Who]int{}}
	for k, n := range map[kind]int{others: 2 * runtime.GOMAXPROCS(0), logins: p.Logins, registrations: p.Registrations} {
		l.of[k] = lane{places: n, free: n}
	}
	return l
}

// fits reports whether there is a place for somebody who has tried so much.
func (l *lanes) fits(lane *lane, tried int) bool {
	kept := 0
	if tried > 0 && len(l.here) > many {
		kept = lane.places * 3 / 4
	}
	return lane.free > kept
}

// enter waits for a place. leave gives it back, and tells whether the call counts.
func (l *lanes) enter(ctx context.Context, k kind, who Who) (leave func(counts bool), err error) {
	if w := l.wait(k, who); w != nil {
		if err := l.turn(ctx, k, w); err != nil {
			return nil, l.refuse(ctx, who, err) // it counts: who asks again and again comes last
		}
	}
	return func(counts bool) { l.leave(k, who, counts) }, nil
}

// refuse ends a call that has no place, or gave it back, with an error.
func (l *lanes) refuse(ctx context.Context, who Who, err error) error {
	l.mu.Lock()
	crowded := l.here[who] > crowd
	l.mu.Unlock()
	if crowded {
		_ = clock.Sleep(ctx, clock.System(), hold) // or until nobody waits for the answer
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone(who)
	return err
}

// gone forgets a call that was here.
func (l *lanes) gone(who Who) {
	if l.here[who]--; l.here[who] <= 0 {
		delete(l.here, who)
	}
}

// wait takes a place, or the one in the queue that comes after those of who tried as much;
// the last of a full queue gets no turn. nil: there was a place.
func (l *lanes) wait(k kind, who Who) *waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fade()
	tried := l.tried[who]
	l.tried[who]++
	l.here[who]++
	lane := &l.of[k]
	if l.fits(lane, tried) {
		lane.free--
		return nil
	}
	w := &waiter{tried: tried, turn: make(chan error, 1)}
	at := len(lane.waiting)
	for at > 0 && lane.waiting[at-1].tried > tried {
		at--
	}
	lane.waiting = slices.Insert(lane.waiting, at, w)
	if last := len(lane.waiting) - 1; last >= mostWaiting {
		lane.waiting[last].turn <- ErrBusy
		lane.waiting = slices.Delete(lane.waiting, last, last+1)
	}
	return w
}

// turn waits for the turn of w.
func (l *lanes) turn(ctx context.Context, k kind, w *waiter) error {
	waiting, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	select {
	case err := <-w.turn:
		return err
	case <-waiting.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	lane := &l.of[k]
	if i := slices.Index(lane.waiting, w); i >= 0 {
		lane.waiting = slices.Delete(lane.waiting, i, i+1)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return ErrBusy
	}
	return <-w.turn // it came meanwhile
}

// leave ends a call that had a place.
func (l *lanes) leave(k kind, who Who, counts bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone(who)
	l.yield(k, who, counts)
}

// over gives back the place of a call that is refused.
func (l *lanes) over(k kind, who Who) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.yield(k, who, true)
}

// yield gives the place to the next.
func (l *lanes) yield(k kind, who Who, counts bool) {
	if !counts {
		if l.tried[who]--; l.tried[who] <= 0 {
			delete(l.tried, who)
		}
	}
	lane := &l.of[k]
	lane.free++
	for len(lane.waiting) > 0 && l.fits(lane, lane.waiting[0].tried) {
		lane.free--
		lane.waiting[0].turn <- nil
		lane.waiting = slices.Delete(lane.waiting, 0, 1)
	}
}

// fade forgets half of what was tried, now and then, and all of it when it is too much.
func (l *lanes) fade() {
	if len(l.tried) >= mostTried {
		clear(l.tried)
	}
	now := l.clock.Now()
	if now.Before(l.fadeAt) {
		return
	}
	l.fadeAt = now.Add(fadeAfter)
	for who, n := range l.tried {
		if l.tried[who] = n / 2; n/2 == 0 {
			delete(l.tried, who)
		}
	}
}
