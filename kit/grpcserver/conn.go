package grpcserver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
)

const (
	// streamsPerConn is how many streams one connection carries before the next one is
	// opened; a server takes four times as many (maxStreams), so no stream waits.
	streamsPerConn = 256
	// maxStreamConns is the most connections with streams to one service.
	maxStreamConns = 64
)

// Conn is how a service is called: unary calls have a connection of their own, streams
// have others, as many as are needed. Streams never take the place of a unary call, and
// no unary call goes on for longer than its deadline, 30 s where it has none, also while
// it waits for a place. It is safe for concurrent use.
type Conn struct {
	*grpc.ClientConn // of unary calls
	dial             func() (*grpc.ClientConn, error)

	mu      sync.Mutex
	closed  bool
	streams []*streamConn
}

// streamConn is a connection that carries streams only.
type streamConn struct {
	*grpc.ClientConn
	open int
}

var _ grpc.ClientConnInterface = (*Conn)(nil)

// Dial prepares the connections to a service; they connect at the first call. target is
// a gRPC target, for example "dns:///account:9000"; service is the identity of the caller,
// empty for one outside of the mesh. Calls spread over all addresses of the name,
// and are retried by their idempotency level only.
func (m Mesh) Dial(target, service string, c clock.Clock) (*Conn, error) {
	return m.open(target, service, c, newLink(service, target, nil, c))
}

func (m Mesh) open(target, service string, c clock.Clock, l *link) (*Conn, error) {
	// What a stream brings is read ahead by a window and no more, however fast it was read
	// before: its sender reads the next page when the last one was taken (ADR 0051).
	dial := func() (*grpc.ClientConn, error) {
		return m.dial(target, service, c, l, grpc.WithStaticStreamWindowSize(streamWindow), grpc.WithStaticConnWindowSize(connWindow))
	}
	unary, err := m.dial(target, service, c, l)
	if err != nil {
		return nil, err
	}
	return &Conn{ClientConn: unary, dial: dial}, nil
}

// Invoke implements grpc.ClientConnInterface.
func (c *Conn) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, unaryLimit)
		defer cancel()
	}
	return c.ClientConn.Invoke(ctx, method, in, out, opts...)
}

// NewStream implements grpc.ClientConnInterface. Above 16 384 streams it fails at once
// with UNAVAILABLE.
func (c *Conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	conn, err := c.take()
	if err != nil {
		return nil, err
	}
	leave := sync.OnceFunc(func() { c.leave(conn) })
	stream, err := conn.NewStream(ctx, desc, method, append(slices.Clip(opts), grpc.OnFinish(func(error) { leave() }))...)
	if err != nil {
		leave()
		return nil, err
	}
	return stream, nil
}

// take finds a connection with room for one more stream, the fullest, so that others can
// become idle.
func (c *Conn) take() (*streamConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found *streamConn
	for _, s := range c.streams {
		if s.open < streamsPerConn && (found == nil || s.open > found.open) {
			found = s
		}
	}
	switch {
	case c.closed:
		return nil, wireError(apierr.New(errorv1.Reason_REASON_CANCELLED, "the connection is closing"))
	case found == nil && len(c.streams) == maxStreamConns:
		return nil, wireError(apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "too many streams are open, try again later").WithRetryAfter(time.Second))
	case found == nil:
		conn, err := c.dial()
		if err != nil {
			return nil, err
		}
		found = &streamConn{ClientConn: conn}
		c.streams = append(c.streams, found)
	}
	found.open++
	return found, nil
}

func (c *Conn) leave(s *streamConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.open--
}

// Close ends all calls.
func (c *Conn) Close() error {
	c.mu.Lock()
	conns := c.streams
	c.streams, c.closed = nil, true
	c.mu.Unlock()
	err := c.ClientConn.Close()
	for _, s := range conns {
		err = errors.Join(err, s.Close())
	}
	return err
}
