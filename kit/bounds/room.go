package bounds

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/turumba/turumba/kit/clock"
)

// Room is how much of a thing the requests of a face of the product may have at once. A
// request that finds none waits. Small requests have room of their own, and never wait for
// large ones; no caller can fill either alone.
type Room struct {
	of           Measure
	small, large *shares
}

// Measure is how large a room is, in a unit of its own. All callers have All at once, in
// small requests and in large ones each, and each caller One.
type Measure struct {
	All       int64
	One       int64 // no less than the largest request has to have
	Small     int64 // a small request has so much at most
	Uncounted int64 // a request of so much costs nothing worth counting
}

// Values is the room of what requests become: few bytes become much in memory, half a KiB
// to one KiB a value until the answer is made.
var Values = Measure{All: MaxValues, One: MaxValues / 2, Small: 4096, Uncounted: 64}

// Bytes is the room of what is read of requests until it is decoded: two of the largest
// bodies for one caller.
var Bytes = Measure{All: 64 << 20, One: 16 << 20, Small: 1 << 20, Uncounted: 64 << 10}

// NewRoom is an empty room.
func NewRoom(m Measure) *Room {
	return &Room{of: m, small: newShares(m), large: newShares(m)}
}

// Take waits for room for n of a caller's, until ctx ends. A request of more than one
// caller may have counts as so many.
func (r *Room) Take(ctx context.Context, caller string, n int64) (*Held, error) {
	s, n := r.shares(n)
	if s == nil {
		return nil, nil //nolint:nilnil // what is not counted holds nothing
	}
	own := s.enter(caller)
	own.waiting.Add(1)
	defer own.waiting.Add(-1)
	if err := own.room.Acquire(ctx, n); err != nil {
		s.exit(caller, own)
		return nil, err
	}
	if err := s.acquire(ctx, n); err != nil {
		own.room.Release(n)
		s.exit(caller, own)
		return nil, err
	}
	return &Held{of: s, own: own, caller: caller, n: n}, nil
}

// Try is Take for who does not wait; it reports whether there was room.
func (r *Room) Try(caller string, n int64) (*Held, bool) {
	s, n := r.shares(n)
	if s == nil {
		return nil, true
	}
	own := s.enter(caller)
	if own.room.TryAcquire(n) {
		if s.all.TryAcquire(n) {
			return &Held{of: s, own: own, caller: caller, n: n}, true
		}
		own.room.Release(n)
	}
	s.exit(caller, own)
	return nil, false
}

// Waits reports whether somebody waits for room for as much as n of the caller's.
func (r *Room) Waits(caller string, n int64) bool {
	s, _ := r.shares(n)
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.callers[caller]
	return own != nil && own.waiting.Load() > 0
}

// shares are those that a request of n takes of, and how much; nil where it is not counted.
func (r *Room) shares(n int64) (*shares, int64) {
	switch {
	case n <= r.of.Uncounted:
		return nil, 0
	case n <= r.of.Small:
		return r.small, n
	}
	return r.large, min(n, r.of.One)
}

// Held is room that a request has. A nil one holds nothing.
type Held struct {
	of     *shares
	own    *share
	caller string

	mu   sync.Mutex
	n    int64
	left bool
}

// Sent tells that what has the room is only waiting for its reader, from now on. cut ends
// that, at once and without waiting itself, when somebody else waits for room and the
// reader takes longer than patience and slowRate allow. It is not called after Leave.
func (h *Held) Sent(cut func()) {
	if h == nil {
		return
	}
	h.mu.Lock()
	over := clock.System().Now().Add(patience + time.Duration(h.n)*time.Second/slowRate)
	h.mu.Unlock()
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	h.of.sent[h] = reader{cut: cut, over: over}
}

// Keep gives back what is more than n.
func (h *Held) Keep(n int64) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n <= n {
		return
	}
	h.of.all.Release(h.n - n)
	h.own.room.Release(h.n - n)
	h.n = n
}

// Leave gives all of it back; a second time does nothing.
func (h *Held) Leave() {
	if h == nil {
		return
	}
	h.Keep(0)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.left {
		h.left = true
		h.of.unsent(h)
		h.of.exit(h.caller, h.own)
	}
}

// shares is room that no caller can fill alone.
type shares struct {
	one int64
	all *semaphore.Weighted

	mu      sync.Mutex
	callers map[string]*share
	sent    map[*Held]reader
}

// reader is who what was sent waits for.
type reader struct {
	cut  func()
	over time.Time // from when on it may be cut
}

const (
	// patience and slowRate, in bytes a second, are what slow readers have while others wait
	// for the room of what they read.
	patience = 2 * time.Second
	slowRate = 1 << 20
	// cutEvery is how often who waits for room looks for somebody too slow.
	cutEvery = 250 * time.Millisecond
)

// share is what one caller has of it.
type share struct {
	room  *semaphore.Weighted
	users int // requests that have some of it or wait for it

	waiting atomic.Int32 // requests that wait
}

func newShares(m Measure) *shares {
	return &shares{one: m.One, all: semaphore.NewWeighted(m.All), callers: map[string]*share{}, sent: map[*Held]reader{}}
}

// acquire waits for room of all, if need be that of readers who are too slow.
func (s *shares) acquire(ctx context.Context, n int64) error {
	if s.all.TryAcquire(n) {
		return nil
	}
	acquired := make(chan error, 1)
	go func() { acquired <- s.all.Acquire(ctx, n) }()
	for {
		timer := clock.System().NewTimer(cutEvery)
		select {
		case err := <-acquired:
			timer.Stop()
			return err
		case now := <-timer.C():
			s.cutSlowest(now)
		}
	}
}

// cutSlowest ends the reading of who should have ended first.
func (s *shares) cutSlowest(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var slowest *Held
	for h, r := range s.sent {
		if r.over.Before(now) && (slowest == nil || r.over.Before(s.sent[slowest].over)) {
			slowest = h
		}
	}
	if slowest != nil {
		s.sent[slowest].cut()
		delete(s.sent, slowest)
	}
}

func (s *shares) unsent(h *Held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sent, h)
}

func (s *shares) enter(caller string) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.callers[caller]
	if own == nil {
		own = &share{room: semaphore.NewWeighted(s.one)}
		s.callers[caller] = own
	}
	own.users++
	return own
}

func (s *shares) exit(caller string, own *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own.users--; own.users == 0 {
		delete(s.callers, caller)
	}
}
