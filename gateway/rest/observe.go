package rest

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

const headerTraceparent = "Traceparent"

// observer measures requests, and begins the trace of each or carries on the one
// that its caller names.
type observer struct {
	clock     clock.Clock
	tracer    trace.Tracer
	durations *telemetry.Series[served]
	open      prometheus.Gauge
}

// served is what requests are told apart by.
type served struct {
	method string
	status int
}

func (s served) labels() []string { return []string{s.method, strconv.Itoa(s.status)} }

func newObserver(cfg Config) (*observer, error) {
	durations := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "turumba_http_request_duration_seconds", Help: "Time to answer a REST request, by method and status; turumba_rpc_duration_seconds tells it by RPC.",
		Buckets: telemetry.LatencyBuckets(),
	}, []string{"method", "code"})
	o := &observer{
		clock: cfg.Clock, tracer: cfg.Tracing.Tracer("gateway"), durations: telemetry.NewSeries(durations, served.labels),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "turumba_http_open_requests", Help: "REST requests being answered, streams among them."}),
	}
	if cfg.Registry == nil {
		return o, nil
	}
	for _, c := range []prometheus.Collector{durations, o.open} {
		if err := cfg.Registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return o, nil
}

func (o *observer) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, method := o.clock.Now(), methodLabel(r.Method)
		ctx, span := o.tracer.Start(telemetry.WithTraceparent(r.Context(), r.Header.Get(headerTraceparent)), "HTTP "+method, telemetry.ServerSpan()...)
		r = r.WithContext(ctx) // which connections take the trace from
		status := &statusWriter{ResponseWriter: w, code: http.StatusOK}
		o.open.Inc()
		defer func() {
			o.open.Dec()
			o.durations.Of(served{method, status.code}).Observe(o.clock.Now().Sub(start).Seconds())
			if span.IsRecording() {
				span.SetAttributes(attribute.Int("http.response.status_code", status.code), attribute.String(telemetry.KeyRequestID, r.Header.Get(headerRequestID)))
			}
			span.End()
		}()
		next.ServeHTTP(status, r)
	})
}

// methodLabel is the method of a request, or "other": callers may write anything.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodPut:
		return method
	}
	return "other"
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	code  int
	wrote bool
}

// WriteHeader notes the first status that is no preliminary one.
func (s *statusWriter) WriteHeader(code int) {
	if !s.wrote && code >= http.StatusOK {
		s.code, s.wrote = code, true
	}
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach the connection (flush, deadlines).
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
