package apierr_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

func TestStatusRoundTrip(t *testing.T) {
	t.Parallel()
	sent := apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "%d fields are wrong", 2).
		WithFields(apierr.Field{Field: "email", Message: "is missing"}).
		WithFields(apierr.Field{Field: "name", Message: "bad bytes \xff"}).
		WithRetryAfter(3*time.Second).
		WithMeta("limit", "10").
		Wrap(errors.New("password is hunter2"))

	wire := status.FromProto(sent.GRPCStatus().Proto())
	require.Equal(t, codes.InvalidArgument, wire.Code())
	require.NotContains(t, wire.String(), "hunter2")
	info, ok := wire.Details()[0].(*errdetails.ErrorInfo)
	require.True(t, ok)
	require.Equal(t, "VALIDATION_FAILED", info.GetReason())
	require.Equal(t, "turumba", info.GetDomain())

	for name, err := range map[string]error{"plain": wire.Err(), "wrapped": fmt.Errorf("call: %w", wire.Err())} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := apierr.From(err)
			require.Equal(t, sent.Reason, got.Reason)
			require.Equal(t, sent.Code, got.Code)
			require.Equal(t, "2 fields are wrong", got.Message)
			require.Equal(t, []apierr.Field{{"email", "is missing"}, {"name", "bad bytes \uFFFD"}}, got.Fields)
			require.Equal(t, 3*time.Second, got.RetryAfter)
			require.Equal(t, map[string]string{"limit": "10"}, got.Meta)
			require.ErrorIs(t, got, err)
		})
	}
}

func TestFrom(t *testing.T) {
	t.Parallel()
	own := apierr.NotFound("contact")
	foreign, detailErr := status.New(codes.NotFound, "x").WithDetails(&errdetails.ErrorInfo{Reason: "NOT_FOUND", Domain: "else"})
	require.NoError(t, detailErr)
	cases := []struct {
		name   string
		err    error
		reason errorv1.Reason
	}{
		{"own", own, errorv1.Reason_REASON_NOT_FOUND},
		{"own wrapped", fmt.Errorf("get: %w", own), errorv1.Reason_REASON_NOT_FOUND},
		{"own over a context error", own.Wrap(context.Canceled), errorv1.Reason_REASON_NOT_FOUND},
		{"plain", errors.New("boom"), errorv1.Reason_REASON_INTERNAL},
		{"cancelled", fmt.Errorf("read: %w", context.Canceled), errorv1.Reason_REASON_CANCELLED},
		{"deadline", fmt.Errorf("read: %w", context.DeadlineExceeded), errorv1.Reason_REASON_DEADLINE_EXCEEDED},
		{"status cancelled", status.Error(codes.Canceled, "x"), errorv1.Reason_REASON_CANCELLED},
		{"status deadline", status.Error(codes.DeadlineExceeded, "x"), errorv1.Reason_REASON_DEADLINE_EXCEEDED},
		{"status unavailable", status.Error(codes.Unavailable, "dial 10.0.0.1"), errorv1.Reason_REASON_UNAVAILABLE},
		{"status unimplemented", status.Error(codes.Unimplemented, "x"), errorv1.Reason_REASON_NOT_IMPLEMENTED},
		{"status unauthenticated", status.Error(codes.Unauthenticated, "x"), errorv1.Reason_REASON_UNAUTHENTICATED},
		{"status denied", status.Error(codes.PermissionDenied, "x"), errorv1.Reason_REASON_PERMISSION_DENIED},
		{"status size", status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 4)"), errorv1.Reason_REASON_PAYLOAD_TOO_LARGE},
		{"status exhausted", status.Error(codes.ResourceExhausted, "x"), errorv1.Reason_REASON_RATE_LIMITED},
		{"status unknown", status.Error(codes.Unknown, "x"), errorv1.Reason_REASON_INTERNAL},
		{"another domain", foreign.Err(), errorv1.Reason_REASON_INTERNAL},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := apierr.From(c.err)
			require.Equal(t, c.reason, got.Reason)
			require.Equal(t, apierr.CodeOf(c.reason), got.Code)
			require.NotContains(t, got.Message, "10.0.0.1")
			require.True(t, apierr.HasReason(c.err, c.reason))
		})
	}
	require.Nil(t, apierr.From(nil))
	require.False(t, apierr.HasReason(nil, errorv1.Reason_REASON_INTERNAL))
	require.Equal(t, "internal error", apierr.From(errors.New("boom")).Message)
}

func TestErrorIdentity(t *testing.T) {
	t.Parallel()
	base := apierr.NotFound("contact")
	cause := errors.New("no rows")
	wrapped := base.Wrap(cause)
	require.ErrorIs(t, wrapped, apierr.NotFound("group"))
	require.NotErrorIs(t, wrapped, apierr.New(errorv1.Reason_REASON_CONFLICT, "x"))
	require.ErrorIs(t, wrapped, cause)
	require.EqualError(t, base, "NOT_FOUND: contact not found")
	require.EqualError(t, wrapped, "NOT_FOUND: contact not found: no rows")

	_ = base.WithFields(apierr.Field{Field: "id"}).WithMeta("a", "b").WithRetryAfter(time.Second)
	require.Equal(t, apierr.NotFound("contact"), base, "the With methods leave the receiver alone")
}

func TestEveryReasonIsMapped(t *testing.T) {
	t.Parallel()
	statuses := []int{400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 499, 500, 503, 504}
	for number, name := range errorv1.Reason_name {
		reason := errorv1.Reason(number)
		if reason == errorv1.Reason_REASON_UNSPECIFIED {
			continue
		}
		require.True(t, slices.Contains(statuses, apierr.HTTPStatus(reason)), name)
		if reason != errorv1.Reason_REASON_INTERNAL {
			require.NotEqual(t, codes.Internal, apierr.CodeOf(reason), "%s is missing from the table", name)
			require.NotEqual(t, http.StatusInternalServerError, apierr.HTTPStatus(reason), "%s is missing from the table", name)
		}
		back, ok := apierr.ReasonOf(apierr.Name(reason))
		require.True(t, ok, name)
		require.Equal(t, reason, back)
		require.NotContains(t, apierr.Name(reason), "REASON_")
	}
	_, ok := apierr.ReasonOf("UNSPECIFIED")
	require.False(t, ok)
	_, ok = apierr.ReasonOf("NOPE")
	require.False(t, ok)
	require.Equal(t, http.StatusInternalServerError, apierr.HTTPStatus(errorv1.Reason(9999)))
}

// TestWhoIsLimitedKnowsForHowLong: in words and as RetryInfo, also where nobody knows.
func TestWhoIsLimitedKnowsForHowLong(t *testing.T) {
	t.Parallel()
	for wait, words := range map[time.Duration]string{
		0: "1 second", 1500 * time.Millisecond: "2 seconds", time.Minute: "60 seconds", 119 * time.Second: "119 seconds", 121 * time.Second: "3 minutes",
		time.Hour: "60 minutes", 24 * time.Hour: "24 hours",
	} {
		e := apierr.RateLimited(wait, "too many of %d", 3)
		require.Equal(t, "too many of 3; try again in "+words, e.Message)
		require.Equal(t, max(wait, time.Second), e.RetryAfter)
	}
	library := status.Error(codes.ResourceExhausted, "out of something")
	require.Equal(t, time.Second, apierr.From(library).RetryAfter)
}
