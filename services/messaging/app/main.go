package app

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/process"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging/channel/providers"
	"github.com/turumba/turumba/services/messaging/directory"
)

// Settings are those of the messaging binary.
type Settings struct {
	Config
	process.Admin
	// GRPCAddr is where the service is reached.
	GRPCAddr string `env:"GRPC_ADDR" envDefault:"127.0.0.1:9000" flag:"grpc" help:"address that gRPC is served on"`
	// AccountAddr is where the account service is reached.
	AccountAddr string `env:"ACCOUNT_ADDR,required,notEmpty" help:"gRPC target of the account service, dns:///host:port"`
	// Issuer and ClientID are what our own tokens name.
	Issuer   string `env:"OIDC_ISSUER" envDefault:"http://localhost:8080" help:"issuer of our own tokens"`
	ClientID string `env:"OIDC_CLIENT_ID" envDefault:"turumba" help:"client_id of our own tokens"`
	// Trusted is a further issuer whose tokens are accepted, such as a Cognito pool.
	Trusted auth.Trusted
	// MasterKey opens the vault.
	MasterKey config.Secret `env:"TURUMBA_MASTER_KEY,required" help:"32 bytes in base64: openssl rand -base64 32"`
	// PreviousKeys open what was sealed before.
	PreviousKeys config.Secret `env:"TURUMBA_MASTER_KEY_PREVIOUS" help:"former master keys, comma-separated, while keys are being rotated"`
	// EgressAllow are the private addresses that may be reached.
	EgressAllow string `env:"EGRESS_ALLOW" help:"CIDR:port,… that may be reached although private"`
}

// keysLimit is how long an issuer may take to show its keys.
const keysLimit = 5 * time.Second

// Main serves the messaging service until ctx ends.
func Main(ctx context.Context, cfg Settings) error {
	log, c, registry := telemetry.NewLogger(os.Stderr, cfg.LogLevel), clock.System(), telemetry.NewRegistry()
	tracing, err := cfg.Traces.Tracing(ctx, "messaging", log)
	if err != nil {
		return err
	}
	defer tracing.Close(ctx)
	loops, err := jobs.NewLoops(c, registry)
	if err != nil {
		return err
	}
	deps := Deps{Logger: log, Clock: c, Registry: registry, Tracing: tracing, Loops: loops}
	rules, err := egress.ParseAllow(cfg.EgressAllow)
	if err != nil {
		return fmt.Errorf("EGRESS_ALLOW: %w", err)
	}
	dialer := egress.NewDialer(egress.Options{Allow: rules})
	deps.Adapters = providers.All(providers.Config{Dialer: dialer, Clock: c})
	if deps.MasterKey, err = vault.ParseKey(cfg.MasterKey.Reveal()); err != nil {
		return fmt.Errorf("TURUMBA_MASTER_KEY: %w", err)
	}
	if deps.PreviousKeys, err = vault.ParsePrevious(cfg.PreviousKeys.Reveal()); err != nil {
		return fmt.Errorf("TURUMBA_MASTER_KEY_PREVIOUS: %w", err)
	}
	node, err := cfg.Mesh.Open(ctx, grpcserver.NodeConfig{Service: "messaging", Serves: true, Calls: true, Logger: log, Clock: c, Registry: registry, Loops: loops})
	if err != nil {
		return err
	}
	defer node.Close()
	cfg.Mesh = node.Mesh()
	account, err := node.Dial("account", cfg.AccountAddr)
	if err != nil {
		return err
	}
	deps.Account = account
	own := auth.VerifierConfig{Issuer: cfg.Issuer, Profile: auth.ProfileCognito, Audience: []string{cfg.ClientID}, Own: true, Keys: directory.Keys(account, keysLimit), Clock: c}
	trusted := cfg.Trusted.Configs(dialer.HTTPClient(egress.HTTPOptions{Timeout: keysLimit}), c)
	if deps.Verifier, err = auth.NewVerifier(append(trusted, own)...); err != nil {
		return err
	}
	deps.Verifier.LogTo(log)
	if err := pg.EnsureDatabase(ctx, cfg.DatabaseURL.Reveal()); err != nil {
		return err
	}
	a, err := New(ctx, cfg.Config, deps)
	if err != nil {
		return err
	}
	defer a.Close()
	return serve(ctx, cfg, a, deps, node, registry)
}

func serve(ctx context.Context, cfg Settings, a *App, deps Deps, node *grpcserver.Node, registry *prometheus.Registry) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.GRPCAddr)
	if err != nil {
		return fmt.Errorf("cannot serve gRPC on %s: %w (set GRPC_ADDR to a free address)", cfg.GRPCAddr, err)
	}
	reflection, err := grpcserver.Reflection(a.Server)
	if err != nil {
		return err
	}
	checks := node.Checks()
	checks["database"], checks["loop"] = a.Ready, deps.Loops.Ready
	adminAddr, admin, err := cfg.Listen(ctx, registry, checks, reflection)
	if err != nil {
		return err
	}
	deps.Logger.InfoContext(ctx, "messaging service is serving", "grpc", l.Addr().String(), "admin", adminAddr.String())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return grpcserver.Serve(ctx, l, a.Server) })
	g.Go(func() error { return admin(ctx) })
	g.Go(func() error { return node.Run(ctx) })
	g.Go(func() error { return a.Run(ctx) })
	return g.Wait()
}
