// Package app wires the worker: messaging's background half. Any number of
// workers share the work; any of them may be killed at any time.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/directory"
	"github.com/turumba/turumba/services/messaging/postgres"
	"github.com/turumba/turumba/worker/dispatch"
	"github.com/turumba/turumba/worker/fanout"
	"github.com/turumba/turumba/worker/relay"
	"github.com/turumba/turumba/worker/upkeep"
)

// The roles of a worker.
const (
	RoleRelay    = "relay"
	RoleFanout   = "fanout"
	RoleDispatch = "dispatch"
	RoleUpkeep   = "upkeep"
)

// Config is the worker's own settings.
type Config struct {
	// DatabaseURL is the messaging service's PostgreSQL.
	DatabaseURL config.Secret `env:"DATABASE_URL,required" help:"the messaging service's PostgreSQL"`
	// PublicURL is where people reach the gateway.
	PublicURL string `env:"PUBLIC_URL" help:"where people reach the gateway, for links in messages; empty: no unsubscribe links"`
	// Roles are what this process does.
	Roles []string `env:"WORKER_ROLES" envDefault:"relay,fanout,dispatch,upkeep" flag:"roles" help:"comma-separated: relay, fanout, dispatch, upkeep"`
	// Hold keeps messages from leaving until an operator releases them.
	Hold bool `env:"TURUMBA_HOLD" flag:"hold" help:"hold what is to be sent, for all workers of the database, until turumba release: for a start on a restored backup"`
}

// AllRoles are the roles of a worker that does everything.
func AllRoles() []string { return []string{RoleRelay, RoleFanout, RoleDispatch, RoleUpkeep} }

// Validate refuses roles that do not exist.
func (c Config) Validate() error {
	if err := messaging.CheckPublicURL(c.PublicURL); err != nil {
		return err
	}
	all := AllRoles()
	for _, role := range c.Roles {
		if !slices.Contains(all, role) {
			return fmt.Errorf("WORKER_ROLES: %q is not one of %s", role, strings.Join(all, ", "))
		}
	}
	if len(c.Roles) == 0 {
		return fmt.Errorf("WORKER_ROLES: at least one of %s is needed", strings.Join(all, ", "))
	}
	return nil
}

// Deps are what the worker stands on.
type Deps struct {
	Logger *slog.Logger
	Clock  clock.Clock
	// Registry gets the measurements, Tracing makes spans; both may be nil.
	Registry prometheus.Registerer
	Tracing  *telemetry.Tracing
	// Loops get the finished turns of background loops; nil tells nobody.
	Loops     *jobs.Loops
	MasterKey []byte
	// PreviousKeys also open what was sealed before the master key was changed.
	PreviousKeys [][]byte
	// Account is a connection to the account service as "worker".
	Account  grpc.ClientConnInterface
	Adapters channel.Adapters
	Bus      bus.Bus
}

// A worker has two pools of connections to PostgreSQL, so that what is urgent never waits
// for a connection behind what is not (ADR 0051). One more listens.
const (
	// usualConns are for everything but what is urgent.
	usualConns = 24
	// urgentConns are for the transactional lane of dispatch while its calls are quick, for
	// leases, and for the relay, which announces work and uses at most three.
	urgentConns = 8
)

// App is a worker, ready to run.
type App struct {
	db       *pg.DB
	urgent   *pg.DB
	cfg      Config
	deps     Deps
	relay    *outbox.Relay
	notifier *outbox.Notifier
	fanout   *fanout.Role
	dispatch *dispatch.Role
	upkeep   *upkeep.Role
	store    *postgres.Store
	tracer   trace.Tracer
}

// New opens the database once the messaging service has migrated it, and wires the
// roles. It waits for that until ctx ends.
func New(ctx context.Context, cfg Config, deps Deps) (*App, error) {
	v, err := vault.New(deps.MasterKey, deps.PreviousKeys...)
	if err != nil {
		return nil, fmt.Errorf("TURUMBA_MASTER_KEY: %w", err)
	}
	if err := pg.AwaitSchema(ctx, cfg.DatabaseURL.Reveal(), deps.Clock, deps.Logger, postgres.Migrations()...); err != nil {
		return nil, err
	}
	a := &App{cfg: cfg, deps: deps}
	if err := a.open(ctx, v); err != nil {
		return nil, err
	}
	if err := a.wire(ctx, v); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// open opens both pools.
func (a *App) open(ctx context.Context, v *vault.Vault) (err error) {
	pool := pg.Config{URL: a.cfg.DatabaseURL.Reveal(), Role: pg.RoleWorker, Clock: a.deps.Clock, Name: "worker", Vault: v, MaxConns: usualConns}
	if a.db, err = pg.Open(ctx, pool); err != nil {
		return err
	}
	pool.Name, pool.MaxConns = "worker-urgent", urgentConns
	if a.urgent, err = pg.Open(ctx, pool); err != nil {
		a.db.Close()
	}
	return err
}

func (a *App) wire(ctx context.Context, v *vault.Vault) (err error) {
	if a.relay, err = relay.New(a.urgent, a.deps.Bus, a.deps.Clock, a.deps.Logger, a.deps.Registry); err != nil {
		return err
	}
	a.relay.Loops = a.deps.Loops
	a.relay.Tracer, a.tracer = a.deps.Tracing.Tracer("outbox"), a.deps.Tracing.Tracer("consumer")
	wake := a.relay.Wake
	if !a.has(RoleRelay) {
		a.notifier = outbox.NewNotifier(a.urgent, a.deps.Clock, a.deps.Logger)
		a.notifier.Loops = a.deps.Loops
		wake = a.notifier.Notify
	}
	store, err := postgres.New(a.db, make([]byte, 32), wake) // a worker lists nothing
	if err != nil {
		return err
	}
	urgent, err := postgres.New(a.urgent, make([]byte, 32), wake)
	if err != nil {
		return err
	}
	key, err := store.ServiceKey(ctx, v, messaging.UnsubscribeKey)
	if err != nil {
		return err
	}
	links, err := messaging.NewUnsubscriber(a.cfg.PublicURL, key)
	if err != nil {
		return err
	}
	a.store = store
	if err := a.hold(ctx); err != nil {
		return err
	}
	m, err := newMetrics(a.deps, a.db, a.urgent)
	if err != nil {
		return err
	}
	accounts := directory.New(a.deps.Account)
	a.dispatch = dispatch.New(dispatch.Config{
		Store: store, Urgent: urgent, Vault: v, Adapters: a.deps.Adapters, Unsubscriber: links, Clock: a.deps.Clock, Logger: a.deps.Logger, Tracing: a.deps.Tracing, Metrics: m.dispatch,
		Loops: a.deps.Loops,
	})
	a.fanout = fanout.New(store, accounts, a.deps.Adapters, links, a.deps.Clock, a.deps.Logger, a.dispatch, a.deps.Loops)
	a.fanout.Metrics, a.fanout.Tracing = m.fanout, a.deps.Tracing
	a.upkeep = &upkeep.Role{Store: store, Accounts: accounts, Clock: a.deps.Clock, Logger: a.deps.Logger, Ready: a.dispatch.Wake, Metrics: m.upkeep, Loops: a.deps.Loops}
	return nil
}

// hold holds what is to be sent if the worker was started to do so, before it claims
// anything.
func (a *App) hold(ctx context.Context) error {
	if !a.cfg.Hold {
		return nil
	}
	_, err := a.store.HoldAnew(ctx, "a worker started with --hold")
	return err
}

// metrics are the figures of all roles.
type metrics struct {
	dispatch *dispatch.Metrics
	fanout   *fanout.Metrics
	upkeep   *upkeep.Metrics
}

func newMetrics(deps Deps, db, urgent *pg.DB) (m metrics, err error) {
	if m.dispatch, err = dispatch.NewMetrics(deps.Registry, deps.Clock); err != nil {
		return m, err
	}
	if m.fanout, err = fanout.NewMetrics(deps.Registry); err != nil {
		return m, err
	}
	var types []string
	for _, a := range deps.Adapters {
		types = append(types, a.Type())
	}
	if m.upkeep, err = upkeep.NewMetrics(deps.Registry, types); err != nil || deps.Registry == nil {
		return m, err
	}
	return m, errors.Join(deps.Registry.Register(pg.Collector("worker", db)), deps.Registry.Register(pg.Collector("worker-urgent", urgent)))
}

func (a *App) has(role string) bool { return slices.Contains(a.cfg.Roles, role) }

// Wake makes the relay look at the outbox at once; for services of the same
// process.
func (a *App) Wake() { a.relay.Wake() }

// Ready reports whether the database answers.
func (a *App) Ready(ctx context.Context) error {
	if err := a.urgent.Ping(ctx); err != nil {
		return err
	}
	return a.db.Ping(ctx)
}

// Close closes the database, after Run.
func (a *App) Close() {
	a.urgent.Close()
	a.db.Close()
}

// Run works until ctx ends and what is in flight is stored.
func (a *App) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if a.has(RoleRelay) {
		g.Go(func() error { return a.relay.Run(ctx) })
	} else {
		g.Go(func() error { return a.notifier.Run(ctx) })
	}
	if a.has(RoleFanout) {
		g.Go(func() error { return a.fanout.Run(ctx) })
		a.consume(ctx, g, relay.GroupQueue, a.knownSend, a.fanout.Wake)
	}
	if a.has(RoleDispatch) {
		g.Go(func() error { return a.dispatch.Run(ctx) })
		for _, t := range a.dispatch.Types() {
			for _, lane := range []string{postgres.LaneTransactional, postgres.LaneBulk} {
				a.consume(ctx, g, relay.DispatchQueue(t, lane), nil, a.dispatch.Wake)
			}
		}
	}
	if a.has(RoleUpkeep) {
		g.Go(func() error { return a.upkeep.Run(ctx) })
	}
	return g.Wait()
}
