package grpcserver

import (
	"context"
	"hash/fnv"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/streams"
)

const (
	streamIdle  = 60 * time.Second // without a message either way
	streamGrace = 60 * time.Second // after the token has expired
	streamLook  = 15 * time.Second // between two looks at whether its caller still may
	// unwindLimit is how long the handler of a stream that was ended has to return, before
	// its caller is told without it: a handler that waits for a caller who does not read
	// goes on when the transport has ended the stream.
	unwindLimit = time.Second
)

// limitStream gives a stream its place and ends it when it is idle, when its token has
// expired or its caller may not open it any more, and when the server stops.
func (s *Server) limitStream(c *call, ss grpc.ServerStream) error {
	place, err := s.place(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(streams.WithPlace(ss.Context(), place))
	defer cancel(nil)
	w := &watchedStream{ServerStream: ss, ctx: ctx, now: s.cfg.Clock.Now}
	w.touch()
	c.received = w.touch
	stop, left, err := s.open.begin(ctx, c.method)
	if err != nil {
		place.Release(streams.Refused)
		return err
	}
	ended := make(chan error, 1)
	go func() {
		defer left()
		err := s.recoverStream(c, w)
		place.Release(endOf(ss, w, err))
		ended <- err
	}()
	cause, err := s.watch(w, c, place, stop, ended)
	if cause == nil {
		return err
	}
	cancel(cause)
	unwound := s.cfg.Clock.NewTimer(unwindLimit)
	defer unwound.Stop()
	select {
	case err := <-ended:
		if err == nil || ss.Context().Err() != nil {
			return err // it came to its own end
		}
	case <-unwound.C():
	}
	return cause
}

// endOf is how a stream ended whose handler returned err.
func endOf(ss grpc.ServerStream, w *watchedStream, err error) streams.End {
	switch {
	case ss.Context().Err() != nil:
		return streams.Left
	case err != nil && !w.sent.Load():
		return streams.Refused
	}
	return streams.Ended
}

// place is the stream's among those that may be open. Services of the mesh need none:
// nobody's streams hold up what the product itself does.
func (s *Server) place(c *call) (*streams.Place, error) {
	if c.Caller.Service != "" {
		return &streams.Place{}, nil
	}
	return s.places.Take(callerKey(c), c.Scope, c.rule.streams && c.rule.reads)
}

// callerKey tells callers apart: a user, whatever the token, an API key, a subject
// without a user, a side.
func callerKey(c *call) string {
	caller := c.Caller
	switch {
	case caller.UserID != "":
		return "user " + caller.UserID
	case caller.APIKeyID != "":
		return "key " + caller.APIKeyID
	case caller.Subject != "":
		return "subject " + caller.Issuer + " " + caller.Subject
	}
	return "side " + c.Client.Side().String()
}

// watch waits for the end of the handler, or for a reason to end the stream.
func (s *Server) watch(w *watchedStream, c *call, place *streams.Place, stop <-chan struct{}, ended <-chan error) (cause, err error) {
	r := &recheck{stream: w, caller: c, may: func() error { return s.mayStill(w.ctx, c, place) }, answer: make(chan error, 1)}
	r.plan()
	for {
		wait, over := w.left(c.Caller)
		if over != nil {
			return over, nil
		}
		timer := s.cfg.Clock.NewTimer(min(wait, r.wait()))
		select {
		case err := <-ended:
			timer.Stop()
			return nil, err
		case <-stop:
			timer.Stop()
			return errStopping, nil
		case over := <-r.answer:
			timer.Stop()
			if over != nil {
				return over, nil
			}
			r.plan()
		case <-timer.C():
			r.ask()
		}
	}
}

// recheck asks, time after time, whether the caller of a stream still may. A stream without a
// token has nobody to ask about.
type recheck struct {
	stream *watchedStream
	caller *call
	may    func() error
	answer chan error // of the one that is on its way
	asked  bool
	next   time.Time
}

func (r *recheck) plan() { r.asked, r.next = false, nextLook(r.stream.now(), r.caller) }

// wait is how long there is nothing to ask.
func (r *recheck) wait() time.Duration {
	if r.asked || r.caller.Token == "" {
		return streamIdle
	}
	return r.next.Sub(r.stream.now())
}

// ask asks if it is time to, beside the stream: who knows may take long.
func (r *recheck) ask() {
	if r.wait() <= 0 {
		r.asked = true
		go func() { r.answer <- r.may() }()
	}
}

// nextLook is when a stream looks whether its caller still may: all streams of a caller at
// the same time, so that they ask once, and those of others at another.
func nextLook(now time.Time, c *call) time.Time {
	key := fnv.New64a()
	_, _ = key.Write([]byte(callerKey(c))) // it never fails
	phase := time.Duration(key.Sum64() % uint64(streamLook))
	since := (time.Duration(now.UnixNano()) + phase) % streamLook
	return now.Add(streamLook - since)
}

// mayStill reports why a stream may not go on: its session or key is over, or its caller
// lost the permission in the account that it is about (in one of its accounts, where that
// is not known).
func (s *Server) mayStill(ctx context.Context, c *call, place *streams.Place) error {
	now := &call{rule: c.rule, claims: c.claims}
	now.Token = c.Token
	if _, err := s.enrich(ctx, now); err != nil {
		return err
	}
	if _, err := authorise(ctx, now); err != nil {
		return err
	}
	about := c.Scope
	if account := place.Settled(); account != "" {
		about = []string{account}
	}
	for _, account := range about {
		if !slices.Contains(now.Scope, account) {
			return denied()
		}
	}
	return nil
}

// watchedStream notes when the last message passed.
type watchedStream struct {
	grpc.ServerStream
	ctx  context.Context
	now  func() time.Time
	last atomic.Int64
	sent atomic.Bool // a message
}

// left is how long the stream may go on without a message, or why it may not.
func (w *watchedStream) left(caller auth.Caller) (time.Duration, error) {
	now := w.now()
	wait := time.Unix(0, w.last.Load()).Add(streamIdle).Sub(now)
	if wait <= 0 {
		return 0, apierr.New(errorv1.Reason_REASON_DEADLINE_EXCEEDED, "the stream was idle for 60 s")
	}
	if caller.TokenExpiry.IsZero() {
		return wait, nil
	}
	left := caller.TokenExpiry.Add(streamGrace).Sub(now)
	if left <= 0 {
		return 0, apierr.New(errorv1.Reason_REASON_UNAUTHENTICATED, "the token has expired")
	}
	return min(wait, left), nil
}

func (w *watchedStream) touch() { w.last.Store(w.now().UnixNano()) }

// Context implements grpc.ServerStream.
func (w *watchedStream) Context() context.Context { return w.ctx }

// SendMsg implements grpc.ServerStream.
func (w *watchedStream) SendMsg(m any) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	w.touch()
	w.sent.Store(true)
	return w.ServerStream.SendMsg(m)
}

// RecvMsg implements grpc.ServerStream.
func (w *watchedStream) RecvMsg(m any) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	err := w.ServerStream.RecvMsg(m)
	w.touch()
	return err
}
