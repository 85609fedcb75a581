package grpcserver_test

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
)

// TestSilentServer: a connection that carries nothing any more, as when a router in
// between forgot it, ends the streams that wait on it without a deadline.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // an empty SETTINGS frame (RFC 9113), and never another
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}()
	conn, err := grpcserver.Mesh{ServiceToken: token}.Dial("passthrough:///"+l.Addr().String(), "worker", clock.System())
	require.NoError(t, err)
	stream, err := accountv1.NewRecipientServiceClient(conn).StreamRecipients(t.Context(), &accountv1.StreamRecipientsRequest{AccountId: accountA})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	require.NoError(t, l.Close())
	<-gone
	require.NoError(t, conn.Close())
}

// TestDialAsksAgainSoon: a service that was away for long is found again as soon as it
// is back. Six pauses of a client that keeps gRPC's own would take half a minute.
func TestDialAsksAgainSoon(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	var attempts atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			attempts.Add(1)
			_ = c.Close() // there is no service yet
		}
	}()
	conn, err := grpcserver.Mesh{}.Dial("passthrough:///"+l.Addr().String(), "", clock.System())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	conn.Connect()
	require.Eventually(t, func() bool { return attempts.Load() > 6 }, 15*time.Second, 10*time.Millisecond)
}
