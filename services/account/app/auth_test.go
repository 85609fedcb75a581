package app_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

const (
	email       = "owner@example.org"
	newPassword = "seven quiet mountain goats"
)

func (w *world) login(t *testing.T, password string) (*accountv1.LoginResponse, error) {
	t.Helper()
	return w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: email, Password: password})
}

func (w *world) mustLogin(t *testing.T, password string) *accountv1.LoginResponse {
	t.Helper()
	l, err := w.login(t, password)
	require.NoError(t, err)
	return l
}

// works reports whether an access token is accepted.
func (w *world) works(t *testing.T, token string) bool {
	t.Helper()
	_, err := accountv1.NewContextServiceClient(w.conn).GetContext(with(t.Context(), token), &accountv1.GetContextRequest{})
	if err != nil {
		reason(t, errorv1.Reason_REASON_UNAUTHENTICATED, err)
	}
	return err == nil
}

// side is a context of a call from an address.
func side(t *testing.T, n int) context.Context {
	t.Helper()
	return metadata.NewOutgoingContext(t.Context(), metadata.Pairs("x-forwarded-for", fmt.Sprintf("198.51.%d.%d", n/250, 1+n%250)))
}

// guess is a login with a wrong password from a side.
func (w *world) guess(t *testing.T, n int, email string) error {
	t.Helper()
	for {
		_, err := w.auth.Login(side(t, n), &accountv1.LoginRequest{Email: email, Password: "wrong password"})
		if apierr.From(err).Reason != errorv1.Reason_REASON_UNAVAILABLE {
			return err // else there was no place for it
		}
	}
}

// TestLoginLimits: many sides that guess at an address stop others that nobody knows, and
// no device that logged in before.
func TestLoginLimits(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.signUp(t, email)
	device := w.mustLogin(t, password).GetDeviceToken()
	for n := range 100 {
		reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, w.guess(t, n, email))
	}
	login := func(n int, email, password, device string) (*accountv1.LoginResponse, error) {
		return w.auth.Login(side(t, n), &accountv1.LoginRequest{Email: email, Password: password, DeviceToken: device})
	}
	for _, p := range []string{password, "wrong password"} {
		_, err := login(200, email, p, "")
		reason(t, errorv1.Reason_REASON_RATE_LIMITED, err)
		require.InDelta(t, time.Hour, apierr.From(err).RetryAfter, float64(time.Minute))
	}
	_, err := login(201, "nobody@example.org", password, "")
	reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)

	for n := range 3 {
		l, err := login(n, email, password, device)
		require.NoError(t, err, "the device is known, from wherever it asks")
		device = l.GetDeviceToken()
	}
	w.signUp(t, "mallory@example.org")
	stranger, err := login(202, "mallory@example.org", password, "")
	require.NoError(t, err)
	for _, token := range []string{stranger.GetDeviceToken(), "made up", device[:len(device)-1], device + "A"} {
		_, err = login(203, email, password, token)
		reason(t, errorv1.Reason_REASON_RATE_LIMITED, err)
	}
	for range 5 {
		_, err = login(204, email, "wrong password", device)
		reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)
	}
	_, err = login(205, email, password, device)
	reason(t, errorv1.Reason_REASON_RATE_LIMITED, err) // its own budget
	w.clock.Advance(time.Minute)
	_, err = login(205, email, password, device)
	require.NoError(t, err)
	w.clock.Advance(time.Hour)
	w.mustLogin(t, password)
	w.clock.Advance(181 * 24 * time.Hour)
	for n := range 100 {
		require.Error(t, w.guess(t, n, email))
	}
	_, err = login(207, email, password, device)
	reason(t, errorv1.Reason_REASON_RATE_LIMITED, err) // too old to be known
}

// TestSidesWait: one side is stopped by its own calls, however it writes its addresses and
// whoever it asks for, and stops nobody else.
func TestSidesWait(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.signUp(t, email)
	n := 0
	from := func(format string) context.Context {
		n++
		return metadata.NewOutgoingContext(t.Context(), metadata.Pairs("x-forwarded-for", fmt.Sprintf(format, n)))
	}
	login := func(ctx context.Context, email, password string) errorv1.Reason {
		if _, err := w.auth.Login(ctx, &accountv1.LoginRequest{Email: email, Password: password}); err != nil {
			return apierr.From(err).Reason
		}
		return errorv1.Reason_REASON_UNSPECIFIED
	}
	for range 20 {
		require.Equal(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, login(from("2001:db8:1:2:%x::1"), fmt.Sprintf("spray-%d@example.org", n), "wrong"))
	}
	require.Equal(t, errorv1.Reason_REASON_RATE_LIMITED, login(from("2001:db8:1:2::%x"), email, password))
	require.Equal(t, errorv1.Reason_REASON_UNSPECIFIED, login(from("2001:db8:1:3::%x"), email, password))
	for _, format := range []string{"203.0.113.7", "::ffff:203.0.113.7"} {
		for range 10 {
			require.Equal(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, login(from(format+"%.0d"), fmt.Sprintf("spray-%d@example.org", n), "wrong"))
		}
	}
	require.Equal(t, errorv1.Reason_REASON_RATE_LIMITED, login(from("203.0.113.7%.0d"), email, password))
}

// TestStrangersStopNobody: what strangers use up of one purpose is not missing for another,
// nor for the person whose address they name.
func TestStrangersStopNobody(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.signUp(t, email)
	device := w.mustLogin(t, password).GetDeviceToken()
	forgot := func(n int, device string) error {
		_, err := w.auth.ForgotPassword(side(t, n), &accountv1.ForgotPasswordRequest{Email: email, DeviceToken: device})
		return err
	}
	for n := range 4 {
		for range 5 {
			require.NoError(t, forgot(n, ""))
		}
		reason(t, errorv1.Reason_REASON_RATE_LIMITED, forgot(n, ""))
	}
	reason(t, errorv1.Reason_REASON_RATE_LIMITED, forgot(9, ""))
	for range 20 {
		w.mail.next(t, email)
	}
	require.NoError(t, forgot(10, device))
	code := strings.Split(w.mail.next(t, email), "\n")[3]
	for range 25 {
		_, err := w.auth.ResetPassword(side(t, 11), &accountv1.ResetPasswordRequest{Email: email, Code: "wrong", NewPassword: newPassword})
		require.Error(t, err)
	}
	_, err := w.auth.ResetPassword(side(t, 12), &accountv1.ResetPasswordRequest{Email: email, Code: code, NewPassword: newPassword})
	require.NoError(t, err)
	w.mustLogin(t, newPassword)

	// Nor are registrations: of the same address, or with made-up tokens of it.
	const other = "new@example.org"
	register := func(n int) (*accountv1.RegisterResponse, error) {
		return w.auth.Register(side(t, n), &accountv1.RegisterRequest{Email: other, Password: password, FullName: "Ada", AccountName: "A"})
	}
	for range 8 {
		_, err := register(20)
		require.NoError(t, err)
		w.mail.code(t, other)
	}
	r, err := register(21)
	require.NoError(t, err)
	good := w.mail.code(t, other)
	for range 40 {
		_, _ = w.auth.VerifyEmail(side(t, 20), &accountv1.VerifyEmailRequest{Email: other, Code: "000000", RegistrationToken: "made up"})
		_, _ = w.auth.ResendVerification(side(t, 20), &accountv1.ResendVerificationRequest{Email: other, RegistrationToken: "made up"})
	}
	_, err = w.auth.VerifyEmail(side(t, 21), &accountv1.VerifyEmailRequest{Email: other, Code: good, RegistrationToken: r.GetRegistrationToken()})
	require.NoError(t, err)
}

// TestManyGuessesAtOnceCountEach: as many guesses come through as are allowed, from many
// sides as well as from one.
func TestManyGuessesAtOnceCountEach(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.signUp(t, email)
	for name, c := range map[string]struct {
		email string
		side  func(i int) int
		pass  int
	}{
		"an address":      {email, func(i int) int { return i }, 100},
		"an address, one": {"nobody@example.org", func(int) int { return 500 }, 5},
	} {
		var wg sync.WaitGroup
		var passed atomic.Int64
		for i := range 150 {
			wg.Go(func() {
				if apierr.From(w.guess(t, c.side(i), c.email)).Reason != errorv1.Reason_REASON_RATE_LIMITED {
					passed.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, c.pass, passed.Load(), name)
	}
}

func TestRefreshReuseRevokesTheFamily(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.signUp(t, email)
	l := w.mustLogin(t, password)
	other := w.mustLogin(t, password)
	second, err := w.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: l.GetRefreshToken()})
	require.NoError(t, err)
	_, err = w.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: l.GetRefreshToken()})
	reason(t, errorv1.Reason_REASON_REFRESH_TOKEN_USED, err)
	require.True(t, w.works(t, second.GetAccessToken()), "a second use at once is a retry, not a theft")

	w.clock.Advance(11 * time.Second)
	_, err = w.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: l.GetRefreshToken()})
	reason(t, errorv1.Reason_REASON_INVALID_REFRESH_TOKEN, err)
	_, err = w.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: second.GetRefreshToken()})
	reason(t, errorv1.Reason_REASON_INVALID_REFRESH_TOKEN, err)
	require.False(t, w.works(t, second.GetAccessToken()), "the stolen session's access tokens end too")
	require.True(t, w.works(t, other.GetAccessToken()), "another session of the user goes on")
}

func TestSessionsEndAfter30Days(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.signUp(t, email)
	token := w.mustLogin(t, password).GetRefreshToken()
	for range 2 {
		w.clock.Advance(14 * 24 * time.Hour)
		r, err := w.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: token})
		require.NoError(t, err)
		token = r.GetRefreshToken()
	}
	w.clock.Advance(3 * 24 * time.Hour)
	_, err := w.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: token})
	reason(t, errorv1.Reason_REASON_INVALID_REFRESH_TOKEN, err)
}

func TestLogout(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.signUp(t, email)
	one, two := w.mustLogin(t, password), w.mustLogin(t, password)
	for range 2 {
		_, err := w.auth.Logout(t.Context(), &accountv1.LogoutRequest{RefreshToken: one.GetRefreshToken()})
		require.NoError(t, err)
	}
	require.False(t, w.works(t, one.GetAccessToken()))
	require.True(t, w.works(t, two.GetAccessToken()))
	_, err := w.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: one.GetRefreshToken()})
	reason(t, errorv1.Reason_REASON_INVALID_REFRESH_TOKEN, err)

	three := w.mustLogin(t, password)
	_, err = w.auth.LogoutEverywhere(with(t.Context(), two.GetAccessToken()), &accountv1.LogoutEverywhereRequest{})
	require.NoError(t, err)
	for _, l := range []*accountv1.LoginResponse{two, three} {
		require.False(t, w.works(t, l.GetAccessToken()))
		_, err = w.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: l.GetRefreshToken()})
		reason(t, errorv1.Reason_REASON_INVALID_REFRESH_TOKEN, err)
	}
	require.True(t, w.works(t, w.mustLogin(t, password).GetAccessToken()), "a new login in the same second is good")
}

func TestForgottenPassword(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.signUp(t, email)
	session := w.mustLogin(t, password)
	forgot := func(address string) *accountv1.ForgotPasswordResponse {
		r, err := w.auth.ForgotPassword(t.Context(), &accountv1.ForgotPasswordRequest{Email: address})
		require.NoError(t, err)
		return r
	}
	require.Equal(t, forgot("nobody@example.org").GetNext(), forgot(email).GetNext())
	code := func() string { return strings.Split(w.mail.next(t, email), "\n")[3] }
	first := code()
	forgot(email)
	second := code()
	reset := func(address, code, password string) error {
		_, err := w.auth.ResetPassword(t.Context(), &accountv1.ResetPasswordRequest{Email: address, Code: code, NewPassword: password})
		return err
	}
	reason(t, errorv1.Reason_REASON_INVALID_CODE, reset("nobody@example.org", second, newPassword))
	reason(t, errorv1.Reason_REASON_WEAK_PASSWORD, reset(email, second, "password12345"))
	require.NoError(t, reset(email, second, newPassword))
	require.Contains(t, w.mail.next(t, email), "was changed")
	for _, used := range []string{first, second} { // each was good until then
		reason(t, errorv1.Reason_REASON_INVALID_CODE, reset(email, used, newPassword))
	}
	require.False(t, w.works(t, session.GetAccessToken()), "who was logged in is out")
	_, err := w.login(t, password)
	reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)
	w.mustLogin(t, newPassword)

	forgot(email)
	late := code()
	w.clock.Advance(16 * time.Minute)
	reason(t, errorv1.Reason_REASON_INVALID_CODE, reset(email, late, password))
	for range 2 {
		forgot(email)
	}
	_, err = w.auth.ForgotPassword(t.Context(), &accountv1.ForgotPasswordRequest{Email: email})
	reason(t, errorv1.Reason_REASON_RATE_LIMITED, err)
}

func TestChangedPassword(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.signUp(t, email)
	here, there := w.mustLogin(t, password), w.mustLogin(t, password)
	change := func(from, to string) error {
		_, err := w.auth.ChangePassword(with(t.Context(), here.GetAccessToken()), &accountv1.ChangePasswordRequest{CurrentPassword: from, NewPassword: to})
		return err
	}
	reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, change("wrong password", newPassword))
	err := change(password, "owner@example.org")
	reason(t, errorv1.Reason_REASON_WEAK_PASSWORD, err)
	require.Equal(t, "new_password", apierr.From(err).Fields[0].Field)
	require.NoError(t, change(password, newPassword))
	require.True(t, w.works(t, here.GetAccessToken()))
	require.False(t, w.works(t, there.GetAccessToken()))
	w.mustLogin(t, newPassword)
}

// TestAPIKeyIsAnsweredAgain: who lost the first answer repeats the call and gets the same
// key. Nobody else of the account does, and no row shows it.
func TestAPIKeyIsAnsweredAgain(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, accountID := w.signUp(t, email)
	colleague, colleagueID, _ := w.signUp(t, "colleague@example.org")
	w.exec(t, `INSERT INTO account_users (id, account_id, user_id, role_id, created_at)
		SELECT gen_random_uuid(), $1, $2, id, now() FROM roles WHERE account_id = $1 AND name = 'Owner'`, accountID, colleagueID)
	keys := accountv1.NewApiKeyServiceClient(w.conn)
	create := func(ctx context.Context) *accountv1.CreateApiKeyResponse {
		ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", "once")
		res, err := keys.CreateApiKey(ctx, &accountv1.CreateApiKeyRequest{AccountId: accountID, Name: "CRM", Permissions: []string{"contacts.read"}})
		require.NoError(t, err)
		require.NotEmpty(t, res.GetSecret())
		return res
	}
	first := create(owner)
	require.True(t, proto.Equal(first, create(owner)))
	other := create(colleague)
	require.NotEqual(t, first.GetApiKey().GetId(), other.GetApiKey().GetId())
	require.NotEqual(t, first.GetSecret(), other.GetSecret())
	var shown int
	require.NoError(t, w.db.Pool(t, "").QueryRow(t.Context(), "SELECT count(*) FROM idempotency_keys WHERE position($1::bytea IN response) > 0", []byte(first.GetSecret())).Scan(&shown))
	require.Zero(t, shown)
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, ownerID, accountID := w.signUp(t, email)
	keys := accountv1.NewApiKeyServiceClient(w.conn)
	create := func(permissions ...string) (*accountv1.CreateApiKeyResponse, error) {
		return keys.CreateApiKey(owner, &accountv1.CreateApiKeyRequest{Name: "CRM", Permissions: permissions, ExpiresAt: timestamppb.New(w.clock.Now().AddDate(20, 0, 0))})
	}
	_, err := create("contacts.read", "contacts.fly")
	reason(t, errorv1.Reason_REASON_VALIDATION_FAILED, err)
	k, err := create("contacts.write", "contacts.read")
	require.NoError(t, err)
	require.Equal(t, []string{"contacts.read", "contacts.write"}, k.GetApiKey().GetPermissions())
	require.True(t, strings.HasPrefix(k.GetSecret(), k.GetApiKey().GetPrefix()))

	token := func(id, secret string) (*accountv1.IssueTokenResponse, error) {
		return w.auth.IssueToken(t.Context(), &accountv1.IssueTokenRequest{GrantType: "client_credentials", ClientId: id, ClientSecret: secret})
	}
	for id, secret := range map[string]string{k.GetApiKey().GetId(): "tsk_wrong", ownerID: k.GetSecret(), "0190a5c8-1111-7000-8000-00000000dead": k.GetSecret()} {
		_, err = token(id, secret)
		reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)
	}
	issued, err := token(k.GetApiKey().GetId(), k.GetSecret())
	require.NoError(t, err)
	require.EqualValues(t, 900, issued.GetExpiresIn())
	machine := with(t.Context(), issued.GetAccessToken())
	_, err = w.contacts.CreateContact(machine, &accountv1.CreateContactRequest{Email: "a@example.org"})
	require.NoError(t, err)
	_, err = w.groups.CreateContactGroup(machine, &accountv1.CreateContactGroupRequest{Name: "G"})
	reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, err)
	_, err = accountv1.NewUserServiceClient(w.conn).GetMe(machine, &accountv1.GetMeRequest{})
	reason(t, errorv1.Reason_REASON_PERSON_REQUIRED, err)
	got, err := keys.GetApiKey(owner, &accountv1.GetApiKeyRequest{ApiKeyId: k.GetApiKey().GetId()})
	require.NoError(t, err)
	require.Equal(t, w.clock.Now(), got.GetApiKey().GetLastUsedAt().AsTime())

	t.Run("a key cannot do what its creator no longer can", func(t *testing.T) {
		w.exec(t, "UPDATE roles SET permissions = array_remove(permissions, 'contacts.write') WHERE account_id = $1", accountID)
		w.clock.Advance(6 * time.Second)
		_, err = w.contacts.CreateContact(machine, &accountv1.CreateContactRequest{Email: "b@example.org"})
		reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, err)
		_, err = w.contacts.ListContacts(machine, &accountv1.ListContactsRequest{})
		require.NoError(t, err)
		_, err = create("contacts.write")
		reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, err)
	})
	_, err = keys.RevokeApiKey(owner, &accountv1.RevokeApiKeyRequest{ApiKeyId: k.GetApiKey().GetId()})
	require.NoError(t, err)
	_, err = w.contacts.ListContacts(machine, &accountv1.ListContactsRequest{})
	reason(t, errorv1.Reason_REASON_UNAUTHENTICATED, err)
	_, err = token(k.GetApiKey().GetId(), k.GetSecret())
	reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)
	short, err := keys.CreateApiKey(owner, &accountv1.CreateApiKeyRequest{Name: "short", Permissions: []string{"contacts.read"}})
	require.NoError(t, err)
	w.exec(t, "UPDATE api_keys SET expires_at = $1 WHERE id = $2", w.clock.Now().Add(time.Minute), short.GetApiKey().GetId())
	issued, err = token(short.GetApiKey().GetId(), short.GetSecret())
	require.NoError(t, err)
	w.clock.Advance(2 * time.Minute)
	require.False(t, w.works(t, issued.GetAccessToken()), "the token ends with its key")
}

// exec runs a statement as the superuser.
func (w *world) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.db.URL)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
}

func TestMailsSurviveAServerThatIsDown(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.mail.fail(2)
	r, err := w.auth.Register(t.Context(), &accountv1.RegisterRequest{Email: email, Password: password, FullName: "A", AccountName: "A"})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		w.clock.Advance(10 * time.Second)
		return len(w.mail.of(email)) == 1
	}, time.Minute, 10*time.Millisecond)
	v, err := w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: email, Code: w.mail.code(t, email), RegistrationToken: r.GetRegistrationToken()})
	require.NoError(t, err)
	require.NotEmpty(t, v.GetUserId())
}
