package grpcserver

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/turumba/turumba/kit/auth"
)

// What a listener takes from whom it does not know (ADR 0041).
const (
	// maxHeaders is the most bytes of the headers of a call, with 32 for each
	// (RFC 9113 section 6.5.2).
	maxHeaders = 16 << 10
	// streamWindow is how many bytes a stream may hold that nobody has read yet, and
	// connWindow all streams of a connection at once. They do not grow by themselves.
	streamWindow = 64 << 10
	connWindow   = 1 << 20
	// connBuffer is what a connection reads at once.
	connBuffer = 16 << 10
	// maxUnread is the most bytes of a message that the chain does not read itself:
	// a question after the health.
	maxUnread = 4 << 10
	// maxConnections is how many connections may be open at once.
	maxConnections = 4 << 10
	// handshakeLimit is how long a new connection may take until it can carry calls.
	handshakeLimit = 10 * time.Second
)

// listenerLimits are the limits of every gRPC listener.
func listenerLimits() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxHeaderListSize(maxHeaders), grpc.MaxRecvMsgSize(maxUnread), grpc.ConnectionTimeout(handshakeLimit),
		grpc.StaticStreamWindowSize(streamWindow), grpc.StaticConnWindowSize(connWindow),
		grpc.ReadBufferSize(connBuffer),
	}
}

// healthService answers who asks whether the process serves. It has no streams: anybody
// could leave them open.
func healthService() *grpc.ServiceDesc {
	out := grpc_health_v1.Health_ServiceDesc
	out.Streams, out.Methods = nil, nil
	waiting := &strangers{}
	for _, m := range grpc_health_v1.Health_ServiceDesc.Methods {
		if m.MethodName == "Check" {
			out.Methods = append(out.Methods, grpc.MethodDesc{MethodName: m.MethodName, Handler: bounded(m.Handler, waiting)})
		}
	}
	return &out
}

// bounded is a handler outside the chain that waits for its message no longer than a
// public RPC does.
func bounded(handler grpc.MethodHandler, waiting *strangers) grpc.MethodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		f, ok := grpc.ServerTransportStreamFromContext(ctx).(frames)
		if !ok {
			return nil, wireError(errNoFrames)
		}
		if err := plain(ctx); err != nil {
			return nil, wireError(err)
		}
		side := peerSide(ctx)
		if !waiting.enter(side) {
			return nil, wireError(errManyStrangers)
		}
		defer waiting.leave(side)
		ctx, cancel := context.WithTimeout(ctx, strangerLimit)
		defer cancel()
		defer giveUp(ctx, f)()
		return handler(srv, ctx, dec, nil)
	}
}

// peerSide is from where the other end of the connection calls.
func peerSide(ctx context.Context) auth.Side {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return auth.Side{}
	}
	return auth.SideOfPeer(p.Addr)
}
