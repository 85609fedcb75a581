package app

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/gateway/rest"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/process"
	"github.com/turumba/turumba/kit/telemetry"
)

// Settings are those of the gateway binary.
type Settings struct {
	Config
	process.Admin
	// Mesh encrypts the connections to the services. The gateway forwards users; its
	// own identity only proves that the client addresses it tells are true.
	Mesh grpcserver.Mesh
	// AccountAddr and MessagingAddr are where the services are reached.
	AccountAddr   string `env:"ACCOUNT_ADDR,required,notEmpty" help:"gRPC target of the account service, dns:///host:port"`
	MessagingAddr string `env:"MESSAGING_ADDR,required,notEmpty" help:"gRPC target of the messaging service, dns:///host:port"`
}

// Main serves REST until ctx ends.
func Main(ctx context.Context, cfg Settings) error {
	process.TuneGC(process.GCPublic)
	log, c, registry := telemetry.NewLogger(os.Stderr, cfg.LogLevel), clock.System(), telemetry.NewRegistry()
	tracing, err := cfg.Traces.Tracing(ctx, "gateway", log)
	if err != nil {
		return err
	}
	defer tracing.Close(ctx)
	loops, err := jobs.NewLoops(c, registry)
	if err != nil {
		return err
	}
	node, err := cfg.Mesh.Open(ctx, grpcserver.NodeConfig{Service: grpcserver.Gateway, Calls: true, Logger: log, Clock: c, Registry: registry, Loops: loops})
	if err != nil {
		return err
	}
	defer node.Close()
	account, err := node.Dial("account", cfg.AccountAddr)
	if err != nil {
		return err
	}
	messaging, err := node.Dial("messaging", cfg.MessagingAddr)
	if err != nil {
		return err
	}
	checks := node.Checks()
	checks["loop"] = loops.Ready
	a, err := New(ctx, cfg.Config, Deps{
		Backends: rest.Backends{Account: account, Messaging: messaging}, Logger: log, Clock: c, Registry: registry, Tracing: tracing,
		Ready: func(ctx context.Context) error {
			for name, check := range checks {
				if err := check(ctx); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	adminAddr, admin, err := cfg.Listen(ctx, registry, checks, nil)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "gateway is serving", "http", a.Addr().String(), "admin", adminAddr.String())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return admin(ctx) })
	g.Go(func() error { return node.Run(ctx) })
	g.Go(func() error { return a.Run(ctx) })
	return g.Wait()
}
