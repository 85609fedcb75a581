package grpcserver

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

const (
	streamIdle  = 60 * time.Second // without a message either way
	streamGrace = 60 * time.Second // after the token has expired
)

// limitStream ends a stream that is idle, and one whose token has expired.
func (s *Server) limitStream(c *call, ss grpc.ServerStream) error {
	ctx, cancel := context.WithCancelCause(ss.Context())
	w := &watchedStream{ServerStream: ss, ctx: ctx, now: s.cfg.Clock.Now}
	w.touch()
	done := make(chan struct{})
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		s.watch(w, c.Caller.TokenExpiry, cancel, done)
	}()
	err := c.nextStream(w)
	close(done)
	<-watching
	if cause := context.Cause(ctx); err != nil && cause != nil && ss.Context().Err() == nil {
		err = cause
	}
	cancel(nil)
	return err
}

// watch cancels the stream at its limits; done ends the watch.
func (s *Server) watch(w *watchedStream, expiry time.Time, cancel context.CancelCauseFunc, done <-chan struct{}) {
	for {
		now := s.cfg.Clock.Now()
		wait := time.Unix(0, w.last.Load()).Add(streamIdle).Sub(now)
		if wait <= 0 {
			cancel(apierr.New(errorv1.Reason_REASON_DEADLINE_EXCEEDED, "the stream was idle for 60 s"))
			return
		}
		if !expiry.IsZero() {
			left := expiry.Add(streamGrace).Sub(now)
			if left <= 0 {
				cancel(apierr.New(errorv1.Reason_REASON_UNAUTHENTICATED, "the token has expired"))
				return
			}
			wait = min(wait, left)
		}
		timer := s.cfg.Clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-done:
			timer.Stop()
			return
		}
	}
}

// watchedStream notes when the last message passed.
type watchedStream struct {
	grpc.ServerStream
	ctx  context.Context
	now  func() time.Time
	last atomic.Int64
}

func (w *watchedStream) touch() { w.last.Store(w.now().UnixNano()) }

// Context implements grpc.ServerStream.
func (w *watchedStream) Context() context.Context { return w.ctx }

// SendMsg implements grpc.ServerStream.
func (w *watchedStream) SendMsg(m any) error {
	w.touch()
	return w.ServerStream.SendMsg(m)
}

// RecvMsg implements grpc.ServerStream.
func (w *watchedStream) RecvMsg(m any) error {
	err := w.ServerStream.RecvMsg(m)
	w.touch()
	return err
}
