package bounds

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Room is how many values the requests of a face of the product may be made of at once:
// few bytes become much in memory, half a KiB to one KiB a value until the answer is made.
// A request that finds none waits. Small requests have room of their own, and never wait
// for large ones.
type Room struct{ small, large *shares }

const (
	// uncounted: requests of so few values cost nothing worth counting.
	uncounted = 64
	// smallRequest is how many values a small request has at most.
	smallRequest = 4096
	// ofOne is how many values all requests of one caller may have at once, small ones and
	// large ones each; ofAll is how many those of all callers may.
	ofOne = MaxValues / 2
	ofAll = MaxValues
)

// NewRoom is all of the room.
func NewRoom() *Room { return &Room{small: newShares(), large: newShares()} }

// Take waits for room for a caller's request of n values, until ctx ends; leave gives it
// back. A request of more values than one caller may have counts as so many.
func (r *Room) Take(ctx context.Context, caller string, n int) (leave func(), err error) {
	switch {
	case n <= uncounted:
		return func() {}, nil
	case n <= smallRequest:
		return r.small.take(ctx, caller, int64(n))
	}
	return r.large.take(ctx, caller, int64(min(n, ofOne)))
}

// shares is room that no caller can fill alone.
type shares struct {
	all *semaphore.Weighted

	mu      sync.Mutex
	callers map[string]*share
}

// share is what one caller has of it.
type share struct {
	room  *semaphore.Weighted
	users int // requests that have some of it or wait for it
}

func newShares() *shares {
	return &shares{all: semaphore.NewWeighted(ofAll), callers: map[string]*share{}}
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
		own = &share{room: semaphore.NewWeighted(ofOne)}
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
