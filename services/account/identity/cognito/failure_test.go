package cognito

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// TestFailures is what an exception of Cognito means to the caller, by the step.
func TestFailures(t *testing.T) {
	t.Parallel()
	const (
		hidden      = errorv1.Reason_REASON_UNSPECIFIED // answered as if it had worked
		internal    = errorv1.Reason_REASON_INTERNAL
		credentials = errorv1.Reason_REASON_INVALID_CREDENTIALS
		code        = errorv1.Reason_REASON_INVALID_CODE
		busy        = errorv1.Reason_REASON_RATE_LIMITED
		weak        = errorv1.Reason_REASON_WEAK_PASSWORD
	)
	for _, c := range []struct {
		at   step
		told string
		want errorv1.Reason
	}{
		{loggingIn, notAuthorized, credentials},
		{loggingIn, userNotFound, credentials},
		{loggingIn, resetRequired, credentials},
		{loggingIn, userNotConfirmed, errorv1.Reason_REASON_EMAIL_NOT_VERIFIED},
		{loggingIn, tooManyFailures, busy},
		{loggingIn, lambdaRefused, errorv1.Reason_REASON_PERMISSION_DENIED},
		{answering, codeMismatch, code},
		{answering, notAuthorized, errorv1.Reason_REASON_INVALID_SESSION},
		{answering, expiredCode, errorv1.Reason_REASON_INVALID_SESSION},
		{refreshing, notAuthorized, errorv1.Reason_REASON_INVALID_REFRESH_TOKEN},
		{revoking, notAuthorized, hidden},
		{revoking, unauthorized, hidden},
		{signingUp, invalidPassword, weak},
		{signingUp, limitExceeded, busy},
		{signingUp, codeUndelivered, errorv1.Reason_REASON_UNAVAILABLE},
		{confirming, codeMismatch, code},
		{confirming, expiredCode, code},
		{confirming, notAuthorized, code},
		{confirming, userNotFound, code},
		{confirming, aliasExists, code},
		{mailing, userNotFound, hidden},
		{mailing, invalidParameter, hidden},
		{mailing, notAuthorized, hidden},
		{mailing, limitExceeded, hidden},
		{mailing, throttled, busy},
		{resetting, userNotFound, code},
		{resetting, userNotConfirmed, code},
		{resetting, invalidPassword, weak},
		{changing, notAuthorized, credentials},
		{changing, passwordReused, weak},
		{enrolling, notAuthorized, credentials},
		{proving, factorMismatch, code},
		{proving, factorNotFound, errorv1.Reason_REASON_MFA_NOT_ENABLED},
		{proving, notAuthorized, errorv1.Reason_REASON_UNAUTHENTICATED},
		{operating, "AccessDeniedException", internal},
		{operating, userNotFound, internal},
		{loggingIn, "ResourceNotFoundException", internal},
		{loggingIn, internalError, errorv1.Reason_REASON_UNAVAILABLE},
	} {
		err := failure(c.at, &smithy.GenericAPIError{Code: c.told, Message: "the pool's own words", Fault: smithy.FaultClient})
		if c.want == hidden {
			require.NoError(t, err, "%s: %s", c.at, c.told)
			continue
		}
		got := apierr.From(err)
		require.Equal(t, c.want, got.Reason, "%s: %s", c.at, c.told)
		require.NotContains(t, got.Message, "own words", "Cognito's text must not reach a caller")
	}
	require.Equal(t, errorv1.Reason_REASON_UNAVAILABLE, apierr.From(failure(loggingIn, errors.New("connection refused"))).Reason)
	for status, want := range map[int]errorv1.Reason{http.StatusBadGateway: errorv1.Reason_REASON_UNAVAILABLE, http.StatusBadRequest: internal} {
		answer := &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: &smithy.GenericAPIError{Code: "Unforeseen"}}
		require.Equal(t, want, apierr.From(failure(loggingIn, answer)).Reason)
	}
	require.Equal(t, errorv1.Reason_REASON_DEADLINE_EXCEEDED, apierr.From(failure(loggingIn, context.DeadlineExceeded)).Reason)
	require.NoError(t, failure(loggingIn, nil))
}

// TestSplit: what we join is told apart again, and what we did not join is taken as
// Cognito's own.
func TestSplit(t *testing.T) {
	t.Parallel()
	for joined, want := range map[string][2]string{
		join("0190", "a.b.c"): {"0190", "a.b.c"}, "a.b.c": {"", "a.b.c"}, "": {"", ""}, ":": {"", ""}, join("a:b", "c"): {"a:b", "c"},
	} {
		username, given := split(joined)
		require.Equal(t, want, [2]string{username, given}, joined)
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "a.b", "a.!.c", "a.bm90IEpTT04.c"} {
		_, err := claimsOf(bad)
		require.Error(t, err, bad)
	}
}

// FuzzTokens: what callers and Cognito send is read without a panic, and what we
// joined comes apart as it was.
func FuzzTokens(f *testing.F) {
	f.Add("0190", "a.b.c")
	f.Add("", "eyJ9.eyJzdWIiOiJ4In0.c")
	f.Fuzz(func(t *testing.T, username, given string) {
		_, _ = claimsOf(given) // it may fail, and nothing else
		u, g := split(join(username, given))
		require.Equal(t, username+":"+given, u+":"+g)
		split(given)
	})
}

func TestSettings(t *testing.T) {
	t.Parallel()
	good := Settings{Region: "eu-west-1", UserPoolID: "eu-west-1_a1B2c3D4e", ClientID: "web", AccessKeyID: "AKIA", SecretAccessKey: "s"}
	require.NoError(t, good.Check())
	require.Equal(t, "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_a1B2c3D4e", good.Issuer())
	local := good
	local.Endpoint = "http://127.0.0.1:9229/"
	require.NoError(t, local.Check())
	require.Equal(t, "http://127.0.0.1:9229/eu-west-1_a1B2c3D4e", local.Issuer())
	require.EqualError(t, Settings{Endpoint: "cognito"}.Check(), `COGNITO_REGION: is required with IDENTITY_PROVIDER=cognito
COGNITO_USER_POOL_ID: is required with IDENTITY_PROVIDER=cognito
COGNITO_CLIENT_ID: is required with IDENTITY_PROVIDER=cognito
AWS_ACCESS_KEY_ID: is required with IDENTITY_PROVIDER=cognito
AWS_SECRET_ACCESS_KEY: is required with IDENTITY_PROVIDER=cognito
COGNITO_ENDPOINT: expected an https:// or http:// URL`)
	wrong := good
	wrong.Region, wrong.UserPoolID = "Dublin", "pool"
	require.EqualError(t, wrong.Check(), "COGNITO_REGION: expected a region such as eu-west-1\nCOGNITO_USER_POOL_ID: expected an id such as eu-west-1_a1B2c3D4e")
}
