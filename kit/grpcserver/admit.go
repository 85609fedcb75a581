package grpcserver

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
)

// checkOnly is the metadata of a call that only asks whether it would be let in: the
// chain answers after the permission of the RPC, and reads no message.
const checkOnly = "x-check-only"

// Admit asks the server behind conn whether the call of ctx (its outgoing metadata) may
// make the RPC: token, session, permission and account are looked at, nothing else. A
// gateway asks before it reads a body (ADR 0041). The errors are those of the call.
//
// No message is sent: a server that does not know the question cannot take it for a call.
func Admit(ctx context.Context, conn grpc.ClientConnInterface, method string) error {
	if c, ok := conn.(interface {
		Admit(ctx context.Context, method string) error
	}); ok {
		return c.Admit(ctx, method)
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, checkOnly, "1"))
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

// Admit is the question within the process; streams are asked by the same steps as other
// calls.
func (c *inprocConn) Admit(ctx context.Context, method string) error {
	if _, _, err := c.server.service(method); err != nil {
		return wireError(err)
	}
	ctx, cancel := context.WithTimeout(ctx, unaryLimit)
	defer cancel()
	t := &inprocTransport{method: method}
	_, err := c.server.serveUnary(c.serverContext(ctx, t), &call{method: method, asks: true})
	return wireError(err)
}

// admitUnary ends a call that only asks.
func (s *Server) admitUnary(ctx context.Context, c *call, req any) (any, error) {
	if c.asks {
		return &emptypb.Empty{}, nil
	}
	return c.next(ctx, req)
}

func (s *Server) admitStream(c *call, ss grpc.ServerStream) error {
	if c.asks {
		return ss.SendMsg(&emptypb.Empty{})
	}
	return c.nextStream(ss)
}

// gated is the service for a listener: its unary handlers run the chain before they
// read the request, which interceptors of gRPC cannot. calls counts those in hand.
func (s *Server) gated(desc *grpc.ServiceDesc, calls *inFlight) *grpc.ServiceDesc {
	out := *desc
	out.Methods, out.Streams = nil, slices.Clone(desc.Streams)
	for _, m := range desc.Methods {
		method := "/" + desc.ServiceName + "/" + m.MethodName
		if r := s.rules[method]; r != nil && r.long {
			out.Streams = append(out.Streams, grpc.StreamDesc{StreamName: m.MethodName, Handler: func(srv any, ss grpc.ServerStream) error {
				return s.unary(srv, ss, &call{method: method, handler: m.Handler})
			}})
			continue
		}
		out.Methods = append(out.Methods, grpc.MethodDesc{MethodName: m.MethodName, Handler: func(srv any, ctx context.Context, _ func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			calls.enter()
			defer calls.leave()
			return s.serveUnary(ctx, &call{method: method, service: srv, handler: m.Handler})
		}})
	}
	return &out
}

// Calls of public RPCs whose message has not come yet cost a goroutine and their headers,
// and nobody is known who made them. So many may wait, from one side and in all;
// services of the mesh have the message when they call, and do not count.
const (
	strangersBySide = 8
	strangersInAll  = maxArriving / 2
)

// strangers counts calls of public RPCs that wait for their message.
type strangers struct {
	mu    sync.Mutex
	total int
	by    map[auth.Side]int
}

func (s *strangers) enter(side auth.Side) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[auth.Side]int{}
	}
	if s.total >= strangersInAll || s.by[side] >= strangersBySide {
		return false
	}
	s.total++
	s.by[side]++
	return true
}

func (s *strangers) leave(side auth.Side) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.by[side]--; s.by[side] == 0 {
		delete(s.by, side)
	}
}

var errManyStrangers = apierr.RateLimited(time.Second, "too many calls wait for their message")

// patience ends the wait for messages when ctx ends, which a read from the transport
// does not look at; somebody without a token has strangerLimit. done ends the patience.
func (s *Server) patience(ctx context.Context, c *call, f frames) (done func(), err error) {
	if !c.rule.auth.GetPublic() {
		stop := giveUp(ctx, f)
		return func() { stop() }, nil
	}
	side := c.Client.Side()
	known := s.fromService(ctx, c.md)
	if !known && !s.strangers.enter(side) {
		return nil, errManyStrangers
	}
	waiting, cancel := context.WithTimeout(ctx, strangerLimit)
	stop := giveUp(waiting, f)
	return func() {
		stop()
		cancel()
		arrived(ctx)
		if !known {
			s.strangers.leave(side)
		}
	}, nil
}

// giveUp ends the stream of a call with its context: whoever reads from it is woken.
func giveUp(ctx context.Context, f frames) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		_ = f.WriteStatus(causeOf(ctx)) // the stream may be over already
	})
}

func causeOf(ctx context.Context) *status.Status {
	return apierr.From(context.Cause(ctx)).GRPCStatus()
}
