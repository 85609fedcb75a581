package grpcserver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/bounds"
)

// strangerLimit is how long somebody without a token may take to send a message of a public
// RPC (ADR 0041).
const strangerLimit = 5 * time.Second

// frames is the stream of a call as the transport has it: gRPC's own way reads a message
// of whatever length, and inflates it, before it asks anybody.
type frames interface {
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
	RecvCompress() string
	WriteStatus(st *status.Status) error
}

var errNoFrames = apierr.Internal(errors.New("the transport of gRPC has no frames to read"))

var errCrowded = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "too many large requests at once").WithRetryAfter(time.Second)

// receiver reads the messages of one call, each within the limits of its RPC.
type receiver struct {
	frames frames
	rule   *rule
	bytes  *bounds.Room // of what is read until it is decoded
	values *bounds.Room // of what it becomes
	caller string
	held   *bounds.Held // room of the last message
	header [5]byte
}

// receiverOf is the receiver of a call over the network.
func (s *Server) receiverOf(ctx context.Context, c *call) (*receiver, error) {
	f, ok := grpc.ServerTransportStreamFromContext(ctx).(frames)
	if !ok {
		return nil, errNoFrames
	}
	return &receiver{frames: f, rule: c.rule, bytes: s.bytes, values: s.values, caller: callerKey(c)}, nil
}

// plain refuses calls whose messages are compressed: what they would become is the
// caller's to decide.
func plain(ctx context.Context) error {
	f, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ RecvCompress() string })
	if !ok || f.RecvCompress() == "" || f.RecvCompress() == encoding.Identity {
		return nil
	}
	return errCompressed
}

var errCompressed = apierr.New(errorv1.Reason_REASON_NOT_IMPLEMENTED, "compressed messages are not taken")

// receive reads one message into m: its length first, then its bytes, then what they
// would become, and only then decodes it. It is io.EOF after the last one. The message has
// its room until the next is received, or done.
func (r *receiver) receive(ctx context.Context, m any) error {
	r.done()
	length, err := r.length()
	if err != nil {
		return err
	}
	msg, ok := m.(proto.Message)
	if !ok {
		return apierr.Internal(errors.New("the request is not a message"))
	}
	read, err := r.bytes.Take(ctx, r.caller, int64(length))
	if err != nil {
		return errCrowded
	}
	defer read.Leave()
	data, err := r.frames.Read(length)
	if err != nil {
		return broken(err)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	data.Free()
	defer buf.Free()
	return r.decode(ctx, buf.ReadOnlyData(), msg)
}

// done gives back the room of the message that was received last.
func (r *receiver) done() {
	r.held.Leave()
}

// length reads the prefix of the next message.
func (r *receiver) length() (int, error) {
	if err := r.frames.ReadMessageHeader(r.header[:]); err != nil {
		return 0, broken(err)
	}
	if r.header[0] != 0 {
		return 0, errCompressed
	}
	length := binary.BigEndian.Uint32(r.header[1:])
	if int64(length) > int64(r.rule.limit) {
		return 0, apierr.New(errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "the message is larger than the limit of %d bytes", r.rule.limit)
	}
	return int(length), nil
}

// last makes sure that a unary call has one message.
func (r *receiver) last() error {
	switch err := r.frames.ReadMessageHeader(r.header[:]); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return broken(err)
	}
	return status.Error(codes.Internal, "more than one message in a unary call")
}

func (r *receiver) decode(ctx context.Context, b []byte, m proto.Message) error {
	values, err := bounds.Wire(b, m.ProtoReflect().Descriptor())
	if err != nil {
		return refusal(err)
	}
	if r.held, err = r.values.Take(ctx, r.caller, int64(values)); err != nil {
		return errCrowded
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the message is not valid protobuf").Wrap(err)
	}
	return nil
}

// refusal tells of a message beyond the bounds of the contract.
func refusal(err error) error {
	e := apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").Wrap(err)
	var v *bounds.ExcessError
	if errors.As(err, &v) {
		return e.WithFields(apierr.Field{Field: v.Field, Message: v.Message})
	}
	return e
}

// broken is why no message could be read: io.EOF where there is none.
func broken(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.FromContextError(err).Err()
}

// receiveUnary reads the request, which nobody has looked at until here, and calls the
// handler that the contract's code has for it through the rest of the chain.
func (s *Server) receiveUnary(ctx context.Context, c *call, _ any) (any, error) {
	dec := c.copied
	if dec == nil {
		r, err := s.receiverOf(ctx, c)
		if err != nil {
			return nil, err
		}
		defer r.done()
		done, err := s.patience(ctx, c, r.frames)
		if err != nil {
			return nil, err
		}
		dec = func(m any) error {
			defer done()
			err := r.receive(ctx, m)
			if errors.Is(err, io.EOF) {
				return status.Error(codes.Internal, "a unary call without a message")
			}
			if err == nil {
				err = r.last()
			}
			return err
		}
	}
	if c.rule.lists {
		answer := bounds.NewAnswer(s.pages, callerKey(c))
		defer answer.Leave()
		ctx = bounds.WithAnswer(ctx, answer)
	}
	resp, err := c.handler(c.service, ctx, dec, func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		c.unary = handler
		return c.next(ctx, req)
	})
	if err == nil && c.copied == nil {
		err = s.room(ctx, c, resp)
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// receiveStream reads the messages of a stream within the limits of its RPC.
func (s *Server) receiveStream(c *call, ss grpc.ServerStream) error {
	if _, inproc := grpc.ServerTransportStreamFromContext(ss.Context()).(*inprocTransport); inproc {
		return c.nextStream(ss)
	}
	r, err := s.receiverOf(ss.Context(), c)
	if err != nil {
		return err
	}
	defer r.done()
	done, err := s.patience(ss.Context(), c, r.frames)
	if err != nil {
		return err
	}
	defer done()
	return c.nextStream(&boundedStream{ServerStream: ss, receiver: r, received: c.received})
}

// boundedStream is a stream whose messages are read by a receiver. The streams beneath it
// see none of them.
type boundedStream struct {
	grpc.ServerStream
	receiver *receiver
	received func() // tells the limits of the stream, by which it is not idle
}

// RecvMsg implements grpc.ServerStream.
func (b *boundedStream) RecvMsg(m any) error {
	err := b.receiver.receive(b.Context(), m)
	b.received()
	return err
}
