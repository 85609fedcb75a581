package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	eventv1 "github.com/turumba/turumba/gen/turumba/event/v1"
	"github.com/turumba/turumba/kit/telemetry"
)

func logged(t *testing.T, ctx context.Context, write func(ctx context.Context, l *slog.Logger)) (map[string]any, string) {
	t.Helper()
	var out bytes.Buffer
	write(ctx, telemetry.NewLogger(&out, slog.LevelInfo))
	line := map[string]any{}
	require.NoError(t, json.Unmarshal(out.Bytes(), &line), out.String())
	return line, out.String()
}

func TestLoggerCarriesContext(t *testing.T) {
	t.Parallel()
	ctx := telemetry.WithRequestID(t.Context(), "r0")
	ctx = telemetry.WithRequestID(ctx, "r1")
	ctx = telemetry.WithAttrs(ctx, slog.String(telemetry.KeyAccountID, "a1"), slog.String(telemetry.KeyRPC, "/x/Y"))
	ctx = telemetry.WithTraceparent(ctx, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	line, _ := logged(t, ctx, func(ctx context.Context, l *slog.Logger) { l.With("n", 1).InfoContext(ctx, "hello") })
	require.Equal(t, "r1", line["request_id"])
	require.Equal(t, "a1", line["account_id"])
	require.Equal(t, "/x/Y", line["rpc"])
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", line["trace_id"])
	require.InDelta(t, 1, line["n"], 0)
	stamp, ok := line["time"].(string)
	require.True(t, ok)
	require.Equal(t, byte('Z'), stamp[len(stamp)-1])
	require.Equal(t, "r1", telemetry.RequestID(ctx))
	require.Empty(t, telemetry.RequestID(t.Context()))
	require.False(t, telemetry.Discard().Enabled(ctx, slog.LevelError))
}

func TestLoggerRedacts(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	address, err := url.Parse("https://u:" + secret + "@h/p")
	require.NoError(t, err)
	line, text := logged(t, t.Context(), func(ctx context.Context, l *slog.Logger) {
		l.With("refresh_token", secret).WithGroup("g").InfoContext(ctx, "dial postgres://u:"+secret+"@h/d",
			"password", secret, "Authorization", secret, "delivery_address", secret, "X-Api-Key", secret,
			"error", errors.New("Get \"amqp://u:"+secret+"@h:1/\": bearer "+secret+", then"),
			slog.Group("inner", slog.String("body", secret)),
			"event", &eventv1.Event{EventId: secret}, "url", address, "plain", *address,
			"user_id", "u-1", "token_id", "t-1", "attempt_count", 3)
	})
	require.NotContains(t, text, secret)
	group, ok := line["g"].(map[string]any)
	require.True(t, ok)
	require.Equal(t, "u-1", group["user_id"])
	require.Equal(t, "t-1", group["token_id"])
	require.Equal(t, `Get "amqp://[redacted]@h:1/": bearer [redacted], then`, group["error"])
	require.Equal(t, "dial postgres://[redacted]@h/d", line["msg"])
}

func TestRedactKeys(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"password", "SMTP_Password", "access-token", "email", "from_email", "to", "body", "set-cookie"} {
		require.True(t, telemetry.Redact(key), key)
	}
	for _, key := range []string{"account_id", "email_count", "body_bytes", "token_id", "msg", "error", "rpc", "listen", "message_ids"} {
		require.False(t, telemetry.Redact(key), key)
	}
}

func TestTracing(t *testing.T) {
	t.Parallel()
	off := telemetry.NewTracing(telemetry.TracingOptions{Service: "x"})
	ctx, span := off.Tracer("t").Start(t.Context(), "work")
	require.True(t, span.SpanContext().HasTraceID(), "ids exist although nothing is recorded")
	require.False(t, span.IsRecording())
	again := trace.SpanContextFromContext(telemetry.WithTraceparent(t.Context(), telemetry.Traceparent(ctx)))
	require.Equal(t, span.SpanContext().TraceID(), again.TraceID())
	require.NoError(t, off.Shutdown(t.Context()))
	require.Empty(t, telemetry.Traceparent(t.Context()))
	require.False(t, trace.SpanContextFromContext(telemetry.WithTraceparent(t.Context(), "nonsense")).IsValid())

	same, under := off.Tracer("t").Start(ctx, "more")
	require.Equal(t, span.SpanContext(), under.SpanContext(), "what nobody records needs no id of its own")
	require.Equal(t, ctx, same)
	sampled := telemetry.WithTraceparent(t.Context(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	require.Equal(t, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", telemetry.Traceparent(sampled))
	_, under = off.Tracer("t").Start(sampled, "work")
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", under.SpanContext().TraceID().String())
	require.False(t, under.SpanContext().IsSampled(), "it is not recorded here")

	exporter := tracetest.NewInMemoryExporter()
	on := telemetry.NewTracing(telemetry.TracingOptions{Service: "x", Exporter: keep{exporter}})
	_, span = on.Tracer("t").Start(t.Context(), "work")
	span.End()
	require.NoError(t, on.Shutdown(t.Context()))
	require.Len(t, exporter.GetSpans(), 1)
}

// keep is an in-memory exporter that remembers its spans after Shutdown.
type keep struct{ *tracetest.InMemoryExporter }

func (keep) Shutdown(context.Context) error { return nil }

// standing is an error that names parts.
type standing []string

func (s standing) Error() string      { return "secret detail" }
func (s standing) NotReady() []string { return s }

func TestAdminHandler(t *testing.T) {
	t.Parallel()
	broken := errors.New("secret detail")
	hang := func(ctx context.Context) error { return fmt.Errorf("wait: %w", ctx.Err()) }
	fine := func(context.Context) error { return nil }
	handler := telemetry.AdminHandler(telemetry.NewRegistry(), map[string]telemetry.Check{"postgres": fine})
	bad := telemetry.AdminHandler(telemetry.NewRegistry(), map[string]telemetry.Check{
		"postgres": fine, "broker": func(context.Context) error { return broken }, "account": hang,
	})
	loops := telemetry.AdminHandler(telemetry.NewRegistry(), map[string]telemetry.Check{
		"loop": func(context.Context) error { return fmt.Errorf("check: %w", standing{"mail", "fanout"}) },
	})
	ended, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ended.Done()
	cases := []struct {
		name, path string
		handler    http.Handler
		ctx        context.Context
		code       int
		body       string
	}{
		{"health", "/healthz", bad, t.Context(), 200, "ok\n"},
		{"ready", "/readyz", handler, t.Context(), 200, "ok\n"},
		{"not ready", "/readyz", bad, ended, 503, "account: not ready\nbroker: not ready\n"},
		{"parts", "/readyz", loops, t.Context(), 503, "loop fanout: not ready\nloop mail: not ready\n"},
		{"metrics", "/metrics", handler, t.Context(), 200, "turumba_build_info{"},
		{"profiles", "/debug/pprof/", handler, t.Context(), 200, "goroutine"},
		{"nothing else", "/", handler, t.Context(), 404, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			c.handler.ServeHTTP(w, httptest.NewRequestWithContext(c.ctx, http.MethodGet, c.path, nil))
			require.Equal(t, c.code, w.Code)
			require.Contains(t, w.Body.String(), c.body)
			require.NotContains(t, w.Body.String(), "secret detail")
		})
	}
	require.IsIncreasing(t, telemetry.LatencyBuckets())
}

func FuzzLoggerScrubs(f *testing.F) {
	f.Add("amqp://u:p@h", "bearer x")
	f.Add("İ://@", "BEARER ")
	f.Fuzz(func(t *testing.T, message, value string) {
		_, text := logged(t, t.Context(), func(ctx context.Context, l *slog.Logger) {
			l.InfoContext(ctx, message+" Bearer s3cr3t-value", "error", errors.New("x://u:s3cr3t-value@"+value))
		})
		if !bytes.Contains([]byte(message+value), []byte("s3cr3t-value")) {
			require.NotContains(t, text, "s3cr3t-value")
		}
	})
}
