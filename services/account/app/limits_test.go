package app_test

import (
	"context"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
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

// TestCodesHaveFewGuesses: new codes bring no new guesses. Those of one registration, and
// those of all of an address, have so many wrong ones; and the owner of the address, from
// elsewhere, gets in all the same.
func TestCodesHaveFewGuesses(t *testing.T) {
	t.Parallel()
	const victim, wrong = "victim@example.org", "000000"
	w := start(t)
	register := func(ctx context.Context) (token string) {
		r, err := w.auth.Register(ctx, &accountv1.RegisterRequest{Email: victim, Password: password, FullName: "Ada", AccountName: "A"})
		require.NoError(t, err)
		return r.GetRegistrationToken()
	}
	resend := func(ctx context.Context, token string) {
		_, err := w.auth.ResendVerification(ctx, &accountv1.ResendVerificationRequest{Email: victim, RegistrationToken: token})
		require.NoError(t, err)
	}
	verify := func(ctx context.Context, token, code string) error {
		_, err := w.auth.VerifyEmail(ctx, &accountv1.VerifyEmailRequest{Email: victim, Code: code, RegistrationToken: token})
		return err
	}
	owners := register(network(t, 200))
	code := w.mail.code(t, victim)
	require.NotEqual(t, wrong, code)

	one, passed := register(network(t, 0)), 0
	for n := range 30 {
		if n == 5 {
			resend(network(t, 0), one)
		}
		err := verify(network(t, n), one, wrong) // from wherever
		if !apierr.HasReason(err, errorv1.Reason_REASON_RATE_LIMITED) {
			reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
			passed++
		}
	}
	require.Equal(t, 10, passed, "of one registration")
	_, err := w.auth.ResendVerification(network(t, 0), &accountv1.ResendVerificationRequest{Email: victim, RegistrationToken: one})
	reason(t, errorv1.Reason_REASON_RATE_LIMITED, err) // its codes could not be used
	require.ErrorContains(t, err, "register again")
	for n := 1; n < 40; n++ {
		token := register(network(t, n))
		for range 5 {
			reason(t, errorv1.Reason_REASON_INVALID_CODE, verify(network(t, n), token, wrong))
		}
	}
	checked := 0
	require.NoError(t, w.db.Pool(t, "").QueryRow(t.Context(), "SELECT sum(attempts) FROM pending_registrations WHERE token_hash <> sha256($1)", []byte(one)).Scan(&checked))
	require.LessOrEqual(t, passed+checked, 50, "of the address, in a day")

	for len(w.mail.of(victim)) > 0 {
		w.mail.next(t, victim)
	}
	reason(t, errorv1.Reason_REASON_INVALID_CODE, verify(network(t, 200), owners, code)) // it is over
	resend(network(t, 200), owners)
	long := ""
	for long == "" { // mails to strangers may still be on their way
		long = regexp.MustCompile(`is ([0-9]{12})\.`).FindString(w.mail.next(t, victim))
	}
	err = verify(network(t, 200), owners, long[3:15])
	for apierr.HasReason(err, errorv1.Reason_REASON_INVALID_CODE) { // it was a stranger's
		long = regexp.MustCompile(`is ([0-9]{12})\.`).FindString(w.mail.next(t, victim))
		err = verify(network(t, 200), owners, long[3:15])
	}
	require.NoError(t, err)
}

// TestSecondFactorHasFewGuesses: who knows the password guesses at the second factor so
// often a day, from however many networks; a known device and a recovery code get in.
func TestSecondFactorHasFewGuesses(t *testing.T) {
	t.Parallel()
	w := start(t)
	ctx, _, _ := w.signUp(t, email)
	device := w.mustLogin(t, password).GetDeviceToken()
	secret, recovery := w.secondFactor(t, ctx)
	answer := func(ctx context.Context, code, device string) error {
		_, err := w.auth.AnswerChallenge(ctx, &accountv1.AnswerChallengeRequest{Session: w.mustLogin(t, password).GetSession(), Code: code, DeviceToken: device})
		return err
	}
	guess := func(n int, code string) (passed int) {
		err := answer(network(t, n), code, "")
		if apierr.HasReason(err, errorv1.Reason_REASON_RATE_LIMITED) {
			return 0
		}
		reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
		return 1
	}
	passed := 0
	for n := range 20 { // one network
		passed += guess(0, "000000")
		if n%4 == 3 {
			w.clock.Advance(5 * time.Minute)
		}
	}
	require.Equal(t, 10, passed)
	w.clock.Advance(5 * time.Minute)
	require.NoError(t, answer(network(t, 1), w.code(t, secret), ""), "another network")
	for n := range 60 {
		passed += guess(n, "000000")
		if n%4 == 3 {
			w.clock.Advance(5 * time.Minute)
		}
	}
	require.Equal(t, 15, passed, "in a day")
	reason(t, errorv1.Reason_REASON_RATE_LIMITED, answer(network(t, 100), w.code(t, secret), ""))
	require.NoError(t, answer(network(t, 100), recovery[0], ""))
	require.NoError(t, answer(network(t, 100), w.code(t, secret), device))

	in := with(t.Context(), func() string {
		w.clock.Advance(time.Minute)
		l, err := w.auth.AnswerChallenge(t.Context(), &accountv1.AnswerChallengeRequest{Session: w.mustLogin(t, password).GetSession(), Code: w.code(t, secret), DeviceToken: device})
		require.NoError(t, err)
		return l.GetAccessToken()
	}())
	passed = 0
	for range 20 { // who took over a session
		w.exec(t, "DELETE FROM attempt_limits WHERE key LIKE 'second factor of a user:%'") // later
		_, err := w.auth.DisableTotp(in, &accountv1.DisableTotpRequest{Code: "000000"})
		if apierr.HasReason(err, errorv1.Reason_REASON_INVALID_CODE) {
			passed++
		}
	}
	require.Equal(t, 15, passed, "in a day")
	_, err := w.auth.DisableTotp(in, &accountv1.DisableTotpRequest{Code: recovery[1]})
	require.NoError(t, err)
}
