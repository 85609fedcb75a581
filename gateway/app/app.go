// Package app wires the gateway: the REST face over connections to the services.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turumba/turumba/gateway/rest"
	"github.com/turumba/turumba/kit/bounds"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/tcp"
	"github.com/turumba/turumba/kit/telemetry"
)

// Config is the gateway's own part of the settings.
type Config struct {
	// HTTPAddr is the address that REST is served on.
	HTTPAddr string `env:"HTTP_ADDR" envDefault:":8080" flag:"http" help:"address that REST is served on"`
	// CORSOrigins are the origins that browsers may call from, with credentials;
	// empty means any origin, without.
	CORSOrigins []string `env:"CORS_ORIGINS" help:"comma-separated origins that browsers may call from; empty: any, without credentials"`
	// TrustedProxies are the load balancers before the gateway, whose
	// X-Forwarded-For counts.
	TrustedProxies []netip.Prefix `env:"TRUSTED_PROXIES" help:"comma-separated CIDRs of load balancers whose X-Forwarded-For is believed; empty: none"`
}

// drainTime is how long open requests may take after the stop was asked for.
const drainTime = 8 * time.Second

// What the listener takes from whom it does not know (ADR 0041).
const (
	// maxHeaders is the most bytes of a header block; net/http reads 4 KiB more, which
	// makes 16.
	maxHeaders = 12 << 10
)

// Deps are what the gateway stands on.
type Deps struct {
	Backends rest.Backends
	Logger   *slog.Logger
	Clock    clock.Clock
	// Registry gets the measurements and Tracing makes spans; both may be nil.
	Registry prometheus.Registerer
	Tracing  *telemetry.Tracing
	// Ready tells whether the services answer.
	Ready func(context.Context) error
}

// App is a gateway that is listening.
type App struct {
	listener net.Listener
	server   *http.Server
}

// New listens, so that a port that is taken is known before anything starts.
func New(ctx context.Context, cfg Config, deps Deps) (*App, error) {
	most, streams := connections(openFiles())
	handler, err := rest.NewHandler(ctx, rest.Config{
		Backends: deps.Backends, Logger: deps.Logger, CORSOrigins: cfg.CORSOrigins, TrustedProxies: cfg.TrustedProxies, Clock: deps.Clock, Ready: deps.Ready,
		Registry: deps.Registry, Tracing: deps.Tracing, MaxStreams: streams,
	})
	if err != nil {
		return nil, err
	}
	l, err := tcp.Listen(ctx, cfg.HTTPAddr)
	if err != nil {
		return nil, fmt.Errorf("cannot serve REST on %s: %w (set HTTP_ADDR to a free address)", cfg.HTTPAddr, err)
	}
	return &App{listener: bounds.Listener(l, most), server: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaders,
		ErrorLog:          slog.NewLogLogger(deps.Logger.Handler(), slog.LevelDebug),
	}}, nil
}

// Addr is the address that the gateway listens on.
func (a *App) Addr() net.Addr { return a.listener.Addr() }

// Run serves until ctx ends, then ends streams and lets open requests finish.
func (a *App) Run(ctx context.Context) error {
	base := rest.BaseContext(ctx)
	a.server.BaseContext = func(net.Listener) context.Context { return base }
	failed := make(chan error, 1)
	go func() { failed <- a.server.Serve(a.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve REST: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	err := a.server.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = a.server.Close()
	}
	if serveErr := <-failed; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}
