package grpcserver_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/telemetry"
)

// TestPublicCallsHaveBudgets: a service with an RPC that anybody can call, or that mails
// somebody, does not start without a budget for it.
func TestPublicCallsHaveBudgets(t *testing.T) {
	t.Parallel()
	check := func(l grpcserver.Limiter) error {
		s, err := grpcserver.New(grpcserver.Config{Name: "test", Logger: telemetry.Discard(), Clock: clock.System(), Verifier: tokens{}, Context: people{}, Limiter: l})
		require.NoError(t, err)
		accountv1.RegisterInvitationServiceServer(s, accountv1.UnimplementedInvitationServiceServer{})
		return s.Check()
	}
	for _, err := range []error{check(nil), check(grpcserver.Unlimited{})} {
		require.ErrorContains(t, err, "InvitationService/PeekInvitation: it has no budget")
		require.ErrorContains(t, err, "InvitationService/CreateInvitation: it has no budget")
		require.NotContains(t, err.Error(), "GetInvitation")
	}
	require.NoError(t, check(grpcserver.Unlimited{
		accountv1.InvitationService_PeekInvitation_FullMethodName: "x", accountv1.InvitationService_CreateInvitation_FullMethodName: "x",
		accountv1.InvitationService_ResendInvitation_FullMethodName: "x",
	}))
}

// once lets each method through once and notes how the calls end.
type once struct {
	grpcserver.Unlimited
	seen  map[string]bool
	ended []error
}

func (o *once) Admit(ctx context.Context, method string, _ proto.Message) (context.Context, func(context.Context, error) error, error) {
	if o.seen[method] {
		return nil, nil, apierr.New(errorv1.Reason_REASON_RATE_LIMITED, "too many")
	}
	o.seen[method] = true
	return ctx, func(_ context.Context, err error) error {
		o.ended = append(o.ended, err)
		return nil
	}, nil
}

// TestBudgetsComeBeforeHandlers: a call beyond its budget never comes to its handler, and
// how the others end is told.
func TestBudgetsComeBeforeHandlers(t *testing.T) {
	t.Parallel()
	o := &once{seen: map[string]bool{}}
	s, err := grpcserver.New(grpcserver.Config{Name: "test", Logger: telemetry.Discard(), Clock: clock.System(), Verifier: tokens{}, Context: people{}, Limiter: o})
	require.NoError(t, err)
	accountv1.RegisterInvitationServiceServer(s, accountv1.UnimplementedInvitationServiceServer{})
	client := accountv1.NewInvitationServiceClient(s.Conn(""))
	call := func() errorv1.Reason {
		_, err := client.PeekInvitation(t.Context(), &accountv1.PeekInvitationRequest{Token: "token"})
		return apierr.From(err).Reason
	}
	require.NotEqual(t, errorv1.Reason_REASON_RATE_LIMITED, call())
	require.Equal(t, errorv1.Reason_REASON_RATE_LIMITED, call())
	require.Len(t, o.ended, 1)
	require.Error(t, o.ended[0])
}
