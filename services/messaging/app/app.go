// Package app wires the messaging service, for its own binary and for the
// single process.
package app

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/directory"
	"github.com/turumba/turumba/services/messaging/postgres"
	"github.com/turumba/turumba/services/messaging/server"
)

// Config is the messaging service's own settings.
type Config struct {
	// DatabaseURL is the service's PostgreSQL.
	DatabaseURL config.Secret `env:"DATABASE_URL,required" help:"PostgreSQL 15 or newer: postgres://user:password@host:port/turumba_messaging"`
	// PublicURL is where people reach the gateway.
	PublicURL string `env:"PUBLIC_URL" help:"where people reach the gateway, for links in messages; empty: no unsubscribe links"`
	// Mesh proves the services to each other.
	Mesh grpcserver.Mesh
}

// Validate refuses a public URL that is none.
func (c Config) Validate() error { return messaging.CheckPublicURL(c.PublicURL) }

// Deps are what the service stands on.
type Deps struct {
	Logger   *slog.Logger
	Clock    clock.Clock
	Registry prometheus.Registerer
	// Tracing makes spans; nil makes none.
	Tracing *telemetry.Tracing
	// Loops get the finished turns of background loops; nil tells nobody.
	Loops *jobs.Loops
	// MasterKey opens the vault and authenticates page tokens.
	MasterKey []byte
	// PreviousKeys also open what was sealed before the master key was changed.
	PreviousKeys [][]byte
	// Verifier verifies the tokens of users.
	Verifier *auth.Verifier
	// Account is a connection to the account service as "messaging".
	Account grpc.ClientConnInterface
	// Adapters check the settings of channels.
	Adapters channel.Adapters
	// Wake is called after commits that left events; nil notifies the relays of
	// other processes through the database.
	Wake func()
}

// App is the messaging service, ready to serve.
type App struct {
	// Server has the service's RPCs.
	Server *grpcserver.Server

	db       *pg.DB
	notifier *outbox.Notifier
	clock    clock.Clock
	log      *slog.Logger
	loops    *jobs.Loops
}

// New migrates the database and wires the service.
func New(ctx context.Context, cfg Config, deps Deps) (*App, error) {
	url := cfg.DatabaseURL.Reveal()
	if err := Migrate(ctx, url); err != nil {
		return nil, err
	}
	v, err := vault.New(deps.MasterKey, deps.PreviousKeys...)
	if err != nil {
		return nil, fmt.Errorf("TURUMBA_MASTER_KEY: %w", err)
	}
	db, err := pg.Open(ctx, pg.Config{URL: url, Role: pg.RoleAPI, Clock: deps.Clock, Name: "messaging", Vault: v})
	if err != nil {
		return nil, err
	}
	a := &App{db: db, clock: deps.Clock, log: deps.Logger, loops: deps.Loops}
	if err := a.wire(ctx, cfg, deps, v); err != nil {
		db.Close()
		return nil, err
	}
	return a, nil
}

// Migrate brings the database to the newest schema, with partitions for the
// time to come.
func Migrate(ctx context.Context, url string) error {
	if err := pg.Migrate(ctx, url, postgres.Migrations()...); err != nil {
		return err
	}
	db, err := pg.Open(ctx, pg.Config{URL: url, Role: pg.RoleWorker, Name: "messaging-migrate", MaxConns: 1})
	if err != nil {
		return err
	}
	defer db.Close()
	s, err := postgres.New(db, make([]byte, 32), func() {}) // lists nothing
	if err != nil {
		return err
	}
	if err := s.Upkeep(ctx); err != nil {
		return err
	}
	_, err = s.RekeySuppressions(ctx)
	return err
}

// TokenKey authenticates page tokens; every process of one master key has the same.
func TokenKey(masterKey []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, masterKey, nil, "turumba page tokens v1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the page token key: %w", err)
	}
	return key, nil
}

func (a *App) wire(ctx context.Context, cfg Config, deps Deps, v *vault.Vault) error {
	tokenKey, err := TokenKey(deps.MasterKey)
	if err != nil {
		return err
	}
	wake := deps.Wake
	if wake == nil {
		a.notifier = outbox.NewNotifier(a.db, deps.Clock, deps.Logger)
		a.notifier.Loops = deps.Loops
		wake = a.notifier.Notify
	}
	store, err := postgres.New(a.db, tokenKey, wake)
	if err != nil {
		return err
	}
	key, err := store.ServiceKey(ctx, v, messaging.UnsubscribeKey)
	if err != nil {
		return err
	}
	links, err := messaging.NewUnsubscriber(cfg.PublicURL, key)
	if err != nil {
		return err
	}
	accounts := directory.New(deps.Account)
	if deps.Registry != nil {
		if err := deps.Registry.Register(pg.Collector("messaging", a.db)); err != nil {
			return err
		}
	}
	a.Server, err = grpcserver.New(grpcserver.Config{
		Limiter: grpcserver.Unlimited{
			messagingv1.SuppressionService_Unsubscribe_FullMethodName: "links cannot be guessed, and mail providers follow many of them from one address",
		},
		Name: "messaging", Logger: deps.Logger, Clock: deps.Clock, Verifier: deps.Verifier, Context: auth.NewCachedContext(accounts, deps.Clock),
		Registry: deps.Registry, Tracing: deps.Tracing, Mesh: cfg.Mesh,
	})
	if err != nil {
		return err
	}
	server.Register(a.Server, server.Config{Store: store, Vault: v, Adapters: deps.Adapters, Directory: accounts, Clock: deps.Clock, Unsubscriber: links})
	return a.Server.Check()
}

// Ready reports whether the database answers.
func (a *App) Ready(ctx context.Context) error { return a.db.Ping(ctx) }

// purgeEvery is how often expired rows are removed.
const purgeEvery = time.Hour

// purgeStall is how long one statement that removes rows may take.
const purgeStall = 25 * time.Second

// Close closes the database, after the last call has ended.
func (a *App) Close() { a.db.Close() }

// Run notifies and removes expired rows until ctx ends.
func (a *App) Run(ctx context.Context) error {
	var g errgroup.Group
	if a.notifier != nil {
		g.Go(func() error { return a.notifier.Run(ctx) })
	}
	purge := &jobs.Loop{Name: "messaging.purge", Stall: purgeStall, Clock: a.clock, Logger: a.log, Loops: a.loops, Turn: a.purge}
	g.Go(func() error { return purge.Run(ctx) })
	return g.Wait()
}

// purge removes idempotency keys that have expired.
func (a *App) purge(ctx context.Context) (time.Duration, error) {
	if _, err := a.db.PurgeIdempotencyKeys(ctx); err != nil {
		return time.Minute, err
	}
	return purgeEvery, nil
}
