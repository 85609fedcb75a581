package telemetry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/pprof"
	"sort"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const readyTimeout = 2 * time.Second

// Check reports whether a dependency can be used; it returns promptly when ctx
// ends. An error with a method NotReady() []string names the parts that are not ready,
// in words that anybody may read.
type Check func(ctx context.Context) error

// AdminHandler serves /metrics, /healthz, /readyz and /debug/pprof/. It must
// listen on an address that only operators reach. Every check must pass within
// 2 s for /readyz to answer 200; which one failed is shown by name, the error is
// not.
func AdminHandler(registry *prometheus.Registry, ready map[string]Check) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	mux.HandleFunc("GET /healthz", Healthz)
	mux.Handle("GET /readyz", Readyz(ready))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// Healthz answers 200 as long as the process serves requests.
func Healthz(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok\n") }

// Readyz returns a handler that answers 200 when every check passes, else 503
// with the names of those that do not.
func Readyz(checks map[string]Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		failed := failing(ctx, checks)
		if len(failed) == 0 {
			answer(w, http.StatusOK, "ok\n")
			return
		}
		text := ""
		for _, name := range failed {
			text += name + ": not ready\n"
		}
		answer(w, http.StatusServiceUnavailable, text)
	})
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

// named is what a failed check is called: by its name, and where its error says which
// parts are not ready, by each.
func named(name string, err error) []string {
	var parts interface{ NotReady() []string }
	if !errors.As(err, &parts) || len(parts.NotReady()) == 0 {
		return []string{name}
	}
	var names []string
	for _, part := range parts.NotReady() {
		names = append(names, name+" "+part)
	}
	return names
}

// failing runs the checks at the same time and returns the sorted names of those
// that fail.
func failing(ctx context.Context, checks map[string]Check) []string {
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		failed []string
	)
	for name, check := range checks {
		wg.Go(func() {
			if err := check(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, named(name, err)...)
			}
		})
	}
	wg.Wait()
	sort.Strings(failed)
	return failed
}
