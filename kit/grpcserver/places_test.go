package grpcserver_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/streams"
)

// TestEveryReadHasItsPace walks the contract: a stream that reads counts for a while after
// its end, so nobody makes its first page again and again. Other streams
// are over when they end.
func TestEveryReadHasItsPace(t *testing.T) {
	t.Parallel()
	for _, r := range streamRPCs(t) {
		if r.rule.GetInternal() != nil {
			continue
		}
		t.Run(r.path(), func(t *testing.T) {
			t.Parallel()
			now := clock.NewFake(clock.System().Now())
			end := make(chan struct{})
			e, s, _, _ := serveStreamsAt(t, now, func(grpc.ServerStream) error {
				<-end
				return nil
			})
			results := make([]<-chan error, streams.PerCaller)
			for i := range results {
				results[i], _ = open(as(t.Context(), "u/A"), t, s.Conn(""), r.path())
				<-e.began
			}
			now.Advance(time.Second)
			close(end)
			for _, result := range results {
				require.False(t, apierr.HasReason(errorOf(<-result), errorv1.Reason_REASON_RATE_LIMITED))
			}
			limited := func() bool {
				result, _ := open(as(t.Context(), "u/A"), t, s.Conn(""), r.path())
				return apierr.HasReason(errorOf(<-result), errorv1.Reason_REASON_RATE_LIMITED)
			}
			require.Equal(t, r.reads(), limited())
			now.Advance((streams.EndTimes - 1) * time.Second)
			require.False(t, limited())
		})
	}
}

// TestPlacesComeBack: a handler that fails or panics gives its place back.
func TestPlacesComeBack(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]func(grpc.ServerStream) error{
		"ends":   func(grpc.ServerStream) error { return nil },
		"fails":  func(grpc.ServerStream) error { return errors.New("broken") },
		"panics": func(grpc.ServerStream) error { panic("boom") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, s, _, _ := serveStreams(t, handle)
			for range 3 * streams.PerCaller {
				result, _ := open(as(t.Context(), "u/A"), t, s.Conn(""), importPath)
				require.False(t, apierr.HasReason(errorOf(<-result), errorv1.Reason_REASON_RATE_LIMITED))
			}
		})
	}
}
