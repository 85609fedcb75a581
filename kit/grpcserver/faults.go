package grpcserver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
)

// Gateway is the service whose calls are those of users: what it asks, they asked. Every
// other service asks for itself, also where it asks with the token of a user.
const Gateway = "gateway"

// tellEvery is how long the same cause is not told of again.
const tellEvery = time.Minute

// maxTold bounds the causes that are remembered.
const maxTold = 100

// link is the client side of a connection between two services. It holds to one rule
// (ADR 0046): a fault among services is never the caller's. Whatever a called service
// says about the identity or the request of the calling one is UNAVAILABLE to whom that
// serves, and told to the operators with its cause.
type link struct {
	caller, peer string // the two services
	log          *slog.Logger
	clock        clock.Clock

	mu   sync.Mutex
	told map[string]time.Time // causes, and when they were told
	away atomic.Bool          // that the peer cannot be reached was told
}

func newLink(caller, peer string, log *slog.Logger, c clock.Clock) *link {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &link{caller: caller, peer: peer, log: log, clock: c, told: map[string]time.Time{}}
}

// unary is the interceptor of unary calls.
func (l *link) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return l.judge(ctx, method, invoke(ctx, method, req, reply, cc, opts...))
}

// stream is the interceptor of streams.
func (l *link) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	return l.judged(ctx, method, s, err)
}

// judged is a stream whose errors are judged.
func (l *link) judged(ctx context.Context, method string, s grpc.ClientStream, err error) (grpc.ClientStream, error) {
	if err != nil {
		return nil, l.judge(ctx, method, err)
	}
	return &judgedStream{ClientStream: s, ctx: ctx, link: l, method: method}, nil
}

// judgedConn is a connection in the process whose errors are judged.
type judgedConn struct {
	grpc.ClientConnInterface
	link *link
}

// Invoke implements grpc.ClientConnInterface.
func (c *judgedConn) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	return c.link.judge(ctx, method, c.ClientConnInterface.Invoke(ctx, method, in, out, opts...))
}

// NewStream implements grpc.ClientConnInterface.
func (c *judgedConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	return c.link.judged(ctx, method, s, err)
}

type judgedStream struct {
	grpc.ClientStream
	ctx    context.Context
	link   *link
	method string
}

// RecvMsg implements grpc.ClientStream.
func (s *judgedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if errors.Is(err, io.EOF) {
		return err
	}
	return s.link.judge(s.ctx, s.method, err)
}

// The kinds of faults, as the log tells them.
const (
	faultRefused = "another service refuses the identity of this one"
	faultRequest = "another service refuses a call of this one"
	faultAway    = "another service cannot be reached"
	faultSilent  = "another service does not answer in time"
)

// judge says what an error of a call is to whom this service serves: itself, or
// UNAVAILABLE where it is about this service.
func (l *link) judge(ctx context.Context, method string, err error) error {
	if err == nil {
		if l.away.Load() && l.away.CompareAndSwap(true, false) {
			l.log.InfoContext(ctx, "another service is reached again", "peer", l.peer)
		}
		return nil
	}
	kind := l.fault(method, err)
	switch {
	case kind == "":
		return err
	case ctx.Err() != nil && (kind == faultAway || kind == faultSilent):
		if kind == faultSilent {
			l.tell(ctx, slog.LevelWarn, kind, method, err)
		}
		return err // who asked gave up; how long it waited is its own
	}
	l.tell(ctx, slog.LevelError, kind, method, err)
	if kind == faultAway || kind == faultSilent {
		return err
	}
	return apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "a service that is needed cannot be used now").Wrap(err)
}

// fault is what an error says about this service or the way to the other; empty for one
// that belongs to whom this service serves.
func (l *link) fault(method string, err error) string {
	st, _ := status.FromError(err)
	info := ours(st)
	switch {
	case info.GetMetadata()[metaIdentity] != "":
		return faultRefused
	case st.Code() == codes.Canceled, info != nil && (st.Code() == codes.Unavailable || st.Code() == codes.DeadlineExceeded):
		return "" // the other service's own outages are told there
	case st.Code() == codes.Unavailable:
		return faultAway
	case st.Code() == codes.DeadlineExceeded:
		return faultSilent
	}
	rule := contractOf(method)
	if rule == nil || l.passes(rule, st.Code(), info) {
		return ""
	}
	if info == nil && (st.Code() == codes.Unauthenticated || st.Code() == codes.PermissionDenied) {
		return faultRefused // by something in between
	}
	return faultRequest
}

// passes tells which errors are an answer. A status without a reason of ours was not
// written by a service: a proxy in between, or the transport. Of such, only what is
// about the size or the bytes of the call can be the doing of a user.
func (l *link) passes(rule *optionsv1.Auth, code codes.Code, info *errdetails.ErrorInfo) bool {
	reason, known := apierr.ReasonOf(info.GetReason())
	switch {
	case reason == errorv1.Reason_REASON_NOT_IMPLEMENTED:
		return false // of another version
	case rule.GetInternal() != nil:
		return known && slices.Contains(rule.GetInternal().GetAnswers(), reason)
	case l.caller == Gateway && !known:
		return code == codes.ResourceExhausted || code == codes.Internal
	case l.caller == Gateway:
		return true
	}
	return known && code != codes.InvalidArgument && code != codes.Internal
}

// tell logs a cause at once, and then once a minute.
func (l *link) tell(ctx context.Context, level slog.Level, kind, method string, err error) {
	text, why := err.Error(), ours(status.Convert(err)).GetMetadata()[metaIdentity]
	cause := kind + "\x00" + strings.Map(noDigits, why) + "\x00" + strings.Map(noDigits, text[:min(len(text), 300)])
	if kind != faultAway {
		cause += "\x00" + method
	}
	now := l.clock.Now()
	l.mu.Lock()
	at, known := l.told[cause]
	again := !known || now.Sub(at) >= tellEvery
	if again {
		if len(l.told) >= maxTold {
			clear(l.told)
		}
		l.told[cause] = now
	}
	l.mu.Unlock()
	if !again {
		return
	}
	if kind == faultAway {
		l.away.Store(true)
	}
	attrs := []any{"peer", l.peer, "as", l.caller, "call", shortName(method), "err", text}
	if why != "" {
		attrs = append(attrs, "cause", why)
	}
	l.log.Log(ctx, level, kind, attrs...)
}

// noDigits takes out what differs from one case of a cause to the next: ports, ids.
func noDigits(r rune) rune {
	if r >= '0' && r <= '9' {
		return -1
	}
	return r
}

// ours is the reason that a service of ours gave; nil where none did.
func ours(st *status.Status) *errdetails.ErrorInfo {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == apierr.Domain {
			return info
		}
	}
	return nil
}

// contractOf is the access rule of an RPC; nil for one that is not ours.
func contractOf(method string) *optionsv1.Auth {
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	md, ok := d.(protoreflect.MethodDescriptor)
	if !ok || !strings.HasPrefix(name, "turumba.") {
		return nil
	}
	rule, _ := proto.GetExtension(md.Options(), optionsv1.E_Auth).(*optionsv1.Auth)
	return rule
}
