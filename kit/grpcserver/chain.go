package grpcserver

import (
	"context"

	"google.golang.org/grpc"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// step is one link of the chain, for unary calls and for streams.
type step struct {
	name   string
	unary  grpc.UnaryServerInterceptor
	stream grpc.StreamServerInterceptor
}

// chain is every step in order, outermost first. The network server and the
// in-process connection run the same list; handlers contain none of this.
func (s *Server) chain() []step {
	return []step{
		{"recover", s.recoverUnary, s.recoverStream},         // a panic is one failed call, not a dead process
		both("request", s.identify),                          // id and trace first: everything after logs them
		{"log", s.observeUnary, s.observeStream},             // one line and one measurement per call, with its outcome
		{"errors", mapErrorsUnary, mapErrorsStream},          // only apierr leaves; its cause goes to the log above
		{"deadline", deadlineUnary, nil},                     // no unary call runs for ever
		both("contract", s.find),                             // no rule, no call
		both("authenticate", s.authenticate),                 // who is it
		both("enrich", s.enrich),                             // what may they do where
		both("authorise", authorise),                         // the RPC's rule becomes the scope
		{"stream limits", nil, s.limitStream},                // a stream ends when idle, and after its token
		{"validate", s.validateUnary, s.validateStream},      // the field rules of the contract
		{"idempotency", idempotencyUnary, idempotencyStream}, // the same key gets the same answer
	}
}

// gate is a step that only looks at the call and may add to its context.
type gate func(ctx context.Context, method string) (context.Context, error)

// both runs a gate before unary calls and before streams.
func both(name string, g gate) step {
	return step{
		name: name,
		unary: func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			ctx, err := g(ctx, info.FullMethod)
			if err != nil {
				return nil, err
			}
			return next(ctx, req)
		},
		stream: func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			ctx, err := g(ss.Context(), info.FullMethod)
			if err != nil {
				return err
			}
			return next(srv, &contextStream{ServerStream: ss, ctx: ctx})
		},
	}
}

// contextStream is a stream with another context.
type contextStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *contextStream) Context() context.Context { return s.ctx }

type ruleKey struct{}

// find puts the rule of the RPC into the context. An RPC without one is denied.
func (s *Server) find(ctx context.Context, method string) (context.Context, error) {
	r, ok := s.rules[method]
	if !ok {
		return nil, apierr.New(errorv1.Reason_REASON_NOT_IMPLEMENTED, "no such RPC")
	}
	return context.WithValue(ctx, ruleKey{}, r), nil
}

func ruleFrom(ctx context.Context) *rule {
	r, _ := ctx.Value(ruleKey{}).(*rule)
	return r
}

// chainUnary folds the steps into one interceptor.
func chainUnary(steps []step) grpc.UnaryServerInterceptor {
	var list []grpc.UnaryServerInterceptor
	for _, st := range steps {
		if st.unary != nil {
			list = append(list, st.unary)
		}
	}
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return runUnary(ctx, list, req, info, handler)
	}
}

func runUnary(ctx context.Context, list []grpc.UnaryServerInterceptor, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if len(list) == 0 {
		return handler(ctx, req)
	}
	return list[0](ctx, req, info, func(ctx context.Context, req any) (any, error) {
		return runUnary(ctx, list[1:], req, info, handler)
	})
}

// chainStream folds the steps into one interceptor.
func chainStream(steps []step) grpc.StreamServerInterceptor {
	var list []grpc.StreamServerInterceptor
	for _, st := range steps {
		if st.stream != nil {
			list = append(list, st.stream)
		}
	}
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return runStream(list, srv, ss, info, handler)
	}
}

func runStream(list []grpc.StreamServerInterceptor, srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if len(list) == 0 {
		return handler(srv, ss)
	}
	return list[0](srv, ss, info, func(srv any, ss grpc.ServerStream) error {
		return runStream(list[1:], srv, ss, info, handler)
	})
}
