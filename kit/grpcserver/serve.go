package grpcserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/turumba/turumba/kit/bounds"
)

// Limits of a listener.
const (
	maxStreams = 1000            // concurrent calls of one connection
	drainLimit = 8 * time.Second // for open calls after the stop was asked for
)

// Serve serves the services of all servers on l, each behind its own chain,
// until ctx ends, then lets open calls finish and ends streams (drain.go), also those
// of the in-process connections. The first server's TLS setting counts.
func Serve(ctx context.Context, l net.Listener, servers ...*Server) error {
	g, calls, err := listener(servers)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- g.Serve(bounds.Listener(l, maxConnections)) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve gRPC: %w", err)
	case <-ctx.Done():
	}
	drain(g, calls, servers)
	// Who is stopped before Serve began is told ErrServerStopped.
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC: %w", err)
	}
	return nil
}

// drain ends streams and lets open calls finish within drainLimit.
func drain(g *grpc.Server, calls *inFlight, servers []*Server) {
	c := servers[0].cfg.Clock
	ctx, cancel := context.WithCancel(context.Background())
	var ending sync.WaitGroup
	for _, s := range servers {
		ending.Go(func() { s.open.drain(ctx, c) })
	}
	drained, streamless, settled := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		g.GracefulStop()
	}()
	go func() {
		defer close(settled)
		ending.Wait()
		close(streamless)
		calls.settled(ctx, c)
	}()
	timer := c.NewTimer(drainLimit)
	defer timer.Stop()
	select {
	case <-drained:
		select { // the in-process ones
		case <-streamless:
		case <-timer.C():
		}
	case <-settled:
	case <-timer.C():
	}
	g.Stop()
	<-drained
	cancel()
	<-settled
}

// listener is a gRPC server with the services of all servers.
func listener(servers []*Server) (*grpc.Server, *inFlight, error) {
	r := router{of: map[string]*Server{}, calls: &inFlight{}}
	for _, s := range servers {
		if err := s.Check(); err != nil {
			return nil, nil, err
		}
		for name := range s.services {
			r.of[name] = s
		}
	}
	opts := append(listenerLimits(), grpc.StreamInterceptor(r.stream), grpc.MaxConcurrentStreams(maxStreams), grpc.InTapHandle(newArrivals(servers[0]).tap),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 30 * time.Minute, MaxConnectionAgeGrace: time.Minute, Time: time.Minute, Timeout: 20 * time.Second}),
	)
	creds, err := servers[0].cfg.Mesh.serverCredentials()
	if err != nil {
		return nil, nil, err
	}
	if creds != nil {
		opts = append(opts, grpc.Creds(creds))
	}
	g := grpc.NewServer(opts...)
	serving := health.NewServer() // the process as a whole is "", which serves
	g.RegisterService(healthService(), serving)
	for _, s := range servers {
		for name, registered := range s.services {
			if r.of[name] == s { // MeshService is of every server, and of a listener once
				serving.SetServingStatus(name, grpc_health_v1.HealthCheckResponse_SERVING)
				g.RegisterService(s.gated(registered.desc, r.calls), registered.impl)
			}
		}
	}
	return g, r.calls, nil
}

// router finds the chain of a stream by its service, and counts streams.
type router struct {
	of    map[string]*Server
	calls *inFlight
}

func (r router) server(fullMethod string) *Server {
	service, _, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	return r.of[service]
}

func (r router) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	r.calls.enter()
	defer r.calls.leave()
	if !info.IsClientStream && !info.IsServerStream {
		return handler(srv, ss) // a unary RPC, which has the chain in it
	}
	if s := r.server(info.FullMethod); s != nil {
		return s.serveStream(srv, ss, info, handler)
	}
	return status.Error(codes.Unimplemented, "unknown service")
}

// Reflection returns a server that describes the services of the servers and
// serves nothing else, for the admin listener.
func Reflection(servers ...*Server) (*grpc.Server, error) {
	of, _, err := listener(servers)
	if err != nil {
		return nil, err
	}
	admin := grpc.NewServer(listenerLimits()...)
	reflection.Register(&described{Server: admin, of: of})
	return admin, nil
}

// described registers reflection on one server and lists another's services.
type described struct {
	*grpc.Server
	of *grpc.Server
}

// GetServiceInfo implements reflection.GRPCServer.
func (d *described) GetServiceInfo() map[string]grpc.ServiceInfo { return d.of.GetServiceInfo() }
