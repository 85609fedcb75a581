package grpcserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	meshv1 "github.com/turumba/turumba/gen/turumba/mesh/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/telemetry"
)

// NodeConfig says who this process is in the mesh.
type NodeConfig struct {
	// Service is the identity of this process, such as "worker".
	Service string
	// Serves says that other services call this one, Calls that it calls others.
	Serves, Calls bool
	// Logger is told why other services cannot be used, and of certificates.
	Logger *slog.Logger
	// Clock times checks and certificates.
	Clock clock.Clock
	// Registry gets the measurements; nil measures for nobody.
	Registry prometheus.Registerer
	// Loops get the finished turns; nil tells nobody.
	Loops *jobs.Loops
}

// Node is this process among the services of the mesh: its certificate, which is read
// again while it runs, and its ways to the services that it needs.
type Node struct {
	cfg   NodeConfig
	mesh  Mesh
	peers []*Peer
}

// Open reads and checks the certificate, if there is one. An error names the setting and
// what is wrong with it.
func (m Mesh) Open(ctx context.Context, cfg NodeConfig) (*Node, error) {
	n := &Node{cfg: cfg, mesh: m}
	if m.CertFile == "" {
		return n, nil
	}
	var err error
	if n.mesh.certs, err = openCertificates(ctx, m, role{cfg.Service, cfg.Serves, cfg.Calls}, cfg.Logger, cfg.Clock); err != nil {
		return nil, err
	}
	if cfg.Registry == nil {
		return n, nil
	}
	end := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "turumba_mesh_certificate_expiry_timestamp_seconds", Help: "When the certificate of this service ends, or what signed it if that is sooner; Unix time.",
	}, func() float64 { return float64(n.mesh.certs.now.Load().end.Unix()) })
	if err := cfg.Registry.Register(end); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return n, nil
}

// Mesh are the settings with the certificate, for a server and for Dial.
func (n *Node) Mesh() Mesh { return n.mesh }

// Dial prepares a connection to a service that this process needs. It is part of Checks
// from now on, and of Run, which must be called later. It connects at the first call.
// A target that cannot be one is an error that names the setting, such as ACCOUNT_ADDR.
func (n *Node) Dial(service, target string) (*Peer, error) {
	if err := checkTarget(target); err != nil {
		return nil, fmt.Errorf("%s_ADDR: %w", strings.ToUpper(service), err)
	}
	l := newLink(n.cfg.Service, service, n.cfg.Logger, n.cfg.Clock)
	conn, err := n.mesh.open(target, n.cfg.Service, n.cfg.Clock, l)
	if err != nil {
		return nil, err
	}
	p := &Peer{Conn: conn, link: l}
	n.peers = append(n.peers, p)
	return p, nil
}

// checkTarget refuses what is no address with a port, which gRPC would take for another
// or add 443 to.
func checkTarget(target string) error {
	scheme, address, named := strings.Cut(target, "://")
	switch {
	case strings.HasPrefix(target, "unix:"), strings.HasPrefix(target, "unix-abstract:"):
		return nil
	case !named:
		address = target
	case scheme == "dns", scheme == "passthrough": // an authority may come first
		address = address[strings.LastIndexByte(address, '/')+1:]
	default:
		address = "" // gRPC knows no such scheme
	}
	host, port, err := net.SplitHostPort(address)
	if _, notNumber := strconv.ParseUint(port, 10, 16); err != nil || notNumber != nil || host == "" {
		return fmt.Errorf("%q is no address with a port, such as dns:///account:9000", target)
	}
	return nil
}

// Checks are the conditions of readiness: a proved call to each service, and a
// certificate that has not expired.
func (n *Node) Checks() map[string]telemetry.Check {
	checks := map[string]telemetry.Check{}
	for _, p := range n.peers {
		checks[p.link.peer] = p.Ready
	}
	if n.mesh.certs != nil {
		checks["certificate"] = n.mesh.certs.valid
	}
	return checks
}

// proveEvery is how often a process proves itself to the services that it needs though
// nobody asks whether it is ready, so that the log tells what is wrong.
const proveEvery = 10 * time.Second

// Run watches the certificate and the ways to other services until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	var loops []*jobs.Loop
	if certs := n.mesh.certs; certs != nil {
		loops = append(loops, &jobs.Loop{Name: "mesh.certificates", Turn: func(ctx context.Context) (time.Duration, error) {
			certs.look(ctx)
			return readAgain, nil
		}})
	}
	for _, p := range n.peers {
		loops = append(loops, &jobs.Loop{Name: "mesh.proof", Turn: func(ctx context.Context) (time.Duration, error) {
			_ = p.Ready(ctx) // the link tells what is wrong
			return proveEvery, nil
		}})
	}
	var g errgroup.Group
	for _, l := range loops {
		l.Clock, l.Logger, l.Loops = n.cfg.Clock, n.cfg.Logger, n.cfg.Loops
		g.Go(func() error { return l.Run(ctx) })
	}
	return g.Wait()
}

// Close closes the connections, after the last call has ended.
func (n *Node) Close() {
	for _, p := range n.peers {
		_ = p.Close() // nothing is in flight any more
	}
}

const (
	proofLimit = 2 * time.Second // of one proof
	proofGood  = 3 * time.Second // how long one counts
	proofBad   = time.Second     // how long a failed one does
)

// Peer is a connection to a service that this process needs.
type Peer struct {
	*Conn
	link   *link
	flight singleflight.Group

	mu    sync.Mutex
	until time.Time // err counts
	err   error     // of the last proof
}

// Ready reports whether the service accepts this process as what it is: one call, which
// is authenticated and authorised, counts for a few seconds. It takes 2 s at most.
func (p *Peer) Ready(ctx context.Context) error {
	p.mu.Lock()
	err, known := p.err, p.link.clock.Now().Before(p.until)
	p.mu.Unlock()
	if known {
		return err
	}
	done := p.flight.DoChan("", func() (any, error) {
		// Who asks first must not end it for the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), proofLimit)
		defer cancel()
		err := p.prove(ctx)
		counts := proofGood
		if err != nil {
			counts = proofBad
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err, p.until = err, p.link.clock.Now().Add(counts)
		return nil, err
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return fmt.Errorf("ask the %s service: %w", p.link.peer, ctx.Err())
	}
}

func (p *Peer) prove(ctx context.Context) error {
	resp, err := meshv1.NewMeshServiceClient(p).Prove(ctx, &meshv1.ProveRequest{})
	switch {
	case err != nil:
		return fmt.Errorf("ask the %s service: %w", p.link.peer, err)
	case resp.GetService() != p.link.peer:
		err = fmt.Errorf("the %s service answers where the %s service is expected", resp.GetService(), p.link.peer)
	case resp.GetCaller() != p.link.caller:
		err = fmt.Errorf("the %s service takes this process for %q, not for %q (see GRPC_TLS_CERT and SERVICE_TOKEN)", p.link.peer, resp.GetCaller(), p.link.caller)
	default:
		return nil
	}
	p.link.tell(ctx, slog.LevelError, faultRefused, meshv1.MeshService_Prove_FullMethodName, err)
	return err
}

// prover answers who calls; every server has it.
type prover struct {
	meshv1.UnimplementedMeshServiceServer
	service string
}

// Prove implements meshv1.MeshServiceServer.
func (p prover) Prove(ctx context.Context, _ *meshv1.ProveRequest) (*meshv1.ProveResponse, error) {
	return &meshv1.ProveResponse{Caller: auth.From(ctx).Service, Service: p.service}, nil
}

// errNoProof is a mesh whose services cannot prove themselves to each other.
var errNoProof = errors.New("SERVICE_TOKEN: is required, unless GRPC_TLS_CERT, GRPC_TLS_KEY and GRPC_TLS_CA are set: the services prove themselves to each other by one or both")
