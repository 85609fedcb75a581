package grpcserver_test

import (
	"context"
	"testing"

	"buf.build/go/protovalidate"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/telemetry"
)

// gets answers every id.
type gets struct {
	accountv1.UnimplementedContactServiceServer
}

func (gets) GetContact(context.Context, *accountv1.GetContactRequest) (*accountv1.GetContactResponse, error) {
	return &accountv1.GetContactResponse{}, nil
}

// TestIDsAgainstProtovalidate: the short way for requests of one id lets through what
// the validator does, and nothing else.
func TestIDsAgainstProtovalidate(t *testing.T) {
	t.Parallel()
	s, err := grpcserver.New(grpcserver.Config{Name: "test", Logger: telemetry.Discard(), Clock: clock.System(), Verifier: tokens{}, Context: people{}})
	require.NoError(t, err)
	accountv1.RegisterContactServiceServer(s, gets{})
	client := accountv1.NewContactServiceClient(s.Conn(""))
	rapid.Check(t, func(rt *rapid.T) {
		id := []rune(rapid.StringMatching("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").Draw(rt, "id"))
		for range rapid.IntRange(0, 1).Draw(rt, "changes") {
			id[rapid.IntRange(0, len(id)-1).Draw(rt, "at")] = rapid.SampledFrom([]rune("-09afAFgG/:@`\nä ")).Draw(rt, "to")
		}
		text := string(id[rapid.IntRange(0, 1).Draw(rt, "from"):]) + rapid.SampledFrom([]string{"", "", "0", "\n"}).Draw(rt, "end")
		req := &accountv1.GetContactRequest{ContactId: text}
		want := protovalidate.Validate(req) == nil
		_, err := client.GetContact(as(t.Context(), "owner"), req)
		require.Equal(rt, want, err == nil, "%q: %v", text, err)
		require.Equal(rt, !want, apierr.HasReason(err, errorv1.Reason_REASON_VALIDATION_FAILED))
	})
}
