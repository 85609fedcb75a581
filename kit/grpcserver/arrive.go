package grpcserver

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

const (
	// maxArriving is how many calls of one listener may be there whose caller is not known
	// yet: each has a goroutine and up to maxHeaders of headers. Their connections are read
	// no further until there is a place again, for arriveWait at most.
	maxArriving = 64
	arriveWait  = 250 * time.Millisecond
)

var errBusy = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "too many calls at once").WithRetryAfter(time.Second)

// arrivals are the places for calls whose caller is not known yet.
type arrivals struct {
	places *semaphore.Weighted
	server *Server // knows who is of the mesh
}

func newArrivals(s *Server) *arrivals {
	return &arrivals{places: semaphore.NewWeighted(maxArriving), server: s}
}

type arrivalKey struct{}

// arrival is a place that a call has.
type arrival struct {
	of     *arrivals
	header metadata.MD // as the transport keeps it
	gone   atomic.Bool
	stop   func() bool
}

// leave gives the place back, once; it reports whether this was the time.
func (a *arrival) leave() bool {
	if !a.gone.CompareAndSwap(false, true) {
		return false
	}
	a.of.places.Release(1)
	return true
}

// tap gives a call its place before anything of it is kept but its headers. It runs
// where the frames of the connection are read, so that waiting holds them back. Services
// of the mesh need no place when there is none: strangers must not keep them out.
func (q *arrivals) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if !q.places.TryAcquire(1) {
		if first(info.Header, serviceHeader) != "" && q.server.fromService(ctx, info.Header) {
			return ctx, nil
		}
		waiting, cancel := context.WithTimeout(ctx, arriveWait)
		defer cancel()
		if err := q.places.Acquire(waiting, 1); err != nil {
			return nil, wireError(errBusy)
		}
	}
	a := &arrival{of: q, header: info.Header}
	ctx = context.WithValue(ctx, arrivalKey{}, a)
	a.stop = context.AfterFunc(ctx, func() { a.leave() }) // a call that no chain sees has an end, too
	return ctx, nil
}

// taken leaves it to the chain when a call gives its place back: the end of its stream
// does not end what runs for it.
func taken(ctx context.Context) {
	if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok {
		a.stop()
	}
}

// refused gives back the place of a call whose caller was never known, and lets its
// headers go: the transport keeps the stream until its last frame is written.
func refused(ctx context.Context) {
	if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok && a.leave() {
		clear(a.header)
	}
}

// arrive is the gate of the chain behind which a call has a known caller. A call of a
// public RPC never has one, and keeps its place until its message is read.
func arrive(ctx context.Context, c *call) (context.Context, error) {
	if !c.rule.auth.GetPublic() {
		arrived(ctx)
	}
	return ctx, nil
}

// arrived gives back the place of a call.
func arrived(ctx context.Context) {
	if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok {
		a.leave()
	}
}
