package grpcserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"reflect"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/bounds"
)

// A unary answer is written by gRPC at once, and lies in memory until its caller has read
// it, if ever: a thousand calls of one connection, 4 MiB each. What is answered with lists
// is therefore served as a stream of one message, which is the same on the wire, and
// written piece by piece, as fast as it is read (ADR 0058).

const (
	// answerPiece is how many bytes of an answer are written at once; the transport keeps
	// 64 KiB of each stream that nobody has read yet.
	answerPiece = 32 << 10
	// answerLimit is how long a caller may take to read an answer, and answerWait how
	// long the answer waits for room.
	answerLimit = 60 * time.Second
	answerWait  = 10 * time.Second
)

var (
	errUnread  = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "too many large answers are being read at once").WithRetryAfter(time.Second)
	errSlow    = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "the answer was read too slowly")
	errNoWrite = errors.New("the transport of gRPC has no frames to write")
)

// hasList reports whether a message has a list of messages in it.
func hasList(md protoreflect.MessageDescriptor) bool {
	for i := range md.Fields().Len() {
		if fd := md.Fields().Get(i); fd.IsList() && fd.Message() != nil {
			return true
		}
	}
	return false
}

// unary serves a unary RPC as a stream of one message.
func (s *Server) unary(srv any, ss grpc.ServerStream, c *call) error {
	c.service = srv
	defer func() { c.unread.Leave() }()
	resp, err := s.serveUnary(ss.Context(), c)
	if err != nil {
		return err
	}
	m, ok := resp.(proto.Message)
	if !ok || c.unread == nil {
		return ss.SendMsg(resp)
	}
	return writeAnswer(ss.Context(), m, c.unread)
}

// room takes room for an answer until it is read. One without a list has none, and what
// changed something is answered in any case.
func (s *Server) room(ctx context.Context, c *call, resp any) error {
	m, ok := resp.(proto.Message)
	if !ok || !c.rule.long {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	var err error
	if c.unread, err = s.unread.Take(ctx, callerKey(c), int64(proto.Size(m))); err != nil && c.rule.reads {
		return errUnread.Wrap(err)
	}
	return nil
}

// writeAnswer writes the message of a call piece by piece, each when those before have been
// read but for a few.
func writeAnswer(ctx context.Context, m proto.Message, room *bounds.Held) error {
	f, ok := grpc.ServerTransportStreamFromContext(ctx).(frames)
	if !ok {
		return errNoFrames
	}
	data, err := proto.Marshal(m)
	if err != nil {
		return apierr.Internal(err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer giveUp(ctx, f)()
	limited, stop := context.WithTimeoutCause(ctx, answerLimit, errSlow)
	defer stop()
	defer giveUp(limited, f)()
	room.Sent(func() { cancel(errSlow) })
	header := make([]byte, 5) // gRPC over HTTP/2, Length-Prefixed-Message: not compressed, then the length
	binary.BigEndian.PutUint32(header[1:], uint32(len(data)))
	for len(data) > 0 && err == nil {
		n := min(len(data), answerPiece)
		err = writeFrame(f, header, bytes.Clone(data[:n])) // or the last would keep all of them
		header, data = nil, data[n:]
	}
	return err
}

// writeFrame calls the transport's Write, whose last parameter has a type that nobody else
// can name, and means nothing to a server.
func writeFrame(f frames, header, data []byte) error {
	write := reflect.ValueOf(f).MethodByName("Write")
	if !write.IsValid() || write.Type().NumIn() != 3 || write.Type().NumOut() != 1 {
		return apierr.Internal(errNoWrite)
	}
	out := write.Call([]reflect.Value{reflect.ValueOf(header), reflect.ValueOf(mem.BufferSlice{mem.SliceBuffer(data)}), reflect.Zero(write.Type().In(2))})
	err, _ := out[0].Interface().(error)
	return err
}
