package single

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	gateway "github.com/turumba/turumba/gateway/app"
	"github.com/turumba/turumba/gateway/rest"
	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/inproc"
	"github.com/turumba/turumba/kit/bus/rabbitmq"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/embedded"
	"github.com/turumba/turumba/kit/telemetry"
	account "github.com/turumba/turumba/services/account/app"
	"github.com/turumba/turumba/services/account/identity"
	messaging "github.com/turumba/turumba/services/messaging/app"
	"github.com/turumba/turumba/services/messaging/channel/providers"
	worker "github.com/turumba/turumba/worker/app"
	"github.com/turumba/turumba/worker/relay"
)

// clientID is the client_id of the tokens of a single process.
const clientID = "turumba"

// idpLimit is how long another identity provider may take to answer.
const idpLimit = 10 * time.Second

// pgStopLimit is how long PostgreSQL may take to stop.
const pgStopLimit = 5 * time.Second

// Instance is a running mesh.
type Instance struct {
	// URL is where REST is served, GRPC and Admin the other addresses.
	URL, GRPC, Admin string
	// Simulator is the simulated provider; nil when MAIL_URL is set and nobody
	// asked for it.
	Simulator *Simulator
	// Postgres is the own server; nil with DATABASE_URL.
	Postgres *embedded.Server

	cfg      Config
	clock    clock.Clock
	log      *slog.Logger
	registry *prometheus.Registry
	tracing  *telemetry.Tracing
	loops    *jobs.Loops
	bus      bus.Bus

	accountURL, messagingURL config.Secret
	key                      []byte
	previous                 [][]byte

	account   *account.App
	messaging *messaging.App
	worker    *worker.App
	gateway   *gateway.App
	listener  net.Listener
	admin     func(context.Context) error
	closers   []func(context.Context)
}

// Start brings everything up. wantSimulator starts the simulator even with
// MAIL_URL. The error is one line.
func Start(ctx context.Context, cfg Config, log *slog.Logger, wantSimulator bool) (*Instance, error) {
	in := &Instance{cfg: cfg, clock: clock.System(), log: log, registry: telemetry.NewRegistry()}
	if err := in.start(ctx, wantSimulator); err != nil {
		in.close(context.WithoutCancel(ctx))
		return nil, err
	}
	return in, nil
}

func (in *Instance) start(ctx context.Context, wantSimulator bool) error {
	if err := in.cfg.prepareDataDir(); err != nil {
		return err
	}
	var err error
	if in.tracing, err = in.cfg.Traces.Tracing(ctx, "turumba", in.log); err != nil {
		return err
	}
	in.closers = append(in.closers, in.tracing.Close)
	if in.loops, err = jobs.NewLoops(in.clock, in.registry); err != nil {
		return err
	}
	if err = in.listen(ctx); err != nil {
		return err
	}
	if in.key, err = in.cfg.masterKey(); err != nil {
		return err
	}
	if in.previous, err = in.cfg.previousKeys(); err != nil {
		return err
	}
	if wantSimulator || in.cfg.MailURL == "" {
		if in.Simulator, err = StartSimulator(ctx, filepath.Join(in.cfg.DataDir, "simulator"), in.clock); err != nil {
			return err
		}
		in.closers = append(in.closers, in.Simulator.Stop)
	}
	if in.accountURL, in.messagingURL, err = in.databases(ctx); err != nil {
		return err
	}
	if err := in.openBus(ctx); err != nil {
		return err
	}
	return in.wire(ctx)
}

// AccountConn is a connection to the account service as the named service of
// this process has it.
func (in *Instance) AccountConn(service string) grpc.ClientConnInterface {
	return in.account.Server.Conn(service)
}

// DatabaseURLs are where the two databases of the mesh are.
func (in *Instance) DatabaseURLs() (account, messaging string) {
	return in.accountURL.Reveal(), in.messagingURL.Reveal()
}

// Now is the mesh's time.
func (in *Instance) Now() time.Time { return in.clock.Now() }

// listen takes the gRPC port early: a port that is taken is the commonest
// problem of a start and should cost no time.
func (in *Instance) listen(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", in.cfg.GRPCAddr)
	if err != nil {
		return fmt.Errorf("cannot serve gRPC on %s: %w (set GRPC_ADDR to a free address)", in.cfg.GRPCAddr, err)
	}
	in.listener, in.GRPC = l, l.Addr().String()
	in.closers = append(in.closers, func(context.Context) { _ = l.Close() }) // a second close is harmless
	return nil
}

// databases are those of DATABASE_URL or of an own server.
func (in *Instance) databases(ctx context.Context) (accountURL, messagingURL config.Secret, err error) {
	at := func(name string) string {
		u, _ := url.Parse(in.cfg.DatabaseURL.Reveal()) // Validate has parsed it
		u.Path = "/" + name
		return u.String()
	}
	if in.cfg.DatabaseURL == "" {
		in.Postgres, err = embedded.Start(ctx, embedded.Options{DataDir: in.cfg.DataDir, Clock: in.clock, HideInstalled: in.cfg.IgnoreInstalled})
		if err != nil {
			return "", "", err
		}
		in.closers = append(in.closers, in.stopPostgres)
		at = in.Postgres.URL
	}
	for _, name := range []string{"turumba_account", "turumba_messaging"} {
		if err := pg.EnsureDatabase(ctx, at(name)); err != nil {
			return "", "", err
		}
	}
	return config.Secret(at("turumba_account")), config.Secret(at("turumba_messaging")), nil
}

func (in *Instance) stopPostgres(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pgStopLimit)
	defer cancel()
	if err := in.Postgres.Stop(ctx); err != nil {
		in.log.WarnContext(ctx, "PostgreSQL did not stop", "err", err)
	}
}

func (in *Instance) openBus(ctx context.Context) (err error) {
	if url := in.cfg.AMQPURL.Reveal(); url != "" {
		in.bus, err = rabbitmq.Dial(ctx, url, relay.Topology(true, true), rabbitmq.Options{Clock: in.clock, Logger: in.log})
	} else {
		in.bus, err = inproc.New(relay.Topology(false, false), inproc.Options{Clock: in.clock, Logger: in.log})
	}
	if err != nil {
		return err
	}
	in.closers = append(in.closers, func(context.Context) { _ = in.bus.Close() }) // its consumers have ended
	in.bus, err = bus.Measured(in.bus, in.registry)
	return err
}

// wire makes the services and connects them in process.
func (in *Instance) wire(ctx context.Context) (err error) {
	dialer, err := in.dialer()
	if err != nil {
		return err
	}
	mailer, err := identity.NewSMTPMailer(in.mailURL(), dialer)
	if err != nil {
		return err
	}
	if in.account, err = account.New(ctx, account.Config{DatabaseURL: in.accountURL, MongoURL: in.cfg.MongoURL, Issuer: in.cfg.Issuer, ClientID: clientID, Operators: in.cfg.Operators, Quotas: in.cfg.Quotas, MessageRetentionDays: in.cfg.MessageRetentionDays, Identity: in.cfg.Identity},
		account.Deps{Logger: in.log, Clock: in.clock, Registry: in.registry, Tracing: in.tracing, Loops: in.loops, MasterKey: in.key, PreviousKeys: in.previous, Mailer: mailer, HTTP: dialer.HTTPClient(egress.HTTPOptions{Timeout: idpLimit})}); err != nil {
		return err
	}
	in.closers = append(in.closers, func(context.Context) { in.account.Close() })
	adapters := providers.All(providers.Config{Dialer: dialer, Clock: in.clock})
	if err := messaging.Migrate(ctx, in.messagingURL.Reveal()); err != nil {
		return err
	}
	if in.worker, err = worker.New(ctx, worker.Config{DatabaseURL: in.messagingURL, PublicURL: in.cfg.PublicURL, Roles: worker.AllRoles(), Hold: in.cfg.Hold}, worker.Deps{
		Logger: in.log, Clock: in.clock, Registry: in.registry, Tracing: in.tracing, Loops: in.loops, MasterKey: in.key, PreviousKeys: in.previous, Account: in.account.Server.ReaderConn("worker"), Adapters: adapters, Bus: in.bus,
	}); err != nil {
		return err
	}
	in.closers = append(in.closers, func(context.Context) { in.worker.Close() })
	if in.messaging, err = messaging.New(ctx, messaging.Config{DatabaseURL: in.messagingURL, PublicURL: in.cfg.PublicURL}, messaging.Deps{
		Logger: in.log, Clock: in.clock, Registry: in.registry, Tracing: in.tracing, Loops: in.loops, MasterKey: in.key, PreviousKeys: in.previous, Verifier: in.account.Verifier,
		Account: in.account.Server.Conn("messaging"), Adapters: adapters, Wake: in.worker.Wake,
	}); err != nil {
		return err
	}
	in.closers = append(in.closers, func(context.Context) { in.messaging.Close() })
	return in.face(ctx)
}

// dialer may reach the simulator, besides what the operator allows.
func (in *Instance) dialer() (*egress.Dialer, error) {
	allow := in.cfg.EgressAllow
	if in.Simulator != nil {
		host, port := in.Simulator.HostPort()
		if allow != "" {
			allow += ","
		}
		allow += fmt.Sprintf("%s/32:%d,%s/32:%s", host, port, host, in.Simulator.apiPort())
	}
	rules, err := egress.ParseAllow(allow)
	if err != nil {
		return nil, fmt.Errorf("EGRESS_ALLOW: %w", err)
	}
	return egress.NewDialer(egress.Options{Allow: rules}), nil
}

func (in *Instance) mailURL() string {
	if in.cfg.MailURL != "" {
		return in.cfg.MailURL.Reveal()
	}
	return "smtp://" + in.Simulator.SMTP + "?plaintext=true&from=no-reply@turumba.example"
}

// face opens what callers see: REST and the operators' listener.
func (in *Instance) face(ctx context.Context) (err error) {
	in.gateway, err = gateway.New(ctx, in.cfg.Config, gateway.Deps{
		Backends: rest.Backends{Account: in.account.Server.EdgeConn(), Messaging: in.messaging.Server.EdgeConn()},
		Logger:   in.log, Clock: in.clock, Registry: in.registry, Tracing: in.tracing, Ready: in.ready,
	})
	if err != nil {
		return err
	}
	in.URL = "http://" + local127(in.gateway.Addr())
	reflection, err := grpcserver.Reflection(in.account.Server, in.messaging.Server)
	if err != nil {
		return err
	}
	addr, serve, err := in.cfg.Listen(ctx, in.registry, map[string]telemetry.Check{"account": in.account.Ready, "messaging": in.messaging.Ready, "worker": in.worker.Ready, "loop": in.loops.Ready}, reflection)
	if err != nil {
		return err
	}
	in.Admin, in.admin = local127(addr), serve
	return nil
}

// local127 is the address as a caller on this machine writes it.
func local127(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if ip := net.ParseIP(host); err == nil && (ip == nil || ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return a.String()
}

func (in *Instance) ready(ctx context.Context) error {
	for _, check := range []telemetry.Check{in.account.Ready, in.messaging.Ready, in.worker.Ready, in.loops.Ready} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Run serves until ctx ends, then stops everything within 10 s: first what takes
// new work, then what the rest of the work needs.
func (in *Instance) Run(ctx context.Context) error {
	defer in.close(context.WithoutCancel(ctx))
	under, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var below errgroup.Group
	below.Go(func() error { return in.account.Run(under) })
	below.Go(func() error { return in.messaging.Run(under) })

	above, ctx := errgroup.WithContext(ctx)
	above.Go(func() error { return in.gateway.Run(ctx) })
	above.Go(func() error { return in.worker.Run(ctx) })
	above.Go(func() error { return in.admin(ctx) })
	above.Go(func() error { return grpcserver.Serve(ctx, in.listener, in.account.Server, in.messaging.Server) })
	if in.Postgres != nil {
		above.Go(func() error {
			select {
			case <-in.Postgres.Done():
				return fmt.Errorf("PostgreSQL ended; see %s", filepath.Join(in.cfg.DataDir, "postgres.log"))
			case <-ctx.Done():
				return nil
			}
		})
	}
	err := above.Wait()
	stop()
	if e := below.Wait(); err == nil {
		err = e
	}
	return err
}

// close lets go of what Start took, the last first.
func (in *Instance) close(ctx context.Context) {
	for i := len(in.closers) - 1; i >= 0; i-- {
		in.closers[i](ctx)
	}
	in.closers = nil
}
