package grpcserver

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// NewStream implements grpc.ClientConnInterface: both ends in this process,
// joined by channels. The handler runs until it returns or ctx ends.
func (c *inprocConn) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	impl, desc, err := c.server.streamMethod(method)
	if err != nil {
		return nil, wireError(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &pipe{
		transport: &inprocTransport{method: method}, cancel: cancel, opts: opts, clientStreams: desc.ClientStreams, shared: c.shared,
		toServer: make(chan proto.Message), toClient: make(chan proto.Message), ended: make(chan struct{}), headerSent: make(chan struct{}),
	}
	p.clientCtx, p.serverCtx = ctx, c.serverContext(ctx, p.transport)
	info := &grpc.StreamServerInfo{FullMethod: method, IsClientStream: desc.ClientStreams, IsServerStream: desc.ServerStreams}
	go func() {
		err := c.server.serveStream(impl, &serverEnd{p}, info, desc.Handler)
		p.end(wireError(err))
	}()
	return &clientEnd{p}, nil
}

// pipe is one stream between the two ends.
type pipe struct {
	transport            *inprocTransport
	clientCtx, serverCtx context.Context
	cancel               context.CancelFunc
	opts                 []grpc.CallOption
	clientStreams        bool
	shared               bool // the client changes no answer
	toServer, toClient   chan proto.Message

	closeOnce, headerOnce sync.Once
	headerSent            chan struct{}
	ended                 chan struct{} // closed after err is set
	err                   error
}

// end is called once, by the handler's goroutine.
func (p *pipe) end(err error) {
	p.err = err
	p.sendHeader()
	p.transport.tell(p.opts)
	close(p.ended)
	p.cancel()
}

func (p *pipe) sendHeader() { p.headerOnce.Do(func() { close(p.headerSent) }) }

// result is what the client reads after the last message.
func (p *pipe) result() error {
	if p.err != nil {
		return p.err
	}
	return io.EOF
}

// clientEnd is the client's side.
type clientEnd struct{ *pipe }

// Header implements grpc.ClientStream.
func (c *clientEnd) Header() (metadata.MD, error) {
	select {
	case <-c.headerSent:
	case <-c.clientCtx.Done():
		<-c.ended
	}
	c.transport.mu.Lock()
	defer c.transport.mu.Unlock()
	return c.transport.header, nil
}

// Trailer implements grpc.ClientStream.
func (c *clientEnd) Trailer() metadata.MD {
	c.transport.mu.Lock()
	defer c.transport.mu.Unlock()
	return c.transport.trailer
}

// CloseSend implements grpc.ClientStream.
func (c *clientEnd) CloseSend() error {
	c.closeOnce.Do(func() { close(c.toServer) })
	return nil
}

// Context implements grpc.ClientStream.
func (c *clientEnd) Context() context.Context { return c.clientCtx }

// SendMsg implements grpc.ClientStream; io.EOF means that the server has ended
// the stream, RecvMsg says why.
func (c *clientEnd) SendMsg(m any) error {
	msg, err := clone(m)
	if err != nil {
		return err
	}
	select {
	case c.toServer <- msg:
		return nil
	case <-c.ended:
		if !c.clientStreams {
			return nil // RecvMsg tells, as over the network
		}
		return io.EOF
	case <-c.clientCtx.Done():
	}
	select {
	case <-c.ended: // ending cancels the context too
		if !c.clientStreams {
			return nil
		}
		return io.EOF
	default:
		return status.FromContextError(c.clientCtx.Err()).Err()
	}
}

// RecvMsg implements grpc.ClientStream.
func (c *clientEnd) RecvMsg(m any) error {
	select {
	case msg := <-c.toClient:
		return shareMessage(m, msg)
	case <-c.ended:
		return c.result()
	case <-c.clientCtx.Done():
	}
	select {
	case <-c.ended: // ending cancels the context too
		return c.result()
	default:
		return status.FromContextError(c.clientCtx.Err()).Err()
	}
}

// serverEnd is the server's side.
type serverEnd struct{ *pipe }

// SetHeader implements grpc.ServerStream.
func (s *serverEnd) SetHeader(md metadata.MD) error { return s.transport.SetHeader(md) }

// SendHeader implements grpc.ServerStream.
func (s *serverEnd) SendHeader(md metadata.MD) error {
	defer s.sendHeader()
	return s.transport.SetHeader(md)
}

// SetTrailer implements grpc.ServerStream.
func (s *serverEnd) SetTrailer(md metadata.MD) { _ = s.transport.SetTrailer(md) } // it cannot fail

// Context implements grpc.ServerStream.
func (s *serverEnd) Context() context.Context { return s.serverCtx }

// SendMsg implements grpc.ServerStream.
func (s *serverEnd) SendMsg(m any) error {
	msg, ok := m.(proto.Message)
	if !ok || !s.shared {
		var err error
		if msg, err = clone(m); err != nil {
			return err
		}
	}
	s.sendHeader()
	select {
	case s.toClient <- msg:
		return nil
	case <-s.serverCtx.Done():
		return status.FromContextError(s.serverCtx.Err()).Err()
	}
}

// RecvMsg implements grpc.ServerStream.
func (s *serverEnd) RecvMsg(m any) error {
	select {
	case msg, ok := <-s.toServer:
		if !ok {
			return io.EOF
		}
		return shareMessage(m, msg)
	case <-s.serverCtx.Done():
		return status.FromContextError(s.serverCtx.Err()).Err()
	}
}

// clone copies a message that its sender may change afterwards; the copy is the
// receiver's alone.
func clone(m any) (proto.Message, error) {
	msg, ok := m.(proto.Message)
	if !ok {
		return nil, status.Errorf(13, "%T is not a message", m)
	}
	return proto.Clone(msg), nil
}
