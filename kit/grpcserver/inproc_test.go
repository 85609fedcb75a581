package grpcserver_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/telemetry"
)

// keeping answers everybody with the same objects, and notes which span asks.
type keeping struct {
	accountv1.UnimplementedContactServiceServer
	answer      *accountv1.ListContactsResponse
	traceparent string
}

func (k *keeping) ListContacts(ctx context.Context, _ *accountv1.ListContactsRequest) (*accountv1.ListContactsResponse, error) {
	k.traceparent = telemetry.Traceparent(ctx)
	return k.answer, nil
}

// TestAnswersInProcess: everybody gets all of an answer; a gateway shares it with the
// server, nobody else does. Both are in the trace of their caller.
func TestAnswersInProcess(t *testing.T) {
	t.Parallel()
	answer := &accountv1.ListContactsResponse{Data: []*accountv1.Contact{{Id: someID, Tags: []string{"a"}}, {}}}
	answer.ProtoReflect().SetUnknown([]byte{0xf8, 0x3f, 1}) // a field of a newer server
	k := &keeping{answer: proto.CloneOf(answer)}
	s, err := grpcserver.New(grpcserver.Config{Name: "test", Logger: telemetry.Discard(), Clock: clock.System(), Verifier: tokens{}, Context: people{}})
	require.NoError(t, err)
	accountv1.RegisterContactServiceServer(s, k)
	const traceparent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"
	for name, conn := range map[string]grpc.ClientConnInterface{"edge": s.EdgeConn(), "other": s.Conn("")} {
		ctx := telemetry.WithTraceparent(as(t.Context(), "owner"), traceparent)
		got, err := accountv1.NewContactServiceClient(conn).ListContacts(ctx, &accountv1.ListContactsRequest{})
		require.NoError(t, err, name)
		require.True(t, proto.Equal(answer, got), name)
		require.Equal(t, name == "edge", k.answer.GetData()[0] == got.GetData()[0], name)
		require.Equal(t, traceparent, k.traceparent, name)
	}
}
