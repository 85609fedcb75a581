package email

import (
	"bufio"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging/channel"
)

// pipes dials in-memory connections to a server that accepts everything.
type pipes struct {
	opened chan struct{}
	closed chan struct{}
}

// DialContext opens one connection.
func (p *pipes) DialContext(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.opened <- struct{}{}
	go func() {
		acceptAll(server)
		p.closed <- struct{}{}
	}()
	return client, nil
}

// ExemptConn reports true.
func (p *pipes) ExemptConn(net.Conn) bool { return true }

func acceptAll(conn net.Conn) {
	defer conn.Close()
	say := func(line string) { _, _ = conn.Write([]byte(line + "\r\n")) }
	say("220 hi")
	lines := bufio.NewScanner(conn)
	inData := false
	for lines.Scan() {
		switch {
		case inData && lines.Text() != ".":
		case inData:
			inData = false
			say("250 ok")
		case strings.HasPrefix(lines.Text(), "DATA"):
			inData = true
			say("354 go")
		default:
			say("250 ok")
		}
	}
}

func openPipes(t *testing.T, c clock.Clock) (*pipes, channel.Sender) {
	t.Helper()
	p := &pipes{opened: make(chan struct{}, 10), closed: make(chan struct{}, 10)}
	sender, err := New(Config{Dialer: p, Clock: c}).Open(channel.EmailSettings{
		Host: "x", Port: 25, TLS: channel.TLSNone, FromEmail: "news@sender.example",
	})
	require.NoError(t, err)
	return p, sender
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	// The fake stands at the present, because deadlines of connections are real.
	fake := clock.NewFake(clock.System().Now())
	p, sender := openPipes(t, fake)
	require.Equal(t, channel.Accepted, sender.Send(t.Context(), *sample("hi", "")).Outcome)
	require.Equal(t, channel.Accepted, sender.Send(t.Context(), *sample("hi", "")).Outcome)
	require.Len(t, p.opened, 1, "the connection is kept")
	require.NoError(t, fake.WaitForTimers(t.Context(), 1))
	fake.Advance(30 * time.Second)
	<-p.closed
	require.Equal(t, channel.Accepted, sender.Send(t.Context(), *sample("hi", "")).Outcome)
	require.Len(t, p.opened, 2)
	require.NoError(t, sender.Close())
	<-p.closed
}

func TestCloseWhileSending(t *testing.T) {
	t.Parallel()
	p, opened := openPipes(t, clock.System())
	inner := opened.(*sender)
	w, failed := inner.take(t.Context())
	require.Nil(t, failed)
	require.NoError(t, inner.Close())
	inner.release(w, keep)
	<-p.closed
	require.Equal(t, "channel_closed", inner.Send(t.Context(), *sample("hi", "")).Code)
}
