package app_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	idp "github.com/aws/aws-sdk-go-v2/service/cognitoidentityprovider"
	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/app"
	"github.com/turumba/turumba/services/account/identity/cognito/cognitotest"
)

// startCognito starts the service on a user pool of its own. The emulator has no other
// time than today.
func startCognito(t *testing.T, change ...func(*app.Config, *app.Deps)) (*world, *cognitotest.Pool) {
	t.Helper()
	pool := cognitotest.Start(t)
	now := clock.NewFake(clock.System().Now())
	w := start(t, append([]func(*app.Config, *app.Deps){func(cfg *app.Config, deps *app.Deps) {
		cfg.Identity = app.IdentitySettings{Provider: app.ProviderCognito, Cognito: pool.Settings}
		deps.Clock, deps.HTTP = now, pool.HTTP
	}}, change...)...)
	w.clock = now
	return w, pool
}

// enrol registers in the pool and logs in.
func (w *world) enrol(t *testing.T, req *accountv1.RegisterRequest) (context.Context, *accountv1.VerifyEmailResponse, *accountv1.LoginResponse) {
	t.Helper()
	req.Password = password
	r, err := w.auth.Register(t.Context(), req)
	require.NoError(t, err)
	require.Equal(t, "confirm_email", r.GetNext())
	v, err := w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: req.GetEmail(), Code: cognitotest.Code, RegistrationToken: r.GetRegistrationToken()})
	require.NoError(t, err)
	w.registration = r.GetRegistrationToken()
	l, err := w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: req.GetEmail(), Password: password})
	require.NoError(t, err)
	return with(t.Context(), l.GetAccessToken()), v, l
}

// TestCognito is the way of a person through the pool, and of an API key beside it.
func TestCognito(t *testing.T) {
	t.Parallel()
	for name, enforced := range map[string]bool{"operators with a second factor": true, "nobody says so": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cognitoDay(t, enforced)
		})
	}
}

func cognitoDay(t *testing.T, enforced bool) {
	t.Helper()
	w, pool := startCognito(t, func(cfg *app.Config, _ *app.Deps) { cfg.Identity.Trusted.OperatorsMFA = enforced })
	owner, v, l := w.enrol(t, &accountv1.RegisterRequest{Email: "Ada@Example.org", FullName: "Ada King Lovelace", AccountName: "Analytical"})
	require.Positive(t, l.GetExpiresIn())
	require.Equal(t, "Bearer", l.GetTokenType())

	c, err := accountv1.NewContextServiceClient(w.conn).GetContext(owner, &accountv1.GetContextRequest{})
	require.NoError(t, err)
	require.Equal(t, v.GetUserId(), c.GetUserId())
	require.Equal(t, []string{v.GetAccountId()}, c.GetAccountIds())
	require.Equal(t, "Analytical", c.GetMemberships()[0].GetAccountName())
	require.Contains(t, c.GetMemberships()[0].GetPermissions(), "accounts.delete", "the Owner")
	me, err := accountv1.NewUserServiceClient(w.conn).GetMe(owner, &accountv1.GetMeRequest{})
	require.NoError(t, err)
	require.Equal(t, "ada@example.org", me.GetUser().GetEmail())
	require.NotEqual(t, v.GetUserId(), me.GetUser().GetIdpSubject(), "the sub is the pool's")
	roles, err := accountv1.NewRoleServiceClient(w.conn).ListRoles(owner, &accountv1.ListRolesRequest{})
	require.NoError(t, err)
	require.Len(t, roles.GetData(), 4)

	again, err := w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: "ada@example.org", Code: cognitotest.Code, RegistrationToken: w.registration})
	require.NoError(t, err)
	require.Equal(t, v.GetAccountId(), again.GetAccountId(), "verifying again answers the same")
	_, err = w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: "ada@example.org", Code: "000000", RegistrationToken: w.registration})
	reason(t, errorv1.Reason_REASON_INVALID_CODE, err)

	key, err := accountv1.NewApiKeyServiceClient(w.conn).CreateApiKey(owner, &accountv1.CreateApiKeyRequest{Name: "CRM", Permissions: []string{"contacts.read"}})
	require.NoError(t, err)
	issued, err := w.auth.IssueToken(t.Context(), &accountv1.IssueTokenRequest{GrantType: "client_credentials", ClientId: key.GetApiKey().GetId(), ClientSecret: key.GetSecret()})
	require.NoError(t, err)
	machine := with(t.Context(), issued.GetAccessToken())
	_, err = w.contacts.ListContacts(machine, &accountv1.ListContactsRequest{})
	require.NoError(t, err, "a token of ours beside those of the pool")
	_, err = w.contacts.CreateContact(machine, &accountv1.CreateContactRequest{FirstName: "A"})
	reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, err)

	r, err := w.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: l.GetRefreshToken()})
	require.NoError(t, err)
	require.Equal(t, l.GetRefreshToken(), r.GetRefreshToken())
	_, err = accountv1.NewContextServiceClient(w.conn).GetContext(with(t.Context(), r.GetAccessToken()), &accountv1.GetContextRequest{})
	require.NoError(t, err)
	_, err = w.contacts.ListContacts(with(t.Context(), r.GetIdToken()), &accountv1.ListContactsRequest{})
	reason(t, errorv1.Reason_REASON_UNAUTHENTICATED, err)
	for range 2 {
		_, err = w.auth.Logout(t.Context(), &accountv1.LogoutRequest{RefreshToken: l.GetRefreshToken()})
		require.NoError(t, err)
	}
	_, err = w.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: l.GetRefreshToken()})
	reason(t, errorv1.Reason_REASON_INVALID_REFRESH_TOKEN, err)

	operator := accountv1.NewOperatorServiceClient(w.conn)
	_, err = operator.SuspendAccount(owner, &accountv1.SuspendAccountRequest{AccountId: v.GetAccountId(), Reason: "x"})
	reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, err)
	pool.AddToGroup(t, "ada@example.org", "operators")
	disable := func() error {
		l, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "ada@example.org", Password: password})
		require.NoError(t, err)
		_, err = operator.DisableUser(with(t.Context(), l.GetAccessToken()), &accountv1.DisableUserRequest{UserId: v.GetUserId()})
		return err
	}
	if !enforced {
		reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, disable()) // nothing says that operators have a second factor
		return
	}
	require.NoError(t, disable(), "the groups of the pool gate the RPCs of operators")
	_, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "ada@example.org", Password: password})
	reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)
}

// TestCognitoRegistration: nothing tells a known address, a registration that waits is
// not touched by a later one, and one that waited long enough gives way.
func TestCognitoRegistration(t *testing.T) {
	t.Parallel()
	w, _ := startCognito(t)
	req := &accountv1.RegisterRequest{Email: "a@example.org", Password: "tangled weather balloon", FullName: "Mallory", AccountName: "Not yours"}
	stranger, err := w.auth.Register(t.Context(), req)
	require.NoError(t, err)
	_, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "a@example.org", Password: req.GetPassword()})
	reason(t, errorv1.Reason_REASON_EMAIL_NOT_VERIFIED, err)
	verify := func(r *accountv1.RegisterResponse, code string) error {
		_, err := w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: "a@example.org", Code: code, RegistrationToken: r.GetRegistrationToken()})
		return err
	}
	reason(t, errorv1.Reason_REASON_INVALID_CODE, verify(stranger, "000000"))
	mine := &accountv1.RegisterRequest{Email: "a@example.org", Password: password, FullName: "Ada", AccountName: "Mine"}
	later, err := w.auth.Register(t.Context(), mine)
	require.NoError(t, err)
	require.Contains(t, w.mail.next(t, "a@example.org"), "Another registration of your address waits")
	reason(t, errorv1.Reason_REASON_INVALID_CODE, verify(later, cognitotest.Code)) // it is of the stranger's registration
	_, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "a@example.org", Password: req.GetPassword()})
	reason(t, errorv1.Reason_REASON_EMAIL_NOT_VERIFIED, err)

	w.clock.Advance(account.CodeLife)
	owner, v, _ := w.enrol(t, &accountv1.RegisterRequest{Email: "a@example.org", FullName: "Ada", AccountName: "Mine"})
	_, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "a@example.org", Password: req.GetPassword()})
	reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)
	a, err := accountv1.NewAccountServiceClient(w.conn).GetAccount(owner, &accountv1.GetAccountRequest{AccountId: v.GetAccountId()})
	require.NoError(t, err)
	require.Equal(t, "Mine", a.GetAccount().GetName())
	reason(t, errorv1.Reason_REASON_INVALID_CODE, verify(stranger, cognitotest.Code))

	known, err := w.auth.Register(t.Context(), req)
	require.NoError(t, err)
	require.Equal(t, "confirm_email", known.GetNext(), "the same answer for a known address")
	notice := w.mail.next(t, "a@example.org")
	for strings.HasPrefix(notice, "Another registration") { // sent again: the clock ran on before it was noted as sent
		notice = w.mail.next(t, "a@example.org")
	}
	require.Contains(t, notice, "have an account already")
	_, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "a@example.org", Password: password})
	require.NoError(t, err, "the second registration changed nothing")

	for _, email := range []string{"a@example.org", "nobody@example.org"} {
		_, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: email, Password: "another password"})
		reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)
		_, err = w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: email, Code: "111111", RegistrationToken: known.GetRegistrationToken()})
		reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
		_, err = w.auth.ForgotPassword(t.Context(), &accountv1.ForgotPasswordRequest{Email: email})
		require.NoError(t, err)
		_, err = w.auth.ResetPassword(t.Context(), &accountv1.ResetPasswordRequest{Email: email, Code: "000000", NewPassword: "tangled weather balloon"})
		reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
	}
	_, err = w.auth.Register(t.Context(), &accountv1.RegisterRequest{Email: "x@y.example", Password: "aaaaaaaaaaaaaa", FullName: "X", AccountName: "A"})
	reason(t, errorv1.Reason_REASON_WEAK_PASSWORD, err)
}

// TestCognitoIdempotency: a repeated registration makes no second user in the pool.
func TestCognitoIdempotency(t *testing.T) {
	t.Parallel()
	w, pool := startCognito(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "once")
	register := func() (subject string) {
		_, err := w.auth.Register(ctx, &accountv1.RegisterRequest{Email: "a@example.org", Password: password, FullName: "A", AccountName: "A"})
		require.NoError(t, err)
		out, err := pool.Admin.AdminGetUser(t.Context(), &idp.AdminGetUserInput{UserPoolId: &pool.Settings.UserPoolID, Username: aws.String("a@example.org")})
		require.NoError(t, err)
		return *out.Username
	}
	first := register()
	require.Equal(t, first, register())
	_, err := w.auth.Register(ctx, &accountv1.RegisterRequest{Email: "a@example.org", Password: password, FullName: "B", AccountName: "B"})
	reason(t, errorv1.Reason_REASON_IDEMPOTENCY_KEY_REUSED, err)
}

// TestCognitoInvitation: a colleague registers with an invitation of ours.
func TestCognitoInvitation(t *testing.T) {
	t.Parallel()
	w, _ := startCognito(t)
	owner, v, _ := w.enrol(t, &accountv1.RegisterRequest{Email: "owner@example.org", FullName: "O", AccountName: "School"})
	invitations := accountv1.NewInvitationServiceClient(w.conn)
	roles, err := accountv1.NewRoleServiceClient(w.conn).ListRoles(owner, &accountv1.ListRolesRequest{Filter: []string{"name:eq:Agent"}})
	require.NoError(t, err)
	_, err = invitations.CreateInvitation(owner, &accountv1.CreateInvitationRequest{Email: "new@example.org", RoleId: roles.GetData()[0].GetId()})
	require.NoError(t, err)
	_, after, _ := strings.Cut(w.mail.next(t, "new@example.org"), "inv_")
	token := "inv_" + strings.Fields(after)[0]
	_, err = w.auth.Register(t.Context(), &accountv1.RegisterRequest{Email: "other@example.org", Password: password, FullName: "N", InvitationToken: token})
	reason(t, errorv1.Reason_REASON_INVITATION_OVER, err)
	colleague, joined, _ := w.enrol(t, &accountv1.RegisterRequest{Email: "new@example.org", FullName: "New Colleague", InvitationToken: token})
	require.Equal(t, v.GetAccountId(), joined.GetAccountId())
	c, err := accountv1.NewContextServiceClient(w.conn).GetContext(colleague, &accountv1.GetContextRequest{})
	require.NoError(t, err)
	require.Equal(t, []string{v.GetAccountId()}, c.GetAccountIds())
	require.NotContains(t, c.GetMemberships()[0].GetPermissions(), "accounts.delete")
}

// TestCognitoFactor: the second factor of the pool, from its set-up to its end.
func TestCognitoFactor(t *testing.T) {
	t.Parallel()
	w, _ := startCognito(t)
	owner, _, _ := w.enrol(t, &accountv1.RegisterRequest{Email: "a@example.org", FullName: "A", AccountName: "A"})
	code := func(secret string) string {
		c, err := totp.GenerateCode(secret, clock.System().Now())
		require.NoError(t, err)
		return c
	}
	_, err := w.auth.DisableTotp(owner, &accountv1.DisableTotpRequest{Code: "000000"})
	reason(t, errorv1.Reason_REASON_MFA_NOT_ENABLED, err)
	_, err = w.auth.VerifyTotp(owner, &accountv1.VerifyTotpRequest{Code: "000000"})
	reason(t, errorv1.Reason_REASON_MFA_NOT_ENABLED, err)
	_, err = w.auth.SetupTotp(owner, &accountv1.SetupTotpRequest{Password: "another password"})
	reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)
	set, err := w.auth.SetupTotp(owner, &accountv1.SetupTotpRequest{Password: password})
	require.NoError(t, err)
	require.Contains(t, set.GetOtpauthUri(), set.GetSecret())
	_, err = w.auth.VerifyTotp(owner, &accountv1.VerifyTotpRequest{Code: "000000"})
	reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
	verified, err := w.auth.VerifyTotp(owner, &accountv1.VerifyTotpRequest{Code: code(set.GetSecret())})
	require.NoError(t, err)
	require.Empty(t, verified.GetRecoveryCodes(), "the pool has none")
	past := func() { // tokens of the emulator tell no session that could be kept, and their times are today's
		w.exec(t, "UPDATE users SET sessions_since = sessions_since - interval '1 minute'")
		w.clock.Advance(5 * time.Second) // what is cached of the caller
	}
	past()
	_, err = w.auth.RenewRecoveryCodes(owner, &accountv1.RenewRecoveryCodesRequest{Code: code(set.GetSecret())})
	reason(t, errorv1.Reason_REASON_PROVIDER_UNSUPPORTED, err)
	_, err = w.auth.SetupTotp(owner, &accountv1.SetupTotpRequest{Password: password})
	reason(t, errorv1.Reason_REASON_MFA_ENABLED, err)

	l, err := w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "a@example.org", Password: password})
	require.NoError(t, err)
	require.Equal(t, "SOFTWARE_TOKEN_MFA", l.GetChallenge())
	require.Empty(t, l.GetAccessToken())
	_, err = w.auth.AnswerChallenge(t.Context(), &accountv1.AnswerChallengeRequest{Session: l.GetSession(), Code: "000000"})
	reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
	for range 4 { // nobody uses up the attempts of somebody whose session they were not given
		for _, session := range []string{"nonsense", "a@example.org:nonsense", ":", l.GetSession() + "A", l.GetSession()[1:]} {
			_, err = w.auth.AnswerChallenge(side(t, 1), &accountv1.AnswerChallengeRequest{Session: session, Code: "000000"})
			reason(t, errorv1.Reason_REASON_INVALID_SESSION, err)
		}
	}
	in, err := w.auth.AnswerChallenge(t.Context(), &accountv1.AnswerChallengeRequest{Session: l.GetSession(), Code: code(set.GetSecret())})
	require.NoError(t, err)
	again := with(t.Context(), in.GetAccessToken())
	_, err = w.auth.DisableTotp(again, &accountv1.DisableTotpRequest{Code: "000000"})
	reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
	_, err = w.auth.DisableTotp(again, &accountv1.DisableTotpRequest{Code: code(set.GetSecret())})
	require.NoError(t, err)
	require.Contains(t, w.mail.next(t, "a@example.org"), "second factor")
	l, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "a@example.org", Password: password})
	require.NoError(t, err)
	require.NotEmpty(t, l.GetAccessToken())
}

// TestCognitoPasswords: a forgotten and a changed password end the sessions.
func TestCognitoPasswords(t *testing.T) {
	t.Parallel()
	w, _ := startCognito(t)
	old, _, _ := w.enrol(t, &accountv1.RegisterRequest{Email: "a@example.org", FullName: "A", AccountName: "A"})
	login := func(password string) context.Context {
		l, err := w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "a@example.org", Password: password})
		require.NoError(t, err)
		return with(t.Context(), l.GetAccessToken())
	}
	const second, third = "tangled weather balloon", "yellow submarine lettuce"
	w.clock.Advance(time.Minute) // the sessions that end began before
	_, err := w.auth.ChangePassword(old, &accountv1.ChangePasswordRequest{CurrentPassword: password, NewPassword: second})
	require.NoError(t, err)
	require.Contains(t, w.mail.next(t, "a@example.org"), "password was changed")
	_, err = w.auth.LogoutEverywhere(old, &accountv1.LogoutEverywhereRequest{})
	reason(t, errorv1.Reason_REASON_UNAUTHENTICATED, err)
	_, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "a@example.org", Password: password})
	reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)
	login(second)

	_, err = w.auth.ForgotPassword(t.Context(), &accountv1.ForgotPasswordRequest{Email: "a@example.org"})
	require.NoError(t, err)
	_, err = w.auth.ResetPassword(t.Context(), &accountv1.ResetPasswordRequest{Email: "a@example.org", Code: cognitotest.Code, NewPassword: third})
	require.NoError(t, err)
	require.Contains(t, w.mail.next(t, "a@example.org"), "password was changed")
	_, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "a@example.org", Password: second})
	reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)
	login(third)
}

// TestCognitoResetGuesses: one side has ten guesses of a reset code in an hour, and does not
// use up what others have; the pool's own limit is not asked.
func TestCognitoResetGuesses(t *testing.T) {
	t.Parallel()
	const email, newPassword = "a@example.org", "tangled weather balloon"
	w, _ := startCognito(t)
	w.enrol(t, &accountv1.RegisterRequest{Email: email, FullName: "A", AccountName: "A"})
	_, err := w.auth.ForgotPassword(t.Context(), &accountv1.ForgotPasswordRequest{Email: email})
	require.NoError(t, err)
	reset := func(n int, code string) error {
		_, err := w.auth.ResetPassword(side(t, n), &accountv1.ResetPasswordRequest{Email: email, Code: code, NewPassword: newPassword})
		return err
	}
	for range 10 {
		reason(t, errorv1.Reason_REASON_INVALID_CODE, reset(1, "000000"))
	}
	limited := apierr.From(reset(1, cognitotest.Code))
	require.Equal(t, errorv1.Reason_REASON_RATE_LIMITED, limited.Reason)
	require.Contains(t, limited.Message, "at most 10 in 60 minutes")
	require.Positive(t, limited.RetryAfter)
	require.NoError(t, reset(2, cognitotest.Code))
	_, err = w.auth.Login(side(t, 2), &accountv1.LoginRequest{Email: email, Password: newPassword})
	require.NoError(t, err)
}
