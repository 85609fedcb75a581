// Package telemetry makes the three things an operator looks at: JSON logs that
// carry ids and never secrets, Prometheus metrics, and OpenTelemetry traces. It
// also serves them, with health and profiles, on the admin listener.
package telemetry

import (
	"context"
	"io"
	"log/slog"
	"slices"

	"go.opentelemetry.io/otel/trace"
)

// Keys of the attributes that the context carries into every log line.
const (
	// KeyRequestID is the id of the request being served.
	KeyRequestID = "request_id"
	// KeyAccountID is the account that the work belongs to.
	KeyAccountID = "account_id"
	// KeyRPC is the full name of the RPC being served.
	KeyRPC = "rpc"
	// KeyTraceID is the W3C trace id, taken from the span in the context.
	KeyTraceID = "trace_id"
)

// NewLogger returns a logger that writes one JSON object per line to w, from
// level up, with times in UTC. Attributes given to WithAttrs and the trace id of
// the context are added; values under keys that name secrets or personal data are
// replaced (see Redact).
func NewLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(&contextHandler{slog.NewJSONHandler(w, &slog.HandlerOptions{
		Level:       level,
		ReplaceAttr: replace,
	})})
}

// Discard returns a logger that writes nothing.
func Discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

type attrsKey struct{}

// WithAttrs returns a context whose log lines carry the attributes. An attribute
// replaces an earlier one with the same key.
func WithAttrs(ctx context.Context, attrs ...slog.Attr) context.Context {
	old := attrsOf(ctx)
	merged := make([]slog.Attr, 0, len(old)+len(attrs))
	for _, o := range old {
		if !slices.ContainsFunc(attrs, func(a slog.Attr) bool { return a.Key == o.Key }) {
			merged = append(merged, o)
		}
	}
	return context.WithValue(ctx, attrsKey{}, append(merged, attrs...))
}

// WithRequestID returns a context that carries the request id.
func WithRequestID(ctx context.Context, id string) context.Context {
	return WithAttrs(ctx, slog.String(KeyRequestID, id))
}

// RequestID returns the request id of the context; empty if there is none.
func RequestID(ctx context.Context) string {
	for _, a := range attrsOf(ctx) {
		if a.Key == KeyRequestID {
			return a.Value.String()
		}
	}
	return ""
}

func attrsOf(ctx context.Context) []slog.Attr {
	attrs, _ := ctx.Value(attrsKey{}).([]slog.Attr)
	return attrs
}

// contextHandler adds what the context carries to each record.
type contextHandler struct{ next slog.Handler }

// Enabled reports whether the level is logged.
func (h *contextHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle writes one record.
func (h *contextHandler) Handle(ctx context.Context, r slog.Record) error {
	r = r.Clone()
	r.Message = scrub(r.Message)
	r.AddAttrs(attrsOf(ctx)...)
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		r.AddAttrs(slog.String(KeyTraceID, span.TraceID().String()))
	}
	return h.next.Handle(ctx, r)
}

// WithAttrs returns a handler whose records carry the attributes.
func (h *contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &contextHandler{h.next.WithAttrs(attrs)}
}

// WithGroup returns a handler that nests later attributes under name.
func (h *contextHandler) WithGroup(name string) slog.Handler {
	return &contextHandler{h.next.WithGroup(name)}
}
