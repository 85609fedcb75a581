package clock

import (
	"context"
	"sort"
	"sync"
	"time"
)

// Fake is a Clock that stands still until a test moves it. It is safe for
// concurrent use.
type Fake struct {
	mu      sync.Mutex
	now     time.Time
	pending []*fakeTimer
	changed chan struct{}
}

// NewFake returns a Fake that shows t.
func NewFake(t time.Time) *Fake {
	return &Fake{now: t, changed: make(chan struct{})}
}

// Now returns the time the fake shows.
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// NewTimer returns a timer that fires when Advance or Set reaches its time.
func (f *Fake) NewTimer(d time.Duration) Timer {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &fakeTimer{clock: f, at: f.now.Add(d), c: make(chan time.Time, 1)}
	if d <= 0 {
		t.c <- f.now
		return t
	}
	f.pending = append(f.pending, t)
	f.signal()
	return t
}

// Advance moves the clock forward by d and fires the timers that became due,
// earliest first.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moveTo(f.now.Add(d))
}

// Set moves the clock to t, which may lie in the past, and fires the timers
// that are due at t.
func (f *Fake) Set(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moveTo(t)
}

// Timers returns the number of timers that have neither fired nor been stopped.
func (f *Fake) Timers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pending)
}

// WaitForTimers blocks until at least n timers are pending, so a test can move
// the clock knowing that the code under test is waiting for it. It returns
// ctx.Err() if ctx ends first.
func (f *Fake) WaitForTimers(ctx context.Context, n int) error {
	for {
		f.mu.Lock()
		enough, changed := len(f.pending) >= n, f.changed
		f.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// moveTo sets the time and fires what is due. The caller holds f.mu.
func (f *Fake) moveTo(t time.Time) {
	f.now = t
	sort.SliceStable(f.pending, func(i, j int) bool { return f.pending[i].at.Before(f.pending[j].at) })
	due := 0
	for due < len(f.pending) && !f.pending[due].at.After(t) {
		f.pending[due].c <- t
		due++
	}
	f.pending = append([]*fakeTimer(nil), f.pending[due:]...)
	f.signal()
}

// signal wakes everyone in WaitForTimers. The caller holds f.mu.
func (f *Fake) signal() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// remove drops a pending timer and reports whether it was there.
func (f *Fake) remove(t *fakeTimer) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, p := range f.pending {
		if p == t {
			f.pending = append(f.pending[:i:i], f.pending[i+1:]...)
			f.signal()
			return true
		}
	}
	return false
}

type fakeTimer struct {
	clock *Fake
	at    time.Time
	c     chan time.Time
}

func (t *fakeTimer) C() <-chan time.Time { return t.c }

func (t *fakeTimer) Stop() bool { return t.clock.remove(t) }
