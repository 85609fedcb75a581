package email_test

import (
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/channel/email"
	"github.com/turumba/turumba/sim"
)

// doorOf lets at most so many connections through to a server at once, and counts those that
// it sent away with 421.
func doorOf(t *testing.T, to string, most int64) (address string, sentAway *atomic.Int64) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var open atomic.Int64
	sentAway = &atomic.Int64{}
	var work sync.WaitGroup
	pass := func(conn net.Conn) {
		defer func() { _ = conn.Close() }()
		if open.Add(1) > most {
			open.Add(-1)
			sentAway.Add(1)
			_, _ = io.WriteString(conn, "421 4.7.0 Too many connections\r\n") // the client may be gone
			return
		}
		defer open.Add(-1)
		server, err := (&net.Dialer{}).Dial("tcp", to)
		if err != nil {
			return
		}
		defer func() { _ = server.Close() }()
		work.Go(func() {
			_, _ = io.Copy(conn, server) // until either side ends
			_ = conn.Close()
		})
		_, _ = io.Copy(server, conn) // as above
	}
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() { pass(conn) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		work.Wait()
	})
	return listener.Addr().String(), sentAway
}

// TestCrowdedServer: a server that takes fewer connections than the channel has gets those
// that it takes, and every message; the channel is not told to wait.
func TestCrowdedServer(t *testing.T) {
	t.Parallel()
	server := startSim(t, sim.Config{Journal: filepath.Join(t.TempDir(), "journal"), Username: "user", Password: "correct horse"})
	door, sentAway := doorOf(t, server.SMTPAddr(), 2)
	set := settingsFor(t, door)
	set.Connections = 8
	sender, err := email.New(email.Config{Dialer: loopback(t), Clock: clock.System(), RootCAs: server.Roots(), Timeouts: email.Timeouts{}}).Open(set)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sender.Close()) })
	require.Equal(t, channel.ClassOK, sender.Send(t.Context(), to("first@example.test", 0)).Class)
	var calls sync.WaitGroup
	var failed atomic.Int64
	for n := range 200 {
		calls.Go(func() {
			if sender.Send(t.Context(), to("bob@example.test", n+1)).Class != channel.ClassOK {
				failed.Add(1)
			}
		})
	}
	calls.Wait()
	require.Zero(t, failed.Load())
	require.LessOrEqual(t, sentAway.Load(), int64(8), "it is not asked for more for a while")
	require.NotZero(t, sentAway.Load())
}

// TestFullServer: where the server takes none at all, the channel waits.
func TestFullServer(t *testing.T) {
	t.Parallel()
	server := startSim(t, sim.Config{Journal: filepath.Join(t.TempDir(), "journal"), Username: "user", Password: "correct horse"})
	door, _ := doorOf(t, server.SMTPAddr(), 0)
	set := settingsFor(t, door)
	set.Connections = 4
	sender, err := email.New(email.Config{Dialer: loopback(t), Clock: clock.System(), RootCAs: server.Roots(), Timeouts: email.Timeouts{}}).Open(set)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sender.Close()) })
	var calls sync.WaitGroup
	for n := range 16 {
		calls.Go(func() {
			res := sender.Send(t.Context(), to("bob@example.test", n))
			require.Equal(t, channel.ClassRateLimited, res.Class)
		})
	}
	calls.Wait()
}
