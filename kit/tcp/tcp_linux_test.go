package tcp_test

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/tcp"
)

// TestSocketOptions reads back from the kernel what was set.
func TestSocketOptions(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	conn, err := tcp.Dialer().DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	raw, err := conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	get := func(level, option int) (value int) {
		require.NoError(t, raw.Control(func(fd uintptr) {
			var err error
			value, err = syscall.GetsockoptInt(int(fd), level, option)
			require.NoError(t, err)
		}))
		return value
	}
	require.Equal(t, 10_000, get(syscall.IPPROTO_TCP, 0x12), "TCP_USER_TIMEOUT in ms")
	require.NotZero(t, get(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE))
	require.Equal(t, 5, get(syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE))
	require.Equal(t, 2, get(syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL))
	require.Equal(t, 3, get(syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT))
}

// TestUnixSockets have no such options and still open.
func TestUnixSockets(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	conn, err := tcp.Dialer().DialContext(t.Context(), "unix", path)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
}

// TestUnsent: what a client does not read stays with its writer, but for a bounded part.
func TestUnsent(t *testing.T) {
	t.Parallel()
	l, err := tcp.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	client, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	conn, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetWriteDeadline(clock.System().Now().Add(300*time.Millisecond)))
	written, err := conn.Write(make([]byte, 64<<20))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Less(t, written, 1<<20, "bytes that were taken of a client that reads nothing")
}
