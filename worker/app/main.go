package app

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/rabbitmq"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/process"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging/channel/providers"
	"github.com/turumba/turumba/worker/relay"
)

// Settings are those of the worker binary.
type Settings struct {
	Config
	process.Admin
	// Mesh proves the worker to the account service.
	Mesh grpcserver.Mesh
	// AccountAddr is where the account service is reached.
	AccountAddr string `env:"ACCOUNT_ADDR,required,notEmpty" help:"gRPC target of the account service, dns:///host:port"`
	// AMQPURL is the broker.
	AMQPURL config.Secret `env:"AMQP_URL,required" help:"RabbitMQ: amqp://user:password@host:port/vhost"`
	// QuorumQueues asks for replicated queues.
	QuorumQueues bool `env:"AMQP_QUORUM_QUEUES" envDefault:"true" help:"quorum queues (true) or classic durable ones (false); the same in every worker"`
	// MasterKey opens the vault.
	MasterKey config.Secret `env:"TURUMBA_MASTER_KEY,required" help:"32 bytes in base64: openssl rand -base64 32"`
	// PreviousKeys open what was sealed before.
	PreviousKeys config.Secret `env:"TURUMBA_MASTER_KEY_PREVIOUS" help:"former master keys, comma-separated, while keys are being rotated"`
	// EgressAllow are the private addresses that may be reached.
	EgressAllow string `env:"EGRESS_ALLOW" help:"CIDR:port,… that may be reached although private"`
}

// Main works until ctx ends.
func Main(ctx context.Context, cfg Settings) error {
	log, c, registry := telemetry.NewLogger(os.Stderr, cfg.LogLevel), clock.System(), telemetry.NewRegistry()
	tracing, err := cfg.Traces.Tracing(ctx, "worker", log)
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
	deps.Adapters = providers.All(providers.Config{Dialer: egress.NewDialer(egress.Options{Allow: rules}), Clock: c})
	if deps.MasterKey, err = vault.ParseKey(cfg.MasterKey.Reveal()); err != nil {
		return fmt.Errorf("TURUMBA_MASTER_KEY: %w", err)
	}
	if deps.PreviousKeys, err = vault.ParsePrevious(cfg.PreviousKeys.Reveal()); err != nil {
		return fmt.Errorf("TURUMBA_MASTER_KEY_PREVIOUS: %w", err)
	}
	node, err := cfg.Mesh.Open(ctx, grpcserver.NodeConfig{Service: "worker", Calls: true, Logger: log, Clock: c, Registry: registry, Loops: loops})
	if err != nil {
		return err
	}
	defer node.Close()
	if deps.Account, err = node.Dial("account", cfg.AccountAddr); err != nil {
		return err
	}
	broker, err := rabbitmq.Dial(ctx, cfg.AMQPURL.Reveal(), relay.Topology(true, cfg.QuorumQueues), rabbitmq.Options{Name: "worker", Clock: c, Logger: log})
	if err != nil {
		return err
	}
	defer func() { _ = broker.Close() }() // its consumers have ended
	if deps.Bus, err = bus.Measured(broker, registry); err != nil {
		return err
	}
	a, err := New(ctx, cfg.Config, deps)
	if err != nil {
		return err
	}
	defer a.Close()
	checks := node.Checks()
	checks["database"], checks["broker"], checks["loop"] = a.Ready, broker.Ready, loops.Ready
	adminAddr, admin, err := cfg.Listen(ctx, registry, checks, nil)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "worker is working", "roles", cfg.Roles, "admin", adminAddr.String())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return admin(ctx) })
	g.Go(func() error { return node.Run(ctx) })
	g.Go(func() error { return a.Run(ctx) })
	return g.Wait()
}
