package bounds_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/bounds"
	"github.com/turumba/turumba/kit/clock"
)

// TestListener: who comes from a small side has a place, whoever fills the rest.
func TestListener(t *testing.T) {
	t.Parallel()
	raw, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := bounds.Listener(raw, 8)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // answers each byte, as a server does until the peer is gone
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	dial := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.DialContext(t.Context(), "tcp", raw.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	works := func(c net.Conn) bool {
		require.NoError(t, c.SetDeadline(clock.System().Now().Add(10*time.Second)))
		if _, err := c.Write([]byte{1}); err != nil {
			return false
		}
		_, err := c.Read(make([]byte, 1))
		return err == nil
	}
	working := func(conns []net.Conn) (n int) {
		for _, c := range conns {
			if works(c) {
				n++
			}
		}
		return n
	}
	var crowd, others []net.Conn
	for range 20 {
		crowd = append(crowd, dial("127.0.1.1"))
	}
	require.Equal(t, 8, working(crowd), "no more than there is room for")
	for range 3 {
		c := dial("127.0.2.1")
		require.True(t, works(c))
		others = append(others, c)
	}
	require.Equal(t, 5, working(crowd))
	c := dial("127.0.2.2")
	require.True(t, works(c))
	others = append(others, c)
	require.Equal(t, 4, working(crowd))
	require.False(t, works(dial("127.0.1.1")), "the crowd gets no more")
	require.Equal(t, 4, working(others), "and takes nothing from others")
	require.NoError(t, c.Close())
	require.Eventually(t, func() bool { return works(dial("127.0.1.1")) }, 10*time.Second, 10*time.Millisecond, "a place that was given back")
	require.NoError(t, l.Close())
	<-served
}
