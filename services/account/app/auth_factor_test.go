package app_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// secondFactor turns TOTP on and returns the secret and the recovery codes.
func (w *world) secondFactor(t *testing.T, ctx context.Context) (secret string, recovery []string) {
	t.Helper()
	s, err := w.auth.SetupTotp(ctx, &accountv1.SetupTotpRequest{Password: password})
	require.NoError(t, err)
	u, err := url.Parse(s.GetOtpauthUri())
	require.NoError(t, err)
	require.Equal(t, s.GetSecret(), u.Query().Get("secret"))
	require.Equal(t, "/Turumba:"+email, u.Path)
	v, err := w.auth.VerifyTotp(ctx, &accountv1.VerifyTotpRequest{Code: w.code(t, s.GetSecret())})
	require.NoError(t, err)
	require.Len(t, v.GetRecoveryCodes(), 10)
	return s.GetSecret(), v.GetRecoveryCodes()
}

// code is what an authenticator shows now.
func (w *world) code(t *testing.T, secret string) string {
	t.Helper()
	code, err := totp.GenerateCode(secret, w.clock.Now())
	require.NoError(t, err)
	return code
}

func TestSecondFactor(t *testing.T) {
	t.Parallel()
	w := start(t)
	ctx, _, _ := w.signUp(t, email)
	_, err := w.auth.SetupTotp(ctx, &accountv1.SetupTotpRequest{Password: "wrong password"})
	reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)
	_, err = w.auth.VerifyTotp(ctx, &accountv1.VerifyTotpRequest{Code: "123456"})
	reason(t, errorv1.Reason_REASON_MFA_NOT_ENABLED, err)
	require.Empty(t, w.mustLogin(t, password).GetChallenge())

	secret, recovery := w.secondFactor(t, ctx)
	_, err = w.auth.SetupTotp(ctx, &accountv1.SetupTotpRequest{Password: password})
	reason(t, errorv1.Reason_REASON_MFA_ENABLED, err)

	answer := func(session, code string) (*accountv1.AnswerChallengeResponse, error) {
		return w.auth.AnswerChallenge(t.Context(), &accountv1.AnswerChallengeRequest{Session: session, Code: code})
	}
	l := w.mustLogin(t, password)
	require.Equal(t, "SOFTWARE_TOKEN_MFA", l.GetChallenge())
	require.Empty(t, l.GetAccessToken())
	require.Empty(t, l.GetRefreshToken())
	_, err = answer(l.GetSession(), w.code(t, secret))
	reason(t, errorv1.Reason_REASON_INVALID_CODE, err) // its step was used to turn it on
	w.clock.Advance(30 * time.Second)
	good := w.code(t, secret)
	in, err := answer(l.GetSession(), good)
	require.NoError(t, err)
	require.True(t, w.works(t, in.GetAccessToken()))
	_, err = answer(l.GetSession(), good)
	reason(t, errorv1.Reason_REASON_INVALID_SESSION, err)
	_, err = answer(w.mustLogin(t, password).GetSession(), good)
	reason(t, errorv1.Reason_REASON_INVALID_CODE, err) // each step once

	w.clock.Advance(5 * time.Minute)
	_, err = answer(w.mustLogin(t, password).GetSession(), strings.ToUpper(strings.ReplaceAll(recovery[0], "-", " ")))
	require.NoError(t, err)
	_, err = answer(w.mustLogin(t, password).GetSession(), recovery[0])
	reason(t, errorv1.Reason_REASON_INVALID_CODE, err) // each recovery code once
	renewed, err := w.auth.RenewRecoveryCodes(ctx, &accountv1.RenewRecoveryCodesRequest{Code: w.code(t, secret)})
	require.NoError(t, err)
	_, err = answer(w.mustLogin(t, password).GetSession(), recovery[1])
	reason(t, errorv1.Reason_REASON_INVALID_CODE, err)

	late := w.mustLogin(t, password)
	w.clock.Advance(6 * time.Minute)
	_, err = answer(late.GetSession(), renewed.GetRecoveryCodes()[0])
	reason(t, errorv1.Reason_REASON_INVALID_SESSION, err)
	_, err = w.auth.DisableTotp(ctx, &accountv1.DisableTotpRequest{Code: renewed.GetRecoveryCodes()[0]})
	require.NoError(t, err)
	require.Contains(t, w.mail.next(t, email), "second factor is off")
	require.NotEmpty(t, w.mustLogin(t, password).GetAccessToken())
}

func TestSecondFactorCannotBeGuessed(t *testing.T) {
	t.Parallel()
	w := start(t)
	ctx, _, _ := w.signUp(t, email)
	secret, _ := w.secondFactor(t, ctx)
	w.clock.Advance(time.Minute)
	wrong := "000000"
	for range 5 {
		_, err := w.auth.AnswerChallenge(t.Context(), &accountv1.AnswerChallengeRequest{Session: w.mustLogin(t, password).GetSession(), Code: wrong})
		reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
	}
	for _, code := range []string{wrong, w.code(t, secret)} {
		_, err := w.auth.AnswerChallenge(t.Context(), &accountv1.AnswerChallengeRequest{Session: w.mustLogin(t, password).GetSession(), Code: code})
		reason(t, errorv1.Reason_REASON_RATE_LIMITED, err)
	}
	w.clock.Advance(5 * time.Minute)
	_, err := w.auth.AnswerChallenge(t.Context(), &accountv1.AnswerChallengeRequest{Session: w.mustLogin(t, password).GetSession(), Code: w.code(t, secret)})
	require.NoError(t, err)
}

// TestStrangersStopNoSecondFactor: who knows the password and guesses at the second factor
// makes no device wait that logged in before.
func TestStrangersStopNoSecondFactor(t *testing.T) {
	t.Parallel()
	w := start(t)
	ctx, _, _ := w.signUp(t, email)
	device := w.mustLogin(t, password).GetDeviceToken()
	secret, _ := w.secondFactor(t, ctx)
	w.clock.Advance(time.Minute)
	answer := func(code, device string) (*accountv1.AnswerChallengeResponse, error) {
		l := w.mustLogin(t, password)
		require.Empty(t, l.GetDeviceToken(), "the login has not ended")
		return w.auth.AnswerChallenge(t.Context(), &accountv1.AnswerChallengeRequest{Session: l.GetSession(), Code: code, DeviceToken: device})
	}
	for range 5 {
		_, err := answer("000000", "")
		reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
	}
	_, err := answer(w.code(t, secret), "made up")
	reason(t, errorv1.Reason_REASON_RATE_LIMITED, err)
	in, err := answer(w.code(t, secret), device)
	require.NoError(t, err)
	require.NotEmpty(t, in.GetDeviceToken())
}

// TestManyDevices: who can log in has as many devices as they like, and no more tries with
// all of them together than are allowed for an address.
func TestManyDevices(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.signUp(t, email)
	var devices []string
	for range 25 {
		devices = append(devices, w.mustLogin(t, password).GetDeviceToken())
	}
	answer := func(session, code, device string) error {
		_, err := w.auth.AnswerChallenge(t.Context(), &accountv1.AnswerChallengeRequest{Session: session, Code: code, DeviceToken: device})
		return err
	}
	var secret string
	for _, c := range []struct {
		name   string
		try    func(device string) error
		each   int // tries of a device
		most   []int
		window time.Duration
	}{
		{"password", func(device string) error {
			_, err := w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: email, Password: "wrong password", DeviceToken: device})
			return err
		}, 5, []int{100}, time.Hour},
		{"forgotten password", func(device string) error {
			_, err := w.auth.ForgotPassword(t.Context(), &accountv1.ForgotPasswordRequest{Email: email, DeviceToken: device})
			return err
		}, 5, []int{20, 20}, time.Hour},
		{"second factor", func(device string) error {
			if secret == "" {
				secret, _ = w.secondFactor(t, with(t.Context(), w.mustLogin(t, password).GetAccessToken()))
				w.clock.Advance(time.Minute)
			}
			return answer(w.mustLogin(t, password).GetSession(), "000000", device)
		}, 1, []int{15, 0}, 5 * time.Minute},
	} {
		for round, most := range c.most {
			passed := 0
			for _, device := range devices {
				for range c.each {
					if err := c.try(device); !apierr.HasReason(err, errorv1.Reason_REASON_RATE_LIMITED) {
						passed++
					}
				}
			}
			require.Equal(t, most, passed, "%s, round %d", c.name, round)
			w.clock.Advance(c.window)
		}
	}
	// Neither does that stop who shows no token, nor does a day last for ever.
	require.NoError(t, answer(w.mustLogin(t, password).GetSession(), w.code(t, secret), ""))
	w.clock.Advance(24 * time.Hour)
	require.NoError(t, answer(w.mustLogin(t, password).GetSession(), w.code(t, secret), devices[0]))
	w.clock.Advance(5 * time.Minute)

	session := w.mustLogin(t, password).GetSession()
	for n, device := range devices[:10] {
		want := errorv1.Reason_REASON_INVALID_CODE
		if n >= 5 {
			want = errorv1.Reason_REASON_INVALID_SESSION
		}
		reason(t, want, answer(session, "000000", device))
	}
	reason(t, errorv1.Reason_REASON_INVALID_SESSION, answer(session, w.code(t, secret), devices[10]))
	reason(t, errorv1.Reason_REASON_INVALID_SESSION, answer(session, w.code(t, secret), ""))
	require.NoError(t, answer(w.mustLogin(t, password).GetSession(), w.code(t, secret), devices[11]))
}

func TestResetDoesNotPassTheSecondFactor(t *testing.T) {
	t.Parallel()
	w := start(t)
	ctx, _, _ := w.signUp(t, email)
	w.secondFactor(t, ctx)
	_, err := w.auth.ForgotPassword(t.Context(), &accountv1.ForgotPasswordRequest{Email: email})
	require.NoError(t, err)
	_, err = w.auth.ResetPassword(t.Context(), &accountv1.ResetPasswordRequest{Email: email, Code: strings.Split(w.mail.next(t, email), "\n")[3], NewPassword: newPassword})
	require.NoError(t, err)
	require.Equal(t, "SOFTWARE_TOKEN_MFA", w.mustLogin(t, newPassword).GetChallenge())
}
