// Package app wires the account service, for its own binary and for the single
// process.
package app

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/mongodb"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/importer"
	documents "github.com/turumba/turumba/services/account/mongodb"
	"github.com/turumba/turumba/services/account/postgres"
	"github.com/turumba/turumba/services/account/server"
)

// Config is the account service's own settings.
type Config struct {
	// DatabaseURL is the service's PostgreSQL.
	DatabaseURL config.Secret `env:"DATABASE_URL,required" help:"PostgreSQL 15 or newer: postgres://user:password@host:port/turumba_account"`
	// Issuer is the iss of tokens, and where the gateway is reached.
	Issuer string `env:"OIDC_ISSUER" envDefault:"http://localhost:8080" help:"issuer of our own tokens; the gateway's public URL"`
	// ClientID is the client_id of tokens.
	ClientID string `env:"OIDC_CLIENT_ID" envDefault:"turumba" help:"client_id of our own tokens"`
	// MongoURL is where contacts are; empty for PostgreSQL.
	MongoURL config.Secret `env:"MONGODB_URL" help:"MongoDB for contacts and their groups: mongodb://user:password@host:port/turumba_account; default: PostgreSQL"`
	// Operators operate the platform.
	Operators []string `env:"TURUMBA_OPERATORS" help:"comma-separated e-mail addresses of the users who operate the platform"`
	// Quotas are those of accounts that have none of their own.
	Quotas QuotaSettings
	// MessageRetentionDays is how long texts of messages are kept by default.
	MessageRetentionDays uint16 `env:"TURUMBA_MESSAGE_RETENTION_DAYS" envDefault:"0" help:"days for which the texts of messages are kept after their end, where an account sets none; 0: for ever"`
	// Identity says where people's logins are.
	Identity IdentitySettings
	// Mesh proves the services to each other.
	Mesh grpcserver.Mesh
}

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
	Mailer       identity.Mailer
	// HTTP is the way out to other identity providers.
	HTTP *http.Client
}

// App is the account service, ready to serve.
type App struct {
	// Server has the service's RPCs.
	Server *grpcserver.Server
	// JWKS is the key set of our own tokens.
	JWKS auth.JWKSSource
	// Verifier verifies this service's tokens.
	Verifier *auth.Verifier

	db       *pg.DB
	mongo    *mongodb.DB // nil without
	store    *postgres.Store
	contacts contacts
	sweep    func(context.Context) error // tidies up what changes of contacts left open
	rekey    func(context.Context) (duplicates []string, left bool, err error)
	mail     *identity.Postbox
	importer *importer.Importer
	clock    clock.Clock
	log      *slog.Logger
	loops    *jobs.Loops
}

// New migrates the database and wires the service.
func New(ctx context.Context, cfg Config, deps Deps) (*App, error) {
	url := cfg.DatabaseURL.Reveal()
	if err := pg.Migrate(ctx, url, postgres.Migrations()...); err != nil {
		return nil, err
	}
	v, err := vault.New(deps.MasterKey, deps.PreviousKeys...)
	if err != nil {
		return nil, fmt.Errorf("TURUMBA_MASTER_KEY: %w", err)
	}
	db, err := pg.Open(ctx, pg.Config{URL: url, Role: pg.RoleAPI, Clock: deps.Clock, Name: "account", Vault: v})
	if err != nil {
		return nil, err
	}
	a := &App{db: db, clock: deps.Clock, log: deps.Logger, loops: deps.Loops}
	if err := a.wire(ctx, cfg, deps, v); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

func (a *App) wire(ctx context.Context, cfg Config, deps Deps, v *vault.Vault) error {
	tokenKey, err := hkdf.Key(sha256.New, deps.MasterKey, nil, "turumba page tokens v1", 32)
	if err != nil {
		return fmt.Errorf("derive the page token key: %w", err)
	}
	if a.store, err = postgres.New(a.db, tokenKey, cfg.Issuer, cfg.Quotas.defaults()); err != nil {
		return err
	}
	a.store.LimitAccounts(int64(cfg.Quotas.AccountsPerPerson))
	callers := auth.NewCachedContext(contextSource{a.store}, deps.Clock)
	keys, provider, err := a.identify(ctx, cfg, deps, v, callers.Invalidate)
	if err != nil {
		return err
	}
	if deps.Registry != nil {
		if err := deps.Registry.Register(pg.Collector("account", a.db)); err != nil {
			return err
		}
	}
	devices := identity.Devices{Vault: v, Clock: deps.Clock}
	a.Server, err = grpcserver.New(grpcserver.Config{
		Limiter: identity.NewBudgets(identity.Limits{Store: a.store}, devices, cfg.Identity.places()),
		Name:    "account", Logger: deps.Logger, Clock: deps.Clock, Verifier: a.Verifier, Context: callers,
		Registry: deps.Registry, Tracing: deps.Tracing, Mesh: cfg.Mesh,
	})
	if err != nil {
		return err
	}
	if err := a.openContacts(ctx, cfg, deps, tokenKey); err != nil {
		return err
	}
	if a.importer, err = importer.New(a.store, a.contacts, deps.Clock, deps.Logger, deps.Loops); err != nil {
		return err
	}
	server.Register(a.Server, server.Config{
		Store: a.store, Contacts: a.contacts, Identity: provider, Keys: keys, Devices: devices, Mail: a.mail, Clock: deps.Clock, PublicURL: cfg.Issuer, MessageRetentionDays: int32(cfg.MessageRetentionDays),
		Changed: callers.Invalidate,
	})
	return a.Server.Check()
}

// contacts is a contact store, with what imports need of it.
type contacts interface {
	server.Contacts
	importer.Batches
}

// openContacts chooses where contacts are: MongoDB when it is set, else PostgreSQL.
func (a *App) openContacts(ctx context.Context, cfg Config, deps Deps, tokenKey []byte) error {
	a.contacts, a.rekey, a.sweep = a.store, a.store.Rekey, func(context.Context) error { return nil }
	if cfg.MongoURL == "" {
		return nil
	}
	idKey, err := hkdf.Key(sha256.New, deps.MasterKey, nil, "turumba contact ids v1", 32)
	if err != nil {
		return fmt.Errorf("derive the key of contact ids: %w", err)
	}
	a.mongo, err = mongodb.Open(ctx, mongodb.Config{URL: cfg.MongoURL.Reveal(), Database: "turumba_account", Name: "account", Clock: deps.Clock})
	if err != nil {
		return fmt.Errorf("MONGODB_URL: %w", err)
	}
	store, err := documents.New(ctx, documents.Config{DB: a.mongo, Journal: a.store, TokenKey: tokenKey, IDKey: idKey})
	if err != nil {
		return fmt.Errorf("MONGODB_URL: %w", err)
	}
	a.contacts, a.rekey, a.sweep = store, store.Rekey, store.Sweep
	return nil
}

// contextSource answers the chain from the service's own store.
type contextSource struct{ store *postgres.Store }

// Context implements auth.ContextSource.
func (c contextSource) Context(ctx context.Context, claims auth.Claims) (auth.Caller, error) {
	return c.store.Caller(ctx, claims.Issuer, claims.Subject)
}

// Ready reports whether the databases answer.
func (a *App) Ready(ctx context.Context) error {
	if err := a.db.Ping(ctx); err != nil || a.mongo == nil {
		return err
	}
	return a.mongo.Ping(ctx)
}

const (
	purgeEvery = time.Hour   // expired rows
	sweepEvery = time.Minute // what changes of contacts left open
	// purgeStall is how long one statement that removes rows may take.
	purgeStall = 25 * time.Second
)

// Close closes the databases, after the last call has ended.
func (a *App) Close() {
	if a.mongo != nil {
		a.mongo.Close()
	}
	a.db.Close()
}

// Run sends mails, imports files and removes expired rows until ctx ends.
func (a *App) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.mail.Run(ctx) })
	g.Go(func() error { return a.importer.Run(ctx) })
	g.Go(func() error { return a.every("account.purge", purgeEvery, a.store.Purge).Run(ctx) })
	g.Go(func() error { return a.every("account.sweep", sweepEvery, a.sweep).Run(ctx) })
	g.Go(func() error { return a.rekeying().Run(ctx) })
	return g.Wait()
}

// rekeying brings the keys of contacts of before one normaliser into today's form, and tells
// the log of those that turned out to be one person's.
func (a *App) rekeying() *jobs.Loop {
	return &jobs.Loop{Name: "account.rekey", Stall: purgeStall, Clock: a.clock, Logger: a.log, Loops: a.loops, Turn: func(ctx context.Context) (time.Duration, error) {
		duplicates, left, err := a.rekey(ctx)
		for _, id := range duplicates {
			a.log.WarnContext(ctx, "contact has the address of another; list them with filter=duplicate_of_id:is_not_null", "contact_id", id)
		}
		switch {
		case err != nil:
			return time.Minute, err
		case left:
			return 0, nil
		}
		return purgeEvery, nil
	}}
}

// every does something again and again; after a failure it tries again within a minute.
func (a *App) every(name string, pause time.Duration, do func(context.Context) error) *jobs.Loop {
	return &jobs.Loop{Name: name, Stall: purgeStall, Clock: a.clock, Logger: a.log, Loops: a.loops, Turn: func(ctx context.Context) (time.Duration, error) {
		if err := do(ctx); err != nil {
			return min(pause, time.Minute), err
		}
		return pause, nil
	}}
}
