// Package grpcserver serves gRPC with one ordered interceptor chain (chain.go),
// which holds every rule that is not a handler's: identity, tenancy,
// permissions, validation, limits, errors. The same chain runs for callers over
// the network and for callers in the same process (inproc.go).
package grpcserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	meshv1 "github.com/turumba/turumba/gen/turumba/mesh/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/bounds"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/streams"
	"github.com/turumba/turumba/kit/telemetry"
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
	// Tracing makes a span of every call; nil makes none.
	Tracing *telemetry.Tracing
	// Limiter holds calls to their budgets; nil where no RPC is public or mails somebody.
	Limiter Limiter
	// Mesh proves callers of internal RPCs over the network; zero means that only
	// the in-process connection does.
	Mesh Mesh
}

// Server is a gRPC server with the chain.
type Server struct {
	cfg       Config
	rules     map[string]*rule
	services  map[string]registered
	problems  []error
	validator protovalidate.Validator
	durations *telemetry.Series[served]
	tracer    trace.Tracer
	steps     []step
	places    *streams.Places
	open      *openStreams
	bytes     *bounds.Room // of what is read of messages until it is decoded
	values    *bounds.Room // of what the messages of requests become
	pages     *bounds.Room // of the lists that calls are answered with, until they are written
	unread    *bounds.Room // of answers until they are read
	strangers strangers
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
	s := &Server{cfg: cfg, rules: map[string]*rule{}, services: map[string]registered{}, validator: validator, tracer: cfg.Tracing.Tracer("grpcserver"), places: streams.NewPlaces(cfg.Clock), open: newOpenStreams(), bytes: bounds.NewRoom(bounds.Bytes), values: bounds.NewRoom(bounds.Values), pages: bounds.NewRoom(bounds.Pages), unread: bounds.NewRoom(bounds.Bytes)}
	durations := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "turumba_rpc_duration_seconds", Help: "Time to answer a call, by RPC and gRPC code.",
		Buckets: telemetry.LatencyBuckets(), ConstLabels: prometheus.Labels{"service": cfg.Name},
	}, []string{"rpc", "code"})
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "turumba_rpc_open_streams", Help: "Streams of people and API keys that are open.", ConstLabels: prometheus.Labels{"service": cfg.Name},
	}, func() float64 { return float64(s.places.Open()) })
	if cfg.Registry != nil {
		if err := errors.Join(cfg.Registry.Register(durations), cfg.Registry.Register(open)); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	s.durations, s.steps = telemetry.NewSeries(durations, served.labels), s.chain()
	meshv1.RegisterMeshServiceServer(s, prover{service: cfg.Name})
	return s, nil
}

// RegisterService implements grpc.ServiceRegistrar. A service whose contract is
// incomplete is reported by Check and never served.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	rules, err := rulesOf(desc)
	if err != nil {
		s.problems = append(s.problems, err)
	}
	s.problems = append(s.problems, s.uncovered(rules)...)
	maps.Copy(s.rules, rules)
	s.services[desc.ServiceName] = registered{desc: desc, impl: impl}
}

// Check reports RPCs that lack an access rule, an idempotency level or a budget.
func (s *Server) Check() error { return errors.Join(s.problems...) }
