package app

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/process"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/account/identity"
)

// Settings are those of the account binary.
type Settings struct {
	Config
	process.Admin
	// GRPCAddr is where the service is reached.
	GRPCAddr string `env:"GRPC_ADDR" envDefault:"127.0.0.1:9000" flag:"grpc" help:"address that gRPC is served on"`
	// MasterKey opens the vault.
	MasterKey config.Secret `env:"TURUMBA_MASTER_KEY,required" help:"32 bytes in base64: openssl rand -base64 32"`
	// PreviousKeys open what was sealed before.
	PreviousKeys config.Secret `env:"TURUMBA_MASTER_KEY_PREVIOUS" help:"former master keys, comma-separated, while keys are being rotated"`
	// MailURL is the server for our own mails.
	MailURL config.Secret `env:"MAIL_URL,required" help:"smtp://user:password@host:port?from=address for verification codes"`
	// EgressAllow are the private addresses that may be reached.
	EgressAllow string `env:"EGRESS_ALLOW" help:"CIDR:port,… that may be reached although private"`
}

// idpLimit is how long another identity provider may take to answer.
const idpLimit = 10 * time.Second

// Main serves the account service until ctx ends.
func Main(ctx context.Context, cfg Settings) error {
	process.TuneGC(process.GCPublic)
	log, c, registry := telemetry.NewLogger(os.Stderr, cfg.LogLevel), clock.System(), telemetry.NewRegistry()
	tracing, err := cfg.Traces.Tracing(ctx, "account", log)
	if err != nil {
		return err
	}
	defer tracing.Close(ctx)
	loops, err := jobs.NewLoops(c, registry)
	if err != nil {
		return err
	}
	node, err := cfg.Mesh.Open(ctx, grpcserver.NodeConfig{Service: "account", Serves: true, Logger: log, Clock: c, Registry: registry, Loops: loops})
	if err != nil {
		return err
	}
	defer node.Close()
	cfg.Mesh = node.Mesh()
	deps := Deps{Logger: log, Clock: c, Registry: registry, Tracing: tracing, Loops: loops}
	rules, err := egress.ParseAllow(cfg.EgressAllow)
	if err != nil {
		return fmt.Errorf("EGRESS_ALLOW: %w", err)
	}
	dialer := egress.NewDialer(egress.Options{Allow: rules})
	deps.HTTP = dialer.HTTPClient(egress.HTTPOptions{Timeout: idpLimit})
	if deps.Mailer, err = identity.NewSMTPMailer(cfg.MailURL.Reveal(), dialer); err != nil {
		return err
	}
	if deps.MasterKey, err = vault.ParseKey(cfg.MasterKey.Reveal()); err != nil {
		return fmt.Errorf("TURUMBA_MASTER_KEY: %w", err)
	}
	if deps.PreviousKeys, err = vault.ParsePrevious(cfg.PreviousKeys.Reveal()); err != nil {
		return fmt.Errorf("TURUMBA_MASTER_KEY_PREVIOUS: %w", err)
	}
	if err := pg.EnsureDatabase(ctx, cfg.DatabaseURL.Reveal()); err != nil {
		return err
	}
	a, err := New(ctx, cfg.Config, deps)
	if err != nil {
		return err
	}
	defer a.Close()
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
	checks["database"], checks["loop"] = a.Ready, loops.Ready
	adminAddr, admin, err := cfg.Listen(ctx, registry, checks, reflection)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "account service is serving", "grpc", l.Addr().String(), "admin", adminAddr.String())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return grpcserver.Serve(ctx, l, a.Server) })
	g.Go(func() error { return admin(ctx) })
	g.Go(func() error { return node.Run(ctx) })
	g.Go(func() error { return a.Run(ctx) })
	return g.Wait()
}
