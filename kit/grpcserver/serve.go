package grpcserver

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

// Limits of a listener.
const (
	maxMessage = 9 << 20         // bytes of one request; the REST face allows 8 MiB
	maxStreams = 1000            // concurrent calls of one connection
	drainLimit = 8 * time.Second // for open calls after the stop was asked for
)

// Serve serves the services of all servers on l, each behind its own chain,
// until ctx ends, then lets open calls finish. The first server's TLS setting
// counts.
func Serve(ctx context.Context, l net.Listener, servers ...*Server) error {
	g, err := listener(servers)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- g.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve gRPC: %w", err)
	case <-ctx.Done():
	}
	drain(g, servers[0])
	if err := <-failed; err != nil {
		return fmt.Errorf("serve gRPC: %w", err)
	}
	return nil
}

// drain lets open calls finish within drainLimit.
func drain(g *grpc.Server, s *Server) {
	drained := make(chan struct{})
	go func() {
		g.GracefulStop()
		close(drained)
	}()
	timer := s.cfg.Clock.NewTimer(drainLimit)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C():
		g.Stop()
		<-drained
	}
}

// listener is a gRPC server with the services of all servers.
func listener(servers []*Server) (*grpc.Server, error) {
	r := router{}
	for _, s := range servers {
		if err := s.Check(); err != nil {
			return nil, err
		}
		for name := range s.services {
			r[name] = s
		}
	}
	opts := []grpc.ServerOption{
		grpc.UnaryInterceptor(r.unary), grpc.StreamInterceptor(r.stream),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 30 * time.Minute, MaxConnectionAgeGrace: time.Minute, Time: time.Minute, Timeout: 20 * time.Second}),
	}
	creds, err := servers[0].cfg.Mesh.serverCredentials()
	if err != nil {
		return nil, err
	}
	if creds != nil {
		opts = append(opts, grpc.Creds(creds))
	}
	g := grpc.NewServer(opts...)
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	for _, s := range servers {
		for name, registered := range s.services {
			if r[name] == s { // MeshService is of every server, and of a listener once
				g.RegisterService(registered.desc, registered.impl)
			}
		}
	}
	return g, nil
}

// router finds the chain of a call by its service. The health service, which
// has no product data, has none.
type router map[string]*Server

func (r router) of(fullMethod string) *Server {
	service, _, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	return r[service]
}

func (r router) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if s := r.of(info.FullMethod); s != nil {
		return s.serveUnary(ctx, req, info, handler)
	}
	if _, ok := info.Server.(grpc_health_v1.HealthServer); ok {
		return handler(ctx, req)
	}
	return nil, status.Error(codes.Unimplemented, "unknown service")
}

func (r router) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if s := r.of(info.FullMethod); s != nil {
		return s.serveStream(srv, ss, info, handler)
	}
	if _, ok := srv.(grpc_health_v1.HealthServer); ok {
		return handler(srv, ss)
	}
	return status.Error(codes.Unimplemented, "unknown service")
}

// Reflection returns a server that describes the services of the servers and
// serves nothing else, for the admin listener.
func Reflection(servers ...*Server) (*grpc.Server, error) {
	of, err := listener(servers)
	if err != nil {
		return nil, err
	}
	admin := grpc.NewServer()
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
