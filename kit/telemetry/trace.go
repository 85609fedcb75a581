package telemetry

import (
	"context"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// TracingOptions configures Tracing.
type TracingOptions struct {
	// Service is the service.name of the spans.
	Service string
	// Exporter receives finished spans. Nil turns recording off: trace ids are
	// still made and passed on, so that logs of one request can be joined.
	Exporter sdktrace.SpanExporter
	// Ratio is the share of new traces that are recorded, 0 to 1; traces begun
	// elsewhere follow the decision made there. 0 means 1.
	Ratio float64
}

// Tracing makes spans and carries them over process borders. A nil Tracing makes
// none: what it starts is the span that it is called under.
type Tracing struct {
	provider *sdktrace.TracerProvider
}

// NewTracing returns a Tracing. Shutdown must be called at the end.
func NewTracing(o TracingOptions) *Tracing {
	options := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", o.Service))),
	}
	if o.Exporter == nil {
		return &Tracing{sdktrace.NewTracerProvider(append(options, sdktrace.WithSampler(sdktrace.NeverSample()))...)}
	}
	if o.Ratio <= 0 || o.Ratio > 1 {
		o.Ratio = 1
	}
	options = append(options,
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.Ratio))),
		sdktrace.WithBatcher(o.Exporter))
	return &Tracing{sdktrace.NewTracerProvider(options...)}
}

// Tracer returns a tracer for the named package.
func (t *Tracing) Tracer(name string) trace.Tracer {
	if t == nil {
		return noop.NewTracerProvider().Tracer(name)
	}
	return t.provider.Tracer(name)
}

// Shutdown exports what is left.
func (t *Tracing) Shutdown(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("shut down tracing: %w", err)
	}
	return nil
}

// Propagator returns the W3C trace context format, the only one used.
func Propagator() propagation.TextMapPropagator { return propagation.TraceContext{} }

// Traceparent returns the W3C traceparent of the context's span; empty if there
// is none. Events and work carry it.
func Traceparent(ctx context.Context) string {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return ""
	}
	return "00-" + span.TraceID().String() + "-" + span.SpanID().String() + "-" + (span.TraceFlags() & trace.FlagsSampled).String()
}

// Sampled reports whether a traceparent belongs to a trace that is recorded.
func Sampled(traceparent string) bool { return strings.HasSuffix(traceparent, "-01") }

// WithTraceparent returns a context whose spans continue the given traceparent;
// a malformed one is ignored.
func WithTraceparent(ctx context.Context, traceparent string) context.Context {
	return Propagator().Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
}
