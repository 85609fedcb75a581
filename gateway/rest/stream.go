package rest

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
)

const (
	// MaxStreams is the default of how many streams may be open at the same time. Each
	// holds a connection of HTTP/1.1.
	MaxStreams = 16_384
	// streamDrain is how long streams that end by themselves may take after the stop was
	// asked for. What watches ends at once.
	streamDrain = 2 * time.Second
	// lastLine is how long the last line of a stream that was ended may take to be read.
	lastLine = time.Second
)

var (
	errStopping = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "the service is stopping; open the stream again").WithRetryAfter(time.Second)
	errNoRoom   = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "too many streams are open, try again later").WithRetryAfter(5 * time.Second)
)

// streamWriter is the answer of a stream. It gives one that fails before its first line
// the status of the error's reason; the transcoder knows only that of its gRPC code. A
// client that takes nothing for a minute is given up.
type streamWriter struct {
	http.ResponseWriter
	rc     *http.ResponseController
	now    func() time.Time
	failed int // status of the failure; 0 without one

	mu              sync.Mutex
	stopping, ended bool
}

type (
	streamKey struct{}
	stopKey   struct{}
)

// BaseContext is the one of a http.Server that stops with ctx: its requests may
// finish, its streams are told to end.
func BaseContext(ctx context.Context) context.Context {
	return context.WithValue(context.WithoutCancel(ctx), stopKey{}, ctx)
}

// streamGate serves streamed exchanges: a bounded number of them, until the server stops.
type streamGate struct {
	clock clock.Clock
	most  int64
	open  atomic.Int64
}

// serve serves a streamed exchange of the route.
func (g *streamGate) serve(w http.ResponseWriter, r *http.Request, route *route) {
	defer g.open.Add(-1)
	if g.open.Add(1) > g.most {
		writeError(w, r, errNoRoom)
		return
	}
	s := &streamWriter{ResponseWriter: w, rc: http.NewResponseController(w), now: g.clock.Now}
	defer s.end()
	ctx, cancel := context.WithCancelCause(context.WithValue(r.Context(), streamKey{}, s))
	defer cancel(nil)
	if stop, ok := ctx.Value(stopKey{}).(context.Context); ok {
		defer context.AfterFunc(stop, func() {
			if route.watches() || clock.Sleep(ctx, g.clock, streamDrain) == nil {
				cancel(errStopping)
				s.stop()
			}
		})()
	}
	route.handler.ServeHTTP(s, r.WithContext(ctx))
}

// watches reports whether the route is of an RPC that has no end of its own.
func (s *route) watches() bool {
	return strings.HasPrefix(s.rpc[strings.LastIndexByte(s.rpc, '/')+1:], "Watch")
}

// stopCause is why the streams of ctx were ended; nil when they were not.
func stopCause(ctx context.Context) error {
	var stopped *apierr.Error
	if ctx.Err() != nil && errors.As(context.Cause(ctx), &stopped) {
		return stopped
	}
	return nil
}

// Write implements http.ResponseWriter.
func (s *streamWriter) Write(p []byte) (int, error) {
	s.allow(idleLimit)
	return s.ResponseWriter.Write(p)
}

// allow sets the limit of the next writes; a writer without deadlines (tests) is served
// without.
func (s *streamWriter) allow(limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		limit = lastLine
	}
	_ = s.rc.SetWriteDeadline(s.now().Add(limit))
}

// stop lets go of a client that neither reads nor sends.
func (s *streamWriter) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return // the connection serves another request
	}
	s.stopping = true
	_ = s.rc.SetReadDeadline(s.now())
	_ = s.rc.SetWriteDeadline(s.now().Add(lastLine))
}

func (s *streamWriter) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

// WriteHeader implements http.ResponseWriter.
func (s *streamWriter) WriteHeader(code int) {
	if s.failed != 0 {
		code = s.failed
	}
	s.ResponseWriter.WriteHeader(code)
}

// Flush implements http.Flusher, which the transcoder asks for.
func (s *streamWriter) Flush() {
	_ = s.rc.Flush() // the client went away; the next write tells
}

// Unwrap lets http.ResponseController through.
func (s *streamWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// handleStreamError is the transcoder's handler of errors in streams.
func handleStreamError(ctx context.Context, err error) *status.Status {
	if stopped := stopCause(ctx); stopped != nil {
		err = stopped
	}
	e := restError(err)
	st := runtime.DefaultStreamErrorHandler(ctx, e.GRPCStatus().Err())
	s, ok := ctx.Value(streamKey{}).(*streamWriter)
	if !ok {
		return st
	}
	s.failed = apierr.HTTPStatus(e.Reason)
	retryAfter(s.Header(), e) // too late after the first line
	// The marshaler of the error line knows nothing but the status.
	if with, err := st.WithDetails(&errdetails.RequestInfo{RequestId: s.Header().Get(headerRequestID)}); err == nil {
		st = with
	}
	return st
}

// retryAfter tells when to try again, where that is known.
func retryAfter(h http.Header, e *apierr.Error) {
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
}
