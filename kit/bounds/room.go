package bounds

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
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

// Take waits for room for n of a caller's, until ctx ends; leave gives it back. A request of
// more than one caller may have counts as so many.
func (r *Room) Take(ctx context.Context, caller string, n int64) (leave func(), err error) {
	switch {
	case n <= r.of.Uncounted:
		return func() {}, nil
	case n <= r.of.Small:
		return r.small.take(ctx, caller, n)
	}
	return r.large.take(ctx, caller, min(n, r.of.One))
}

// shares is room that no caller can fill alone.
type shares struct {
	one int64
	all *semaphore.Weighted

	mu      sync.Mutex
	callers map[string]*share
}

// share is what one caller has of it.
type share struct {
	room  *semaphore.Weighted
	users int // requests that have some of it or wait for it
}

func newShares(m Measure) *shares {
	return &shares{one: m.One, all: semaphore.NewWeighted(m.All), callers: map[string]*share{}}
}

func (s *shares) take(ctx context.Context, caller string, n int64) (leave func(), err error) {
	own := s.enter(caller)
	if err := own.room.Acquire(ctx, n); err != nil {
		s.exit(caller, own)
		return nil, err
	}
	if err := s.all.Acquire(ctx, n); err != nil {
		own.room.Release(n)
		s.exit(caller, own)
		return nil, err
	}
	return sync.OnceFunc(func() {
		s.all.Release(n)
		own.room.Release(n)
		s.exit(caller, own)
	}), nil
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
