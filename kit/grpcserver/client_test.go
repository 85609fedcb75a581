package grpcserver_test

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
)

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
