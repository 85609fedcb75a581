package grpcserver

import (
	"context"
	"strings"
	"sync"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
)

// streamDrain is how long streams that come to an end by themselves may take after the
// stop was asked for: files, messages, recipients. What watches ends at once.
const streamDrain = 2 * time.Second

// errStopping ends the streams of a server that stops.
var errStopping = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "the service is stopping; open the stream again").WithRetryAfter(time.Second)

// openStreams are the streams of a server, and how they are told to end.
type openStreams struct {
	watches, others chan struct{} // closed when they shall end

	mu       sync.Mutex
	n        int
	stopping bool
	none     chan struct{} // closed when no handler is left of a server that stops
}

func newOpenStreams() *openStreams {
	return &openStreams{watches: make(chan struct{}), others: make(chan struct{}), none: make(chan struct{})}
}

// begin counts a handler until left is called. stop is closed when its stream shall end.
// A server that stops takes no more streams, except those of services in its own
// process: calls that may finish need them, and they end with the services.
func (o *openStreams) begin(ctx context.Context, fullMethod string) (stop <-chan struct{}, left func(), err error) {
	if name, ok := ctx.Value(inprocServiceKey{}).(string); ok && name != "" {
		return nil, func() {}, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopping {
		return nil, nil, errStopping
	}
	o.n++
	if watches(fullMethod) {
		return o.watches, o.leave, nil
	}
	return o.others, o.leave, nil
}

func (o *openStreams) leave() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n--; o.n == 0 && o.stopping {
		close(o.none)
	}
}

// watches reports whether an RPC is one that has no end of its own. The contract calls
// these, and no others, Watch…; a test holds it to that.
func watches(fullMethod string) bool {
	return strings.HasPrefix(fullMethod[strings.LastIndexByte(fullMethod, '/')+1:], "Watch")
}

// stop refuses new streams and ends what watches; false when that was done before.
func (o *openStreams) stop() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopping {
		return false
	}
	o.stopping = true
	close(o.watches)
	if o.n == 0 {
		close(o.none)
	}
	return true
}

// drain ends the streams: what watches at once, the rest after streamDrain, with
// UNAVAILABLE and RetryInfo. It returns when their handlers have returned, or with ctx.
func (o *openStreams) drain(ctx context.Context, c clock.Clock) {
	if !o.stop() {
		return
	}
	timer := c.NewTimer(streamDrain)
	defer timer.Stop()
	select {
	case <-o.none:
	case <-timer.C():
	case <-ctx.Done():
	}
	close(o.others)
	select {
	case <-o.none:
	case <-ctx.Done():
	}
}
