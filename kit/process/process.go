// Package process is what every binary does around its work: signals, one-line
// errors, the admin listener and the health check of containers.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/kit/telemetry"
)

// Main loads the settings, runs the program until SIGINT or SIGTERM, and returns
// the exit code. Each problem is one line on stderr. `health` as the only
// argument asks the admin listener of a running process instead.
func Main[T any](ctx context.Context, environ, args []string, stdout, stderr io.Writer, run func(context.Context, T) error) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	TuneGC(GCBusy)
	if len(args) == 1 && args[0] == "health" {
		return exit(stderr, health(ctx, environ))
	}
	cfg, err := config.Load[T](environ, args...)
	if errors.Is(err, config.ErrHelp) {
		fmt.Fprint(stdout, config.Usage[T]())
		return 0
	}
	if err == nil {
		err = run(ctx, cfg)
	}
	return exit(stderr, err)
}

func exit(stderr io.Writer, err error) int {
	if err == nil || errors.Is(err, context.Canceled) {
		return 0
	}
	fmt.Fprintln(stderr, err)
	return 1
}

// Admin is the listener for operators.
type Admin struct {
	// Addr is where metrics, pprof, health and gRPC reflection are served. It must
	// not be reachable from outside.
	Addr string `env:"ADMIN_ADDR" envDefault:"127.0.0.1:9090" flag:"admin" help:"address of metrics, pprof, health and reflection; for operators only"`
	// LogLevel is the least level that is logged.
	LogLevel slog.Level `env:"LOG_LEVEL" envDefault:"INFO" help:"DEBUG, INFO, WARN or ERROR"`
	// Traces say where spans go.
	Traces telemetry.TraceSettings
}

// adminDrain is how long open requests of operators may take after the stop.
const adminDrain = time.Second

// Listen opens the listener, so that a port that is taken is known before
// anything starts, and returns its address: that of the settings may leave the port to the
// system. reflection may be nil. serve serves until its context ends.
func (a Admin) Listen(ctx context.Context, registry *prometheus.Registry, checks map[string]telemetry.Check, reflection *grpc.Server) (addr net.Addr, serve func(context.Context) error, err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.Addr)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot listen for operators on %s: %w (set ADMIN_ADDR to a free address)", a.Addr, err)
	}
	settle()
	handler := telemetry.AdminHandler(registry, checks)
	server := &http.Server{Handler: withReflection(handler, reflection), ReadHeaderTimeout: 5 * time.Second, Protocols: &http.Protocols{}}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	return l.Addr(), func(ctx context.Context) error {
		var g errgroup.Group
		g.Go(func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve operators: %w", err)
			}
			return nil
		})
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminDrain)
		defer cancel()
		if server.Shutdown(drain) != nil {
			_ = server.Close() // a profile that is still running
		}
		return g.Wait()
	}, nil
}

// withReflection sends gRPC calls to the reflection server.
func withReflection(admin http.Handler, reflection *grpc.Server) http.Handler {
	if reflection == nil {
		return admin
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			reflection.ServeHTTP(w, r)
			return
		}
		admin.ServeHTTP(w, r)
	})
}

// healthLimit is how long a health check may take.
const healthLimit = 3 * time.Second

// health asks the process at ADMIN_ADDR whether it is ready.
func health(ctx context.Context, environ []string) error {
	a, err := config.Load[Admin](environ)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(a.Addr)
	if err != nil {
		return fmt.Errorf("ADMIN_ADDR: %q is not host:port", a.Addr)
	}
	at, err := netip.ParseAddr(host)
	if err != nil || at.IsUnspecified() {
		at = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	rules, err := egress.ParseAllow(fmt.Sprintf("%s/%d:%s", at, at.BitLen(), port))
	if err != nil {
		return fmt.Errorf("ADMIN_ADDR: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(at.String(), port)+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	client := egress.NewDialer(egress.Options{Allow: rules}).HTTPClient(egress.HTTPOptions{Timeout: healthLimit, Plaintext: true})
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", resp.Status)
	}
	return nil
}
