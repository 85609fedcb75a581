package grpcserver

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/bounds"
)

// call is one call on its way through the chain: what each step finds out for the
// later ones. Handlers see the part that auth.Call is.
type call struct {
	auth.Call
	method string      // full name
	md     metadata.MD // what came with the call, without what no caller may say
	rule   *rule
	claims auth.Claims // of the verified token, if there is one

	steps   []step // still to come
	unary   grpc.UnaryHandler
	stream  grpc.StreamHandler
	service any // what the handler is called on
	// handler is the contract's code for a unary RPC, which wants to decode the request.
	handler grpc.MethodHandler
	// copied gives the request of a call within the process; nil where it comes in frames.
	copied func(m any) error
	// unread is the room of the answer until it is read; nil for a small one.
	unread *bounds.Held
	// asks says that the caller only wants to know whether the call would be let in.
	asks bool
	// received notes that a message of a stream came.
	received func()
	// clientStreams says that the caller sends many messages.
	clientStreams bool
}

// step is one link of the chain: a gate, or what stands around the rest of it.
type step struct {
	name   string
	gate   gate
	unary  func(ctx context.Context, c *call, req any) (any, error)
	stream func(c *call, ss grpc.ServerStream) error
}

// gate is a step that only looks at the call and may add to it and to its context.
type gate func(ctx context.Context, c *call) (context.Context, error)

// chain is every step in order, outermost first. The network server and the
// in-process connection run the same list; handlers contain none of this.
func (s *Server) chain() []step {
	return []step{
		around("recover", s.recoverUnary, s.recoverStream),         // a panic is one failed call, not a dead process
		look("request", s.identify),                                // id and trace first: everything after logs them
		around("log", s.observeUnary, s.observeStream),             // one line and one measurement per call, with its outcome
		around("errors", mapErrorsUnary, mapErrorsStream),          // only apierr leaves; its cause goes to the log above
		around("deadline", s.deadlineUnary, nil),                   // no unary call runs for ever
		look("contract", s.find),                                   // no rule, no call
		look("authenticate", s.authenticate),                       // who is it
		look("enrich", s.enrich),                                   // what may they do where
		look("authorise", authorise),                               // the RPC's rule becomes the scope
		look("arrived", arrive),                                    // its place is another's now
		around("admit", s.admitUnary, s.admitStream),               // who only asks has the answer
		around("stream limits", nil, s.limitStream),                // a stream ends when idle, and after its token
		around("receive", s.receiveUnary, s.receiveStream),         // only now a byte of the message is read
		around("validate", s.validateUnary, s.validateStream),      // the field rules of the contract
		around("limit", s.limitUnary, nil),                         // who asks, or is mailed, too often waits
		around("idempotency", idempotencyUnary, idempotencyStream), // the same key gets the same answer
	}
}

func look(name string, g gate) step { return step{name: name, gate: g} }

// around is a step before and after the rest; nil leaves such calls alone.
func around(name string, unary func(context.Context, *call, any) (any, error), stream func(*call, grpc.ServerStream) error) step {
	return step{name: name, unary: unary, stream: stream}
}

// serveUnary runs the chain of a unary call. There is no request until a step receives
// it, before the first that needs it.
func (s *Server) serveUnary(ctx context.Context, c *call) (any, error) {
	c.steps = s.steps
	taken(ctx)
	resp, err := c.next(ctx, nil)
	refused(ctx) // unless it got as far as its identity
	return resp, err
}

// next runs the rest of the chain and the handler of a unary call. A step calls it
// once.
func (c *call) next(ctx context.Context, req any) (any, error) {
	for len(c.steps) > 0 {
		st := &c.steps[0]
		c.steps = c.steps[1:]
		switch {
		case st.gate != nil:
			var err error
			if ctx, err = st.gate(ctx, c); err != nil {
				return nil, err
			}
		case st.unary != nil:
			return st.unary(ctx, c, req)
		}
	}
	return c.unary(ctx, req)
}

// serveStream is the chain as gRPC wants it.
func (s *Server) serveStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := &call{method: info.FullMethod, steps: s.steps, service: srv, stream: handler, clientStreams: info.IsClientStream}
	taken(ss.Context())
	defer refused(ss.Context()) // unless it got as far as its identity
	return c.nextStream(ss)
}

// nextStream runs the rest of the chain and the handler of a stream. A step calls it
// once.
func (c *call) nextStream(ss grpc.ServerStream) error {
	for len(c.steps) > 0 {
		st := &c.steps[0]
		c.steps = c.steps[1:]
		switch {
		case st.gate != nil:
			ctx, err := st.gate(ss.Context(), c)
			if err != nil {
				return err
			}
			ss = &contextStream{ServerStream: ss, ctx: ctx}
		case st.stream != nil:
			return st.stream(c, ss)
		}
	}
	return c.stream(c.service, ss)
}

// contextStream is a stream with another context.
type contextStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *contextStream) Context() context.Context { return s.ctx }

// find finds the rule of the RPC. An RPC without one is denied, and so is a call whose
// messages are compressed.
func (s *Server) find(ctx context.Context, c *call) (context.Context, error) {
	if c.rule = s.rules[c.method]; c.rule == nil {
		return nil, apierr.New(errorv1.Reason_REASON_NOT_IMPLEMENTED, "no such RPC")
	}
	return ctx, plain(ctx)
}
