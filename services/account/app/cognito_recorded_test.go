package app_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/app"
	"github.com/turumba/turumba/services/account/identity/cognito/cognitotest"
	"github.com/turumba/turumba/services/account/postgres"
)

// recorded is the service on a pool that plays what was written for it.
type recorded struct {
	*world
	pool *cognitotest.Recorded
	vars map[string]string
}

func startRecorded(t *testing.T, secret string) *recorded {
	t.Helper()
	pool := cognitotest.NewRecorded(t)
	w := start(t, func(cfg *app.Config, deps *app.Deps) {
		cfg.Identity = app.IdentitySettings{Provider: app.ProviderCognito, Cognito: pool.Settings}
		cfg.Identity.Cognito.ClientSecret = "client secret"
		if secret == "" {
			cfg.Identity.Cognito.ClientSecret = ""
		}
		deps.HTTP = pool.HTTP
	})
	sub := uuid.NewString()
	return &recorded{world: w, pool: pool, vars: map[string]string{
		"sub": sub, "hash": secretHash(secret, "a@example.org"), "hash_of_sub": secretHash(secret, sub),
	}}
}

// secretHash is the proof of a client as the API reference has it.
func secretHash(secret, username string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(username + "web"))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func (r *recorded) play(t *testing.T, name string, more map[string]string) {
	t.Helper()
	vars := maps.Clone(r.vars)
	maps.Copy(vars, more)
	r.pool.Play(t, "testdata/cognito/"+name+".json", vars)
}

// login logs in; the session began now.
func (r *recorded) login(t *testing.T, session string) (ctx context.Context, refresh string) {
	t.Helper()
	now := r.clock.Now()
	r.play(t, "login", map[string]string{
		"access": r.pool.Access(t, r.vars["sub"], session, now, now), "id": r.pool.ID(t, r.vars["sub"], "a@example.org", true, now), "refresh": "refresh-" + session,
	})
	l, err := r.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "a@example.org", Password: password})
	require.NoError(t, err)
	require.EqualValues(t, 3600, l.GetExpiresIn())
	return with(t.Context(), l.GetAccessToken()), l.GetRefreshToken()
}

func (r *recorded) register(t *testing.T) (token string) {
	t.Helper()
	a, err := r.auth.Register(t.Context(), &accountv1.RegisterRequest{Email: "A@example.org", Password: password, FullName: "A", AccountName: "A"})
	require.NoError(t, err)
	return a.GetRegistrationToken()
}

func (r *recorded) verify(t *testing.T, token string) (*accountv1.VerifyEmailResponse, error) {
	t.Helper()
	return r.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: "a@example.org", Code: "246810", RegistrationToken: token})
}

func (r *recorded) context(ctx context.Context) (*accountv1.GetContextResponse, error) {
	return accountv1.NewContextServiceClient(r.conn).GetContext(ctx, &accountv1.GetContextRequest{})
}

// TestCognitoResend is what the emulator lacks: new codes, and every way in which the
// pool tells that an address is not what it should be. None reaches the caller.
func TestCognitoResend(t *testing.T) {
	t.Parallel()
	r := startRecorded(t, "")
	r.play(t, "resend", nil)
	token := r.register(t)
	resend := func(email, token string) error {
		_, err := r.auth.ResendVerification(t.Context(), &accountv1.ResendVerificationRequest{Email: email, RegistrationToken: token})
		return err
	}
	for _, answer := range []string{"mailed", "confirmed", "too often", "nobody", "of another registration"} {
		require.NoError(t, resend("A@example.org", token), answer)
	}
	require.NoError(t, resend("nobody@example.org", token), "another address")
	require.NoError(t, resend("a@example.org", "another token"))
	for _, email := range []string{"nobody@example.org", "unconfirmed@example.org"} {
		_, err := r.auth.ForgotPassword(t.Context(), &accountv1.ForgotPasswordRequest{Email: email})
		require.NoError(t, err, email)
	}
	reason(t, errorv1.Reason_REASON_UNAVAILABLE, resend("a@example.org", token))
	reason(t, errorv1.Reason_REASON_INTERNAL, resend("a@example.org", token))
}

// TestCognitoSessions: a session ends for itself, or with all others, at once and here
// as well as in the pool; refreshing does not bring it back.
func TestCognitoSessions(t *testing.T) {
	t.Parallel()
	r := startRecorded(t, "client secret")
	r.play(t, "registered", nil)
	v, err := r.verify(t, r.register(t))
	require.NoError(t, err)
	first, firstRefresh := r.login(t, "one")
	second, _ := r.login(t, "two")
	began := r.clock.Now()
	c, err := r.context(first)
	require.NoError(t, err)
	require.Equal(t, v.GetUserId(), c.GetUserId())

	r.play(t, "refresh", map[string]string{"refresh": "refresh-one", "access": r.pool.Access(t, r.vars["sub"], "one", began, began), "id": "x"})
	r.play(t, "revoke", map[string]string{"refresh": "refresh-one"})
	_, err = r.auth.Logout(t.Context(), &accountv1.LogoutRequest{RefreshToken: firstRefresh})
	require.NoError(t, err)
	_, err = r.context(first)
	reason(t, errorv1.Reason_REASON_UNAUTHENTICATED, err)
	_, err = r.context(second)
	require.NoError(t, err, "another session")

	r.clock.Advance(time.Minute)
	r.play(t, "signout", nil)
	_, err = r.auth.LogoutEverywhere(second, &accountv1.LogoutEverywhereRequest{})
	require.NoError(t, err)
	_, err = r.context(second)
	reason(t, errorv1.Reason_REASON_UNAUTHENTICATED, err)
	refreshed := r.pool.Access(t, r.vars["sub"], "two", began, r.clock.Now())
	_, err = r.context(with(t.Context(), refreshed))
	reason(t, errorv1.Reason_REASON_UNAUTHENTICATED, err)
	third, _ := r.login(t, "three")
	_, err = r.context(third)
	require.NoError(t, err)

	resolved, err := accountv1.NewInternalContextServiceClient(r.worker).ResolveContext(t.Context(), &accountv1.ResolveContextRequest{Issuer: r.pool.Settings.Issuer(), Subject: r.vars["sub"]})
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"one", "two"}, resolved.GetEndedSessions(), "the other services hear of it")
	require.Equal(t, r.clock.Now().Unix(), resolved.GetSessionsSince().AsTime().Unix())
}

// TestCognitoChange: a changed password ends every session, the caller's too.
func TestCognitoChange(t *testing.T) {
	t.Parallel()
	r := startRecorded(t, "client secret")
	r.play(t, "registered", nil)
	_, err := r.verify(t, r.register(t))
	require.NoError(t, err)
	ctx, _ := r.login(t, "one")
	r.play(t, "change", map[string]string{"access": r.pool.Access(t, r.vars["sub"], "one", r.clock.Now(), r.clock.Now())})
	change := func(current string) error {
		_, err := r.auth.ChangePassword(ctx, &accountv1.ChangePasswordRequest{CurrentPassword: current, NewPassword: "tangled weather balloon"})
		return err
	}
	reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, change("another password"))
	reason(t, errorv1.Reason_REASON_WEAK_PASSWORD, change(password))
	require.NoError(t, change(password))
	require.Contains(t, r.mail.next(t, "a@example.org"), "password was changed")
	reason(t, errorv1.Reason_REASON_UNAUTHENTICATED, change(password))
}

// TestCognitoOtherAddress: a code that was for another address makes no user for this
// one, and somebody who has not verified theirs gives way.
func TestCognitoOtherAddress(t *testing.T) {
	t.Parallel()
	r := startRecorded(t, "")
	r.play(t, "unconfirmed", nil)
	_, err := r.verify(t, r.register(t))
	reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
}

// TestCognitoInPool: somebody who was in the pool before registers, or whose
// confirmation broke off half-way: the login finishes it, once the address is theirs.
func TestCognitoInPool(t *testing.T) {
	t.Parallel()
	r := startRecorded(t, "")
	now := r.clock.Now()
	r.play(t, "inpool", map[string]string{
		"access":     r.pool.Access(t, r.vars["sub"], "one", now, now),
		"unverified": r.pool.ID(t, r.vars["sub"], "a@example.org", false, now), "verified": r.pool.ID(t, r.vars["sub"], "A@Example.org", true, now),
	})
	r.register(t)
	require.Contains(t, r.mail.next(t, "a@example.org"), "have an account already")
	login := func() (*accountv1.LoginResponse, error) {
		return r.auth.Login(t.Context(), &accountv1.LoginRequest{Email: "a@example.org", Password: password})
	}
	l, err := login()
	require.NoError(t, err)
	c, err := r.context(with(t.Context(), l.GetAccessToken()))
	require.NoError(t, err)
	require.Empty(t, c.GetAccountIds(), "a token that is good, of somebody who is not here")
	require.Empty(t, c.GetUserId())

	l, err = login()
	require.NoError(t, err)
	r.clock.Advance(5 * time.Second) // what is cached of the caller
	c, err = r.context(with(t.Context(), l.GetAccessToken()))
	require.NoError(t, err)
	require.Len(t, c.GetAccountIds(), 1)
	again, err := r.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: l.GetRefreshToken()})
	require.NoError(t, err)
	require.NotEqual(t, l.GetRefreshToken(), again.GetRefreshToken(), "a pool that rotates refresh tokens")
	_, err = login()
	reason(t, errorv1.Reason_REASON_PROVIDER_UNSUPPORTED, err)
}

// TestCognitoEpochs: what was given before a user was disabled does not come back with
// them, nor does a token of the very second in which the sessions ended, wherever its
// login was.
func TestCognitoEpochs(t *testing.T) {
	t.Parallel()
	r := startRecorded(t, "client secret")
	r.play(t, "registered", nil)
	v, err := r.verify(t, r.register(t))
	require.NoError(t, err)
	store, err := postgres.New(r.db.OpenAt(t, pg.RoleAPI, r.clock), make([]byte, 32), "http://test", account.Quotas{})
	require.NoError(t, err)
	began := r.clock.Now()
	known, refresh := r.login(t, "known")
	direct := with(t.Context(), r.pool.Access(t, r.vars["sub"], "at the pool", began, began))
	for _, ctx := range []context.Context{known, direct} {
		_, err = r.context(ctx)
		require.NoError(t, err)
	}
	for _, active := range []bool{false, true} {
		_, err = store.SetActive(t.Context(), v.GetUserId(), active)
		require.NoError(t, err)
	}
	r.clock.Advance(5 * time.Second) // what is cached of the caller
	ahead := with(t.Context(), r.pool.Access(t, r.vars["sub"], "known", began.Add(3*time.Second), r.clock.Now()))
	for name, ctx := range map[string]context.Context{
		"known here": known, "of the same second": direct, "known, by a clock that is ahead": ahead,
		"refreshed": with(t.Context(), r.pool.Access(t, r.vars["sub"], "at the pool", began, r.clock.Now())),
	} {
		_, err = r.context(ctx)
		require.Error(t, err, name)
		reason(t, errorv1.Reason_REASON_UNAUTHENTICATED, err)
	}
	r.play(t, "refresh", map[string]string{"refresh": "refresh-known", "access": r.pool.Access(t, r.vars["sub"], "known", began, r.clock.Now()), "id": "x"})
	_, err = r.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: refresh})
	reason(t, errorv1.Reason_REASON_INVALID_REFRESH_TOKEN, err)
	after, _ := r.login(t, "after")
	_, err = r.context(after)
	require.NoError(t, err)
}
