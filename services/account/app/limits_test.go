package app_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
)

// TestInvitationsAreLimited: an account mails an address, and all of them, so often and no
// more, from wherever; its name in the mail is no message; a suspended account mails nobody.
func TestInvitationsAreLimited(t *testing.T) {
	t.Parallel()
	p := startPeople(t)
	_, err := accountv1.NewAccountServiceClient(p.conn).UpdateAccount(p.owner, &accountv1.UpdateAccountRequest{
		AccountId: p.accountID, Account: &accountv1.AccountUpdate{Name: "your account is locked, unlock at https://evil.example/unlock"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}},
	})
	require.NoError(t, err)
	p.clock.Advance(5 * time.Second) // what is cached of the caller
	viewer := p.role(t, "Viewer")
	invite := func(address string) (*accountv1.CreateInvitationResponse, error) {
		return p.invitations.CreateInvitation(p.owner, &accountv1.CreateInvitationRequest{AccountId: p.accountID, Email: address, RoleId: viewer})
	}
	i, err := invite("stranger@example.org")
	require.NoError(t, err)
	mail := p.mail.next(t, "stranger@example.org")
	require.Contains(t, mail, "You are invited to an account")
	require.NotContains(t, mail, "evil")
	resend := func() error {
		_, err := p.invitations.ResendInvitation(p.owner, &accountv1.ResendInvitationRequest{InvitationId: i.GetInvitation().GetId()})
		return err
	}
	for range 4 {
		require.NoError(t, resend())
		p.mail.next(t, "stranger@example.org")
	}
	reason(t, errorv1.Reason_REASON_RATE_LIMITED, resend())
	p.exec(t, "DELETE FROM attempt_limits WHERE key LIKE 'invitation%from a side%'") // from another side
	for n := range 55 {
		_, err := invite(fmt.Sprintf("guest-%d@example.org", n))
		require.NoError(t, err)
	}
	_, err = invite("last@example.org")
	reason(t, errorv1.Reason_REASON_RATE_LIMITED, err)
	p.clock.Advance(time.Hour)
	p.exec(t, "UPDATE accounts SET status = 'suspended' WHERE id = $1", p.accountID)
	p.owner = with(t.Context(), p.mustLogin(t, password).GetAccessToken())
	_, err = invite("last@example.org")
	reason(t, errorv1.Reason_REASON_ACCOUNT_SUSPENDED, err)
	reason(t, errorv1.Reason_REASON_ACCOUNT_SUSPENDED, resend())
}

// TestFullQueueOfMails: while too many mails of a purpose wait, calls that would mail for it
// are told so, whether or not the address is known; other purposes go on.
func TestFullQueueOfMails(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.signUp(t, email)
	w.exec(t, `INSERT INTO outgoing_mails (id, purpose, sealed, not_before, expires_at)
		SELECT gen_random_uuid(), 'reset', '', now() + interval '1 year', now() + interval '1 year' FROM generate_series(1, 1000)`)
	for _, address := range []string{email, "nobody@example.org"} {
		_, err := w.auth.ForgotPassword(t.Context(), &accountv1.ForgotPasswordRequest{Email: address})
		reason(t, errorv1.Reason_REASON_UNAVAILABLE, err)
	}
	w.signUp(t, "other@example.org")
}

// network is a context of a call from a side of a network of its own.
func network(t *testing.T, n int) context.Context {
	t.Helper()
	return metadata.NewOutgoingContext(t.Context(), metadata.Pairs("x-forwarded-for", fmt.Sprintf("203.%d.%d.7", n/250, 1+n%250)))
}

// TestStrangersFillNoAddress: whatever strangers of a few networks use up at an address, by
// every call that counts there, somebody from elsewhere is served, and so is who was invited.
func TestStrangersFillNoAddress(t *testing.T) {
	t.Parallel()
	const victim = "victim@example.org"
	p := startPeople(t)
	tokens := map[string]string{} // of registrations, by who began them
	register := func(ctx context.Context, who, invitation string) error {
		req := &accountv1.RegisterRequest{Email: victim, Password: password, FullName: "Ada", InvitationToken: invitation}
		if invitation == "" {
			req.AccountName = "A"
		}
		r, err := p.auth.Register(ctx, req)
		if err == nil {
			tokens[who] = r.GetRegistrationToken()
		}
		return err
	}
	resend := func(ctx context.Context, who string) error {
		_, err := p.auth.ResendVerification(ctx, &accountv1.ResendVerificationRequest{Email: victim, RegistrationToken: tokens[who]})
		return err
	}
	forgot := func(ctx context.Context) error {
		_, err := p.auth.ForgotPassword(ctx, &accountv1.ForgotPasswordRequest{Email: victim})
		return err
	}
	// fill calls as a crowd of 5 networks until each is refused.
	fill := func(call func(ctx context.Context, who string) error) {
		for n := range 5 {
			var err error
			for range 60 {
				if err = call(network(t, n), fmt.Sprint("stranger ", n)); err != nil {
					break
				}
			}
			reason(t, errorv1.Reason_REASON_RATE_LIMITED, err)
		}
	}
	_, invitation := p.invite(t, p.owner, victim, p.role(t, "Viewer"))
	fill(func(ctx context.Context, who string) error { return register(ctx, who, "") })
	fill(resend)
	fill(func(ctx context.Context, _ string) error { return forgot(ctx) })

	for n := 10; n < 13; n++ {
		who := fmt.Sprint("victim ", n)
		require.NoError(t, register(network(t, n), who, ""))
		require.NoError(t, resend(network(t, n), who))
		require.NoError(t, forgot(network(t, n)))
	}
	for range 12 {
		require.NoError(t, register(network(t, 0), "invited", invitation), "from where the strangers are, too")
	}
}

// TestStrangersStopNoInvitation: accounts that invite an address again and again keep no
// other account from it.
func TestStrangersStopNoInvitation(t *testing.T) {
	t.Parallel()
	const victim = "victim@example.org"
	p := startPeople(t)
	invite := func(ctx context.Context, n int, accountID, role string) error {
		md, _ := metadata.FromOutgoingContext(ctx)
		md = metadata.Join(md, metadata.Pairs("x-forwarded-for", fmt.Sprintf("203.0.%d.7", n)))
		i, err := p.invitations.CreateInvitation(metadata.NewOutgoingContext(t.Context(), md), &accountv1.CreateInvitationRequest{AccountId: accountID, Email: victim, RoleId: role})
		if err == nil {
			_, err = p.invitations.RevokeInvitation(ctx, &accountv1.RevokeInvitationRequest{InvitationId: i.GetInvitation().GetId()})
		}
		return err
	}
	passed := 0
	for n := range 5 {
		stranger, _, accountID := p.signUp(t, fmt.Sprintf("stranger-%d@example.org", n))
		list, err := p.roles.ListRoles(stranger, &accountv1.ListRolesRequest{Filter: []string{"name:eq:Viewer"}})
		require.NoError(t, err)
		for range 5 {
			if invite(stranger, 1, accountID, list.GetData()[0].GetId()) == nil {
				passed++
			}
		}
	}
	require.Equal(t, 20, passed, "a day, from one network")
	require.NoError(t, invite(p.owner, 2, p.accountID, p.role(t, "Viewer")))
}
