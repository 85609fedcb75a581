// Package grpcserver serves gRPC with one ordered interceptor chain (chain.go),
// which holds every rule that is not a handler's: identity, tenancy,
// permissions, validation, limits, errors. The same chain runs for callers over
// the network and for callers in the same process (inproc.go).
package grpcserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

// Limits of a server.
const (
	maxMessage = 9 << 20         // bytes of one request; the REST face allows 8 MiB
	maxStreams = 1000            // concurrent calls of one connection
	drainLimit = 8 * time.Second // for open calls after the stop was asked for
)

// TokenVerifier verifies the access tokens of users.
type TokenVerifier interface {
	Verify(ctx context.Context, token string) (auth.Claims, error)
}

// Config is what a server needs.
type Config struct {
	// Name is the service, as callers and metrics know it.
	Name string
	// Logger gets one line per call.
	Logger *slog.Logger
	// Clock times calls.
	Clock clock.Clock
	// Verifier verifies user tokens.
	Verifier TokenVerifier
	// Context looks up what a user may do.
	Context auth.ContextSource
	// Registry gets the measurements; nil measures for nobody.
	Registry prometheus.Registerer
	// ServiceToken proves callers of internal RPCs over the network; empty means
	// that only certificates and the in-process connection do.
	ServiceToken string
	// TLS serves with certificates; nil serves plain text.
	TLS *tls.Config
}

// Server is a gRPC server with the chain.
type Server struct {
	cfg       Config
	rules     map[string]*rule
	services  map[string]registered
	problems  []error
	validator protovalidate.Validator
	durations *prometheus.HistogramVec
	grpc      *grpc.Server
	unary     grpc.UnaryServerInterceptor
	stream    grpc.StreamServerInterceptor
}

// registered is a service as the in-process connection needs it.
type registered struct {
	desc *grpc.ServiceDesc
	impl any
}

var _ grpc.ServiceRegistrar = (*Server)(nil)

// New makes a server without services.
func New(cfg Config) (*Server, error) {
	validator, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("prepare validation: %w", err)
	}
	s := &Server{cfg: cfg, rules: map[string]*rule{}, services: map[string]registered{}, validator: validator}
	s.durations = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "turumba_rpc_duration_seconds", Help: "Time to answer a call, by RPC and gRPC code.",
		Buckets: telemetry.LatencyBuckets(), ConstLabels: prometheus.Labels{"service": cfg.Name},
	}, []string{"rpc", "code"})
	if cfg.Registry != nil {
		if err := cfg.Registry.Register(s.durations); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	steps := s.chain()
	s.unary, s.stream = chainUnary(steps), chainStream(steps)
	opts := []grpc.ServerOption{
		grpc.UnaryInterceptor(s.networkUnary), grpc.StreamInterceptor(s.networkStream),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 30 * time.Minute, MaxConnectionAgeGrace: time.Minute, Time: time.Minute, Timeout: 20 * time.Second}),
	}
	if cfg.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(cfg.TLS)))
	}
	s.grpc = grpc.NewServer(opts...)
	grpc_health_v1.RegisterHealthServer(s.grpc, health.NewServer())
	return s, nil
}

// RegisterService implements grpc.ServiceRegistrar. A service whose contract is
// incomplete is reported by Check and never served.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	rules, err := rulesOf(desc)
	if err != nil {
		s.problems = append(s.problems, err)
	}
	maps.Copy(s.rules, rules)
	s.services[desc.ServiceName] = registered{desc: desc, impl: impl}
	s.grpc.RegisterService(desc, impl)
}

// Check reports RPCs that lack an access rule or an idempotency level.
func (s *Server) Check() error { return errors.Join(s.problems...) }

// networkUnary leaves the health service, which has no product data, out of the
// chain.
func (s *Server) networkUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if _, ok := info.Server.(grpc_health_v1.HealthServer); ok {
		return handler(ctx, req)
	}
	return s.unary(ctx, req, info, handler)
}

func (s *Server) networkStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if _, ok := srv.(grpc_health_v1.HealthServer); ok {
		return handler(srv, ss)
	}
	return s.stream(srv, ss, info, handler)
}

// Serve serves on l until ctx ends, then lets open calls finish.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := s.Check(); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- s.grpc.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve gRPC: %w", err)
	case <-ctx.Done():
	}
	drained := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(drained)
	}()
	timer := s.cfg.Clock.NewTimer(drainLimit)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C():
		s.grpc.Stop()
		<-drained
	}
	if err := <-failed; err != nil {
		return fmt.Errorf("serve gRPC: %w", err)
	}
	return nil
}

// Reflection returns a server that describes the services of s and serves
// nothing else, for the admin listener.
func (s *Server) Reflection() *grpc.Server {
	admin := grpc.NewServer()
	reflection.Register(&described{Server: admin, of: s.grpc})
	return admin
}

// described registers reflection on one server and lists another's services.
type described struct {
	*grpc.Server
	of *grpc.Server
}

// GetServiceInfo implements reflection.GRPCServer.
func (d *described) GetServiceInfo() map[string]grpc.ServiceInfo { return d.of.GetServiceInfo() }
