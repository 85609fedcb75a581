package grpcserver_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/streams"
)

// TestStreamsEndWithWhatAllowedThem walks the contract: whatever somebody opened, reading or
// sending, ends when their session or key does, or their permission, in the account that the
// stream is about; until that is known, in any of theirs.
func TestStreamsEndWithWhatAllowedThem(t *testing.T) {
	t.Parallel()
	lose := func(account string) func(*auth.Caller) error {
		return func(c *auth.Caller) error {
			for i := range c.Memberships {
				if c.Memberships[i].AccountID == account {
					c.Memberships[i].Permissions = nil
				}
			}
			return nil
		}
	}
	for name, tt := range map[string]struct {
		changed func(*auth.Caller) error
		settled string
		reason  errorv1.Reason // none: the stream goes on
	}{
		"the session":                     {func(*auth.Caller) error { return apierr.Unauthenticated(errors.New("ended")) }, "", errorv1.Reason_REASON_UNAUTHENTICATED},
		"the person":                      {func(*auth.Caller) error { return apierr.NotFound("user") }, "", errorv1.Reason_REASON_PERMISSION_DENIED},
		"every membership":                {func(c *auth.Caller) error { c.Memberships = nil; return nil }, "", errorv1.Reason_REASON_PERMISSION_DENIED},
		"one of two":                      {lose("A"), "", errorv1.Reason_REASON_PERMISSION_DENIED},
		"that of the stream":              {lose("A"), "A", errorv1.Reason_REASON_PERMISSION_DENIED},
		"another than that of the stream": {lose("B"), "A", errorv1.Reason_REASON_UNSPECIFIED},
		"nothing":                         {func(*auth.Caller) error { return nil }, "", errorv1.Reason_REASON_UNSPECIFIED},
	} {
		for _, r := range streamRPCs(t) {
			if r.rule.GetInternal() != nil {
				continue
			}
			t.Run(name+r.path(), func(t *testing.T) {
				t.Parallel()
				var change atomic.Bool
				var looks atomic.Int32
				settled := make(chan error, 1)
				now := clock.NewFake(clock.System().Now())
				e, s, _, _ := serveStreamsTo(t, now, func(c *auth.Caller) error {
					if !change.Load() {
						return nil
					}
					looks.Add(1)
					return tt.changed(c)
				}, func(ss grpc.ServerStream) error {
					if tt.settled != "" {
						settled <- streams.Settle(ss.Context(), tt.settled)
					} else {
						settled <- nil
					}
					return untilDone(ss)
				})
				result, _ := open(as(t.Context(), "u/A+B"), t, s.Conn(""), r.path())
				<-e.began
				require.NoError(t, <-settled)
				change.Store(true)
				require.Eventually(t, func() bool {
					now.Advance(50 * time.Millisecond)
					return len(result) > 0 || looks.Load() > 1
				}, 10*time.Second, time.Millisecond)
				if tt.reason == errorv1.Reason_REASON_UNSPECIFIED {
					require.Empty(t, result)
					return
				}
				require.Equal(t, tt.reason, apierr.From(errorOf(<-result)).Reason)
			})
		}
	}
}
