package telemetry

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
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
	provider *sdktrace.TracerProvider // nil when nothing is recorded
}

// NewTracing returns a Tracing. Shutdown must be called at the end.
func NewTracing(o TracingOptions) *Tracing {
	if o.Exporter == nil {
		return &Tracing{}
	}
	if o.Ratio <= 0 || o.Ratio > 1 {
		o.Ratio = 1
	}
	return &Tracing{sdktrace.NewTracerProvider(
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", o.Service))),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.Ratio))),
		sdktrace.WithBatcher(o.Exporter),
	)}
}

// Tracer returns a tracer for the named package.
func (t *Tracing) Tracer(name string) trace.Tracer {
	switch {
	case t == nil:
		return noop.NewTracerProvider().Tracer(name)
	case t.provider == nil:
		return idTracer{}
	}
	return t.provider.Tracer(name)
}

// idTracer gives traces their ids and records nothing. Spans that nobody records need
// no ids of their own: what is under a trace stays under the span it was.
type idTracer struct{ embedded.Tracer }

// Start implements trace.Tracer.
func (idTracer) Start(ctx context.Context, _ string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	span := trace.SpanFromContext(ctx)
	sc := span.SpanContext()
	if sc.IsValid() && !sc.IsSampled() && !span.IsRecording() {
		return ctx, span
	}
	id := trace.SpanContextConfig{TraceID: sc.TraceID(), TraceState: sc.TraceState(), TraceFlags: sc.TraceFlags() &^ trace.FlagsSampled}
	if !id.TraceID.IsValid() {
		binary.LittleEndian.PutUint64(id.TraceID[:8], rand.Uint64())
		binary.LittleEndian.PutUint64(id.TraceID[8:], rand.Uint64())
	}
	binary.LittleEndian.PutUint64(id.SpanID[:], rand.Uint64())
	ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(id))
	return ctx, trace.SpanFromContext(ctx)
}

// serverSpan is how the span of a call that comes in begins.
var serverSpan = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}

// ServerSpan are the options of the span of a call that comes in.
func ServerSpan() []trace.SpanStartOption { return serverSpan }

// Shutdown exports what is left.
func (t *Tracing) Shutdown(ctx context.Context) error {
	if t == nil || t.provider == nil {
		return nil
	}
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("shut down tracing: %w", err)
	}
	return nil
}

// Traceparent returns the W3C traceparent of the context's span; empty if there
// is none. Events and work carry it.
func Traceparent(ctx context.Context) string {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return ""
	}
	traceID, spanID := span.TraceID(), span.SpanID()
	b := make([]byte, 0, 55)
	b = hex.AppendEncode(append(b, "00-"...), traceID[:])
	b = hex.AppendEncode(append(b, '-'), spanID[:])
	if span.IsSampled() {
		return string(append(b, "-01"...))
	}
	return string(append(b, "-00"...))
}

// Sampled reports whether a traceparent belongs to a trace that is recorded.
func Sampled(traceparent string) bool { return strings.HasSuffix(traceparent, "-01") }

// WithTraceparent returns a context whose spans continue the given traceparent, in
// the W3C format, the only one used; a malformed one is ignored.
func WithTraceparent(ctx context.Context, traceparent string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, carrier(traceparent))
}

// carrier is a traceparent, as the propagator wants to be given one.
type carrier string

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string {
	if key == "traceparent" {
		return string(c)
	}
	return ""
}

// Set implements propagation.TextMapCarrier; nothing is put into one.
func (carrier) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (carrier) Keys() []string { return []string{"traceparent"} }
