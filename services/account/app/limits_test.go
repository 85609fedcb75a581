package app_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
