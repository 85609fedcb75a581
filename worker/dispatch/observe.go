package dispatch

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/services/messaging/channel"
)

// trace carries on the trace of the chunk: what is stored, said and called for it
// belongs to the call that made it.
func (r *runner) trace(work context.Context) (context.Context, trace.Span) {
	work = telemetry.WithTraceparent(work, r.chunk.Traceparent)
	work, span := r.tracer.Start(work, "dispatch "+r.chunk.Lane)
	if span.IsRecording() {
		span.SetAttributes(attribute.String("turumba.chunk_id", r.chunk.ID), attribute.String("turumba.channel_type", r.chunk.ChannelType), attribute.Int("turumba.messages", len(r.chunk.MessageIDs)))
	}
	return work, span
}

// traceWindow makes a span of a window's provider calls, which run side by side: a
// span of each would be a million for a campaign.
func (r *runner) traceWindow(work context.Context) (context.Context, trace.Span) {
	return r.tracer.Start(work, "send "+r.channel.ChannelType+" "+r.channel.Provider, trace.WithSpanKind(trace.SpanKindClient))
}

// endWindow ends the span of a window whose outcomes are all known.
func endWindow(w *sentWindow) {
	defer w.span.End()
	if !w.span.IsRecording() {
		return
	}
	w.span.SetAttributes(attribute.Int("turumba.messages", w.n), attribute.Int("turumba.not_sent", w.failed))
	if w.n == 1 {
		w.span.SetAttributes(attribute.String("turumba.message_id", w.last))
	}
	if w.failed > 0 {
		w.span.SetStatus(codes.Error, "")
	}
}

// observe measures one call of the adapter and tells it at debug level.
func (r *runner) observe(ctx context.Context, with *equipment, messageID string, res channel.Result, took time.Duration) {
	with.line.took.Observe(took.Seconds())
	if !r.cfg.Logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	r.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "provider called", slog.String("message_id", messageID), slog.String("channel_type", with.channel.ChannelType),
		slog.String("class", res.Class.String()), slog.String("code", res.Code), slog.Float64("duration_ms", float64(took.Microseconds())/1000))
}
