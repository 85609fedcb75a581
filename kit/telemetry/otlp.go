package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// TraceSettings say where spans go. Without an endpoint none is recorded.
type TraceSettings struct {
	// Endpoint is a collector that speaks OTLP over HTTP.
	Endpoint string `env:"OTEL_EXPORTER_OTLP_ENDPOINT" help:"collector of traces, OTLP over HTTP: http://host:4318; empty: none are recorded"`
	// Ratio is the share of new traces that is recorded.
	Ratio float64 `env:"TRACE_RATIO" envDefault:"1" help:"share of new traces that is recorded, above 0 and at most 1"`
}

// Validate refuses what is no URL and no share.
func (s TraceSettings) Validate() error {
	var problems []error
	if u, err := url.Parse(s.Endpoint); s.Endpoint != "" && (err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https")) {
		problems = append(problems, errors.New("OTEL_EXPORTER_OTLP_ENDPOINT is not of the form http://host:4318"))
	}
	if s.Ratio <= 0 || s.Ratio > 1 {
		problems = append(problems, errors.New("TRACE_RATIO must be above 0 and at most 1"))
	}
	return errors.Join(problems...)
}

// Tracing makes the tracing of a service by the settings. Close must be called at the
// end.
func (s TraceSettings) Tracing(ctx context.Context, service string, log *slog.Logger) (*Tracing, error) {
	if s.Endpoint == "" {
		return NewTracing(TracingOptions{Service: service}), nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(s.Endpoint+"/v1/traces"))
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT: %w", err)
	}
	return NewTracing(TracingOptions{Service: service, Exporter: &loggedExporter{exporter, log}, Ratio: s.Ratio}), nil
}

// loggedExporter tells the log of spans that got lost, which would go to standard
// error in a form of its own.
type loggedExporter struct {
	sdktrace.SpanExporter
	log *slog.Logger
}

// ExportSpans implements sdktrace.SpanExporter. It never fails: spans are no reason to
// do anything.
func (e *loggedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.LogAttrs(ctx, slog.LevelWarn, "spans not exported", slog.Int("spans", len(spans)), slog.Any("err", err))
	}
	return nil
}

// closeLimit is how long the last spans may take to leave.
const closeLimit = 2 * time.Second

// Close exports what is left, within 2 s, although ctx may have ended.
func (t *Tracing) Close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
	defer cancel()
	// What does not leave in time is lost; the exporter has told the log.
	_ = t.Shutdown(ctx)
}
