package grpcserver

import (
	"context"
	"sync"
	"time"

	"github.com/turumba/turumba/kit/clock"
)

// flushLimit is how long the answers of calls that have ended may take to be read by
// their callers, when the server stops.
const flushLimit = time.Second

// inFlight counts the calls that are being handled.
type inFlight struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed at the next time when there is none; nil while nobody waits
}

func (f *inFlight) enter() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
}

func (f *inFlight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// next is closed at the next time when no call is handled.
func (f *inFlight) next() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.idle != nil {
		return f.idle
	}
	idle := make(chan struct{})
	if f.n == 0 {
		close(idle)
	} else {
		f.idle = idle
	}
	return idle
}

// settled waits until no call has been handled for flushLimit, or ctx ends. What is left
// then is answers that nobody reads, which the transport would wait for.
func (f *inFlight) settled(ctx context.Context, c clock.Clock) {
	for ctx.Err() == nil {
		select {
		case <-f.next():
		case <-ctx.Done():
		}
		if clock.Sleep(ctx, c, flushLimit) != nil {
			return
		}
		select {
		case <-f.next():
			return
		default:
		}
	}
}
