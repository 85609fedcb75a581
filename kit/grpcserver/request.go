package grpcserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/telemetry"
)

// unaryLimit is the default and the cap of a unary call's deadline.
const unaryLimit = 30 * time.Second

// recoverUnary turns a panic into an internal error.
func (s *Server) recoverUnary(ctx context.Context, c *call, req any) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, s.panicked(ctx, c.method, p)
		}
	}()
	return c.next(ctx, req)
}

func (s *Server) recoverStream(c *call, ss grpc.ServerStream) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(ss.Context(), c.method, p)
		}
	}()
	return c.nextStream(ss)
}

func (s *Server) panicked(ctx context.Context, method string, p any) error {
	s.cfg.Logger.ErrorContext(ctx, "panic in a call", "rpc", shortName(method), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return apierr.Internal(fmt.Errorf("panic: %v", p))
}

// spoofed are the identity headers of the old gateway. They decide nothing here;
// they are removed so that nothing ever starts to believe them.
var spoofed = [...]string{
	"x-account-ids", "x-role-ids", "x-user-id", "x-advanced-context",
	"grpc-metadata-x-account-ids", "grpc-metadata-x-role-ids", "grpc-metadata-x-user-id", "grpc-metadata-x-advanced-context",
}

// identify gives the call a request id and its trace, and removes spoofed
// identity metadata.
func (s *Server) identify(ctx context.Context, c *call) (context.Context, error) {
	c.md = incoming(ctx)
	for _, key := range spoofed {
		delete(c.md, key)
	}
	c.Client = s.client(ctx, c.md)
	delete(c.md, forwardedFor)
	if _, asks := c.md[checkOnly]; asks {
		c.asks = true
	}
	ctx = auth.WithCall(metadata.NewIncomingContext(ctx, c.md), &c.Call)
	id := first(c.md, "x-request-id")
	if !fairID(id) {
		id = uuid.Must(uuid.NewV7()).String()
	}
	if err := grpc.SetHeader(ctx, metadata.MD{"x-request-id": {id}}); err != nil {
		return nil, fmt.Errorf("set the request id: %w", err)
	}
	ctx = traceOf(ctx, c.md)
	return telemetry.WithAttrs(ctx, slog.String(telemetry.KeyRequestID, id), slog.String(telemetry.KeyRPC, shortName(c.method))), nil
}

// incoming is what came with the call; nobody else has it.
func incoming(ctx context.Context) metadata.MD {
	if t, ok := grpc.ServerTransportStreamFromContext(ctx).(*inprocTransport); ok {
		return t.incoming
	}
	md, ok := metadata.FromIncomingContext(ctx)
	if !ok {
		return metadata.MD{}
	}
	return md
}

// traceOf carries on the trace that the call names, or the one that a caller in this
// process is in.
func traceOf(ctx context.Context, md metadata.MD) context.Context {
	traceparent := first(md, "traceparent")
	if t, ok := grpc.ServerTransportStreamFromContext(ctx).(*inprocTransport); ok && traceparent == "" && t.parent.IsValid() {
		return trace.ContextWithRemoteSpanContext(ctx, t.parent)
	}
	return telemetry.WithTraceparent(ctx, traceparent)
}

// forwardedFor is the address of the client, told by the gateway.
const forwardedFor = "x-forwarded-for"

// maxUserAgent is how many bytes of a user agent are kept.
const maxUserAgent = 256

// client is where the call came from. Only a service of the mesh, which is the
// gateway then, can tell another address than its own.
func (s *Server) client(ctx context.Context, md metadata.MD) auth.Client {
	agent := first(md, "grpcgateway-user-agent")
	if agent == "" {
		agent = first(md, "user-agent")
	}
	c := auth.Client{UserAgent: agent[:min(len(agent), maxUserAgent)]}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return c
	}
	if _, inproc := p.Addr.(inprocAddr); inproc || s.fromService(ctx, md) {
		c.IP = lastHop(first(md, forwardedFor))
		return c
	}
	if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
		c.IP = host
	}
	return c
}

// fromService reports whether a service of the mesh calls, for itself or for a
// user.
func (s *Server) fromService(ctx context.Context, md metadata.MD) bool {
	if first(md, serviceHeader) == "" && certificateName(ctx) == "" {
		return false
	}
	_, err := s.serviceOf(ctx, md)
	return err == nil
}

func lastHop(list string) string {
	ip, err := netip.ParseAddr(strings.TrimSpace(list[strings.LastIndexByte(list, ',')+1:]))
	if err != nil || ip.Zone() != "" {
		return ""
	}
	return ip.Unmap().String()
}

func first(md metadata.MD, key string) string {
	if v := md.Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// fairID accepts ids that can stand in a log and a header as they are.
func fairID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	return strings.IndexFunc(id, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
	}) < 0
}

// served is what calls are told apart by.
type served struct {
	method string
	code   codes.Code
}

func (s served) labels() []string { return []string{shortName(s.method), s.code.String()} }

func (s *Server) observeUnary(ctx context.Context, c *call, req any) (any, error) {
	start := s.cfg.Clock.Now()
	ctx, span := s.startSpan(ctx, c)
	defer span.End()
	resp, err := c.next(ctx, req)
	s.observe(ctx, c, span, start, err)
	return resp, err
}

func (s *Server) observeStream(c *call, ss grpc.ServerStream) error {
	start := s.cfg.Clock.Now()
	ctx, span := s.startSpan(ss.Context(), c)
	defer span.End()
	err := c.nextStream(&contextStream{ServerStream: ss, ctx: ctx})
	s.observe(ctx, c, span, start, err)
	return err
}

func (s *Server) startSpan(ctx context.Context, c *call) (context.Context, trace.Span) {
	return s.tracer.Start(ctx, shortName(c.method), telemetry.ServerSpan()...)
}

// observe writes the one line and the measurement of a call. Our faults are
// errors, the caller's are warnings, good calls are told at debug level: a
// healthy system is measured, not narrated.
func (s *Server) observe(ctx context.Context, c *call, span trace.Span, start time.Time, err error) {
	took := s.cfg.Clock.Now().Sub(start)
	code := codes.OK
	var e *apierr.Error
	if err != nil && errors.As(err, &e) {
		code = e.Code
	}
	if span.IsRecording() {
		span.SetAttributes(attribute.String("rpc.grpc.status_code", code.String()), attribute.String(telemetry.KeyRequestID, telemetry.RequestID(ctx)))
		if levelOf(code) == slog.LevelError {
			span.SetStatus(otelcodes.Error, "")
		}
	}
	if c.asks && code == codes.OK {
		return // the call itself is still to come
	}
	s.durations.Of(served{c.method, code}).Observe(took.Seconds())
	level := levelOf(code)
	switch {
	case e == errStopping: // as many as are open, and by plan
		level = slog.LevelDebug
	case e != nil && code == codes.Unavailable && e.RetryAfter > 0 && e.Unwrap() == nil: // a limit of ours did its work
		level = slog.LevelWarn
	}
	if !s.cfg.Logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("code", code.String()), slog.Duration("took", took)}
	if c.Caller.UserID != "" {
		attrs = append(attrs, slog.String("user_id", c.Caller.UserID))
	}
	if c.Caller.Service != "" {
		attrs = append(attrs, slog.String("service", c.Caller.Service))
	}
	if e != nil {
		attrs = append(attrs, slog.String("reason", apierr.Name(e.Reason)))
		if level == slog.LevelError {
			attrs = append(attrs, slog.Any("err", e.Unwrap()))
		}
	}
	s.cfg.Logger.LogAttrs(ctx, level, "call", attrs...)
}

func levelOf(code codes.Code) slog.Level {
	switch code {
	case codes.OK, codes.Canceled: // who hung up knows why
		return slog.LevelDebug
	case codes.Internal, codes.Unknown, codes.DataLoss, codes.Unavailable:
		return slog.LevelError
	default:
		return slog.LevelWarn
	}
}

// mapErrorsUnary lets only apierr leave. The chain logs the cause; the caller
// gets the reason and the message.
func mapErrorsUnary(ctx context.Context, c *call, req any) (any, error) {
	resp, err := c.next(ctx, req)
	if err != nil {
		return nil, mapError(ctx, err)
	}
	return resp, nil
}

func mapErrorsStream(c *call, ss grpc.ServerStream) error {
	if err := c.nextStream(ss); err != nil {
		return mapError(ss.Context(), err)
	}
	return nil
}

// mapError gives a call that ran out of time that reason, whatever failed first.
func mapError(ctx context.Context, err error) error {
	e := apierr.From(err)
	if e.Reason == errorv1.Reason_REASON_INTERNAL && ctx.Err() != nil {
		return apierr.From(ctx.Err()).Wrap(err)
	}
	return e
}

// deadlineUnary caps the time of a unary call; one that has less keeps it.
func (s *Server) deadlineUnary(ctx context.Context, c *call, req any) (any, error) {
	if at, ok := ctx.Deadline(); ok && at.Sub(s.cfg.Clock.Now()) <= unaryLimit {
		return c.next(ctx, req)
	}
	ctx, cancel := context.WithTimeout(ctx, unaryLimit)
	defer cancel()
	return c.next(ctx, req)
}
