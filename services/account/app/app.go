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
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/importer"
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
	// Operators operate the platform.
	Operators []string `env:"TURUMBA_OPERATORS" help:"comma-separated e-mail addresses of the users who operate the platform"`
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
	// MasterKey opens the vault and authenticates page tokens.
	MasterKey []byte
	Mailer    identity.Mailer
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
	store    *postgres.Store
	mail     *identity.Postbox
	importer *importer.Importer
	clock    clock.Clock
	log      *slog.Logger
}

// New migrates the database and wires the service.
func New(ctx context.Context, cfg Config, deps Deps) (*App, error) {
	url := cfg.DatabaseURL.Reveal()
	if err := pg.Migrate(ctx, url, postgres.Migrations()...); err != nil {
		return nil, err
	}
	v, err := vault.New(deps.MasterKey)
	if err != nil {
		return nil, fmt.Errorf("TURUMBA_MASTER_KEY: %w", err)
	}
	db, err := pg.Open(ctx, pg.Config{URL: url, Role: pg.RoleAPI, Clock: deps.Clock, Name: "account"})
	if err != nil {
		return nil, err
	}
	a := &App{db: db, clock: deps.Clock, log: deps.Logger}
	if err := a.wire(ctx, cfg, deps, v); err != nil {
		db.Close()
		return nil, err
	}
	return a, nil
}

func (a *App) wire(ctx context.Context, cfg Config, deps Deps, v *vault.Vault) error {
	tokenKey, err := hkdf.Key(sha256.New, deps.MasterKey, nil, "turumba page tokens v1", 32)
	if err != nil {
		return fmt.Errorf("derive the page token key: %w", err)
	}
	if a.store, err = postgres.New(a.db, tokenKey, cfg.Issuer); err != nil {
		return err
	}
	callers := auth.NewCachedContext(contextSource{a.store}, deps.Clock)
	keys, provider, err := a.identify(ctx, cfg, deps, v, callers.Invalidate)
	if err != nil {
		return err
	}
	a.Server, err = grpcserver.New(grpcserver.Config{
		Name: "account", Logger: deps.Logger, Clock: deps.Clock, Verifier: a.Verifier, Context: callers,
		Registry: deps.Registry, Mesh: cfg.Mesh,
	})
	if err != nil {
		return err
	}
	if a.importer, err = importer.New(a.store, deps.Clock, deps.Logger); err != nil {
		return err
	}
	server.Register(a.Server, server.Config{
		Store: a.store, Identity: provider, Keys: keys, Mail: a.mail, Clock: deps.Clock, PublicURL: cfg.Issuer, Uploaded: a.importer.Wake, Changed: callers.Invalidate,
	})
	return a.Server.Check()
}

// contextSource answers the chain from the service's own store.
type contextSource struct{ store *postgres.Store }

// Context implements auth.ContextSource.
func (c contextSource) Context(ctx context.Context, claims auth.Claims) (auth.Caller, error) {
	return c.store.Caller(ctx, claims.Issuer, claims.Subject)
}

// Ready reports whether the database answers.
func (a *App) Ready(ctx context.Context) error { return a.db.Pool().Ping(ctx) }

// purgeEvery is how often expired rows are removed.
const purgeEvery = time.Hour

// Close closes the database, after the last call has ended.
func (a *App) Close() { a.db.Close() }

// Run sends mails, imports files and removes expired rows until ctx ends.
func (a *App) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.mail.Run(ctx) })
	g.Go(func() error { return a.importer.Run(ctx) })
	g.Go(func() error { return a.purge(ctx) })
	return g.Wait()
}

func (a *App) purge(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := a.store.Purge(ctx); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "expired rows could not be removed", "err", err)
		}
		_ = clock.Sleep(ctx, a.clock, purgeEvery) // it fails only when ctx ends
	}
	return nil
}
