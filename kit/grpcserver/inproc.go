package grpcserver

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// Conn is a connection to this server from inside the process: no network, the
// full chain. service is the identity of the caller for internal RPCs; empty
// means somebody from outside, such as the gateway on behalf of a user.
func (s *Server) Conn(service string) grpc.ClientConnInterface {
	return s.inproc(service, false)
}

// EdgeConn is the connection of a gateway in the same process, which is somebody from
// outside and only writes answers out.
func (s *Server) EdgeConn() grpc.ClientConnInterface { return s.ReaderConn("") }

// ReaderConn is Conn whose answers are shared with the server, not copied: a list of 50 is
// some 500 objects, a page of recipients as many. Whoever changes an answer needs Conn. The
// server must not change a message that it has sent, as [grpc.ServerStream] says.
func (s *Server) ReaderConn(service string) grpc.ClientConnInterface { return s.inproc(service, true) }

func (s *Server) inproc(service string, shared bool) grpc.ClientConnInterface {
	told := peer.NewContext(context.Background(), &peer.Peer{Addr: inprocAddr{}})
	if service == "" {
		return &inprocConn{server: s, told: told, shared: shared}
	}
	told = context.WithValue(told, inprocServiceKey{}, service)
	return &judgedConn{ClientConnInterface: &inprocConn{server: s, told: told, shared: shared}, link: newLink(service, s.cfg.Name, s.cfg.Logger, s.cfg.Clock)}
}

type inprocConn struct {
	server *Server
	told   context.Context // what the server is told of every call
	shared bool            // answers are
}

// inprocAddr is the peer address of in-process callers.
type inprocAddr struct{}

// Network implements net.Addr.
func (inprocAddr) Network() string { return "inproc" }

// String implements net.Addr.
func (inprocAddr) String() string { return "inproc" }

var _ net.Addr = inprocAddr{}

// callerless is the client's context as a server would see it: its end, none of
// its values.
type callerless struct {
	context.Context
	told context.Context
}

// Value hides the client's values.
func (c callerless) Value(key any) any { return c.told.Value(key) }

// AfterFunc spares the context package a goroutine per derived context.
func (c callerless) AfterFunc(f func()) func() bool { return context.AfterFunc(c.Context, f) }

// serverContext is what arrives at the other side of a network.
func (c *inprocConn) serverContext(ctx context.Context, t *inprocTransport) context.Context {
	t.incoming, _ = metadata.FromOutgoingContext(ctx) // a copy
	if t.incoming == nil {
		t.incoming = metadata.MD{}
	}
	t.parent = trace.SpanContextFromContext(ctx)
	return grpc.NewContextWithServerTransportStream(callerless{ctx, c.told}, t)
}

// inprocTransport carries the metadata of both sides.
type inprocTransport struct {
	method   string
	incoming metadata.MD // the server's from the start of the chain on
	parent   trace.SpanContext

	mu              sync.Mutex
	header, trailer metadata.MD
}

// Method implements grpc.ServerTransportStream.
func (t *inprocTransport) Method() string { return t.method }

// SetHeader implements grpc.ServerTransportStream.
func (t *inprocTransport) SetHeader(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.header == nil {
		t.header = md
		return nil
	}
	t.header = metadata.Join(t.header, md)
	return nil
}

// SendHeader implements grpc.ServerTransportStream.
func (t *inprocTransport) SendHeader(md metadata.MD) error { return t.SetHeader(md) }

// SetTrailer implements grpc.ServerTransportStream.
func (t *inprocTransport) SetTrailer(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trailer = metadata.Join(t.trailer, md)
	return nil
}

// tell gives the caller what it asked for with call options.
func (t *inprocTransport) tell(opts []grpc.CallOption) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = t.header
		case grpc.TrailerCallOption:
			*o.TrailerAddr = t.trailer
		case grpc.PeerCallOption:
			*o.PeerAddr = peer.Peer{Addr: inprocAddr{}}
		}
	}
}

// Invoke implements grpc.ClientConnInterface.
func (c *inprocConn) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	impl, desc, err := c.server.unaryMethod(method)
	if err != nil {
		return wireError(err)
	}
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	// The cap of the chain, where the context package knows the parent: behind
	// callerless the same costs several times as much.
	ctx, cancel := context.WithTimeout(ctx, unaryLimit)
	defer cancel()
	t := &inprocTransport{method: method}
	resp, err := c.server.serveUnary(c.serverContext(ctx, t), &call{
		method: method, service: impl, handler: desc.Handler, copied: func(m any) error { return copyMessage(m, in) },
	})
	t.tell(opts)
	if err != nil {
		return wireError(err)
	}
	if c.shared {
		return wireError(shareMessage(out, resp))
	}
	return wireError(copyMessage(out, resp))
}

// wireError is the error as it would come over the network: a plain status,
// without causes.
func wireError(err error) error {
	if err == nil {
		return nil
	}
	return apierr.From(err).GRPCStatus().Err()
}

// copyMessage copies from into to, so that the two sides share no memory.
func copyMessage(to, from any) error {
	dst, ok1 := to.(proto.Message)
	src, ok2 := from.(proto.Message)
	if !ok1 || !ok2 {
		return apierr.Internal(fmt.Errorf("copy %T into %T: not messages", from, to))
	}
	proto.Reset(dst)
	if dst.ProtoReflect().Descriptor() == src.ProtoReflect().Descriptor() {
		proto.Merge(dst, src)
		return nil
	}
	b, err := proto.Marshal(src)
	if err != nil {
		return apierr.Internal(fmt.Errorf("copy a message: %w", err))
	}
	return proto.Unmarshal(b, dst)
}

// shareMessage gives to the fields of from, and what they point to.
func shareMessage(to, from any) error {
	dst, ok1 := to.(proto.Message)
	src, ok2 := from.(proto.Message)
	if !ok1 || !ok2 || dst.ProtoReflect().Descriptor() != src.ProtoReflect().Descriptor() {
		return copyMessage(to, from)
	}
	proto.Reset(dst)
	m := dst.ProtoReflect()
	src.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		m.Set(fd, v)
		return true
	})
	m.SetUnknown(src.ProtoReflect().GetUnknown())
	return nil
}

func (s *Server) service(method string) (registered, string, error) {
	service, name, ok := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	r, known := s.services[service]
	if !ok || !known {
		return registered{}, "", apierr.New(errorv1.Reason_REASON_NOT_IMPLEMENTED, "no such RPC")
	}
	return r, name, nil
}

func (s *Server) unaryMethod(method string) (impl any, desc *grpc.MethodDesc, err error) {
	r, name, err := s.service(method)
	if err != nil {
		return nil, nil, err
	}
	for i := range r.desc.Methods {
		if r.desc.Methods[i].MethodName == name {
			return r.impl, &r.desc.Methods[i], nil
		}
	}
	return nil, nil, apierr.New(errorv1.Reason_REASON_NOT_IMPLEMENTED, "no such RPC")
}

func (s *Server) streamMethod(method string) (impl any, desc *grpc.StreamDesc, err error) {
	r, name, err := s.service(method)
	if err != nil {
		return nil, nil, err
	}
	for i := range r.desc.Streams {
		if r.desc.Streams[i].StreamName == name {
			return r.impl, &r.desc.Streams[i], nil
		}
	}
	return nil, nil, apierr.New(errorv1.Reason_REASON_NOT_IMPLEMENTED, "no such RPC")
}
