package bench_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/gateway/app"
	"github.com/turumba/turumba/gateway/rest"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/telemetry"
)

// clients is how many connections call at the same time.
const clients = 8

// gateway serves REST before the server as the product does, and returns its address.
func gateway(b *testing.B, s *grpcserver.Server) string {
	b.Helper()
	g, err := app.New(b.Context(), app.Config{HTTPAddr: "127.0.0.1:0"}, app.Deps{
		Backends: rest.Backends{Account: s.EdgeConn(), Messaging: s.EdgeConn()}, Logger: telemetry.Discard(), Clock: clock.System(),
		Registry: telemetry.NewRegistry(), Tracing: tracing("gateway"), Ready: func(context.Context) error { return nil },
	})
	require.NoError(b, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		require.NoError(b, <-done)
	})
	return g.Addr().String()
}

// tracing makes the ids of traces and records none, as the product does without a
// collector.
func tracing(service string) *telemetry.Tracing {
	return telemetry.NewTracing(telemetry.TracingOptions{Service: service})
}

// plain serves a handler by net/http without any setting, and returns its address.
func plain(b *testing.B, h http.Handler) string {
	b.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(b.Context(), "tcp", "127.0.0.1:0")
	require.NoError(b, err)
	s := &http.Server{Handler: h}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	b.Cleanup(func() {
		require.NoError(b, s.Close())
		require.ErrorIs(b, <-done, http.ErrServerClosed)
	})
	return l.Addr().String()
}

// caller is a connection of a client that costs as little as can be.
type caller struct {
	conn net.Conn
	in   *bufio.Reader
}

// dial opens a connection that is closed in the end.
func dial(b *testing.B, address string) *caller {
	b.Helper()
	var d net.Dialer
	conn, err := d.DialContext(b.Context(), "tcp", address)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, conn.Close()) })
	return &caller{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
}

// call sends a request as it is on the wire and reads the answer to its end, into
// body when it is not nil.
func (c *caller) call(request []byte, status int, body io.Writer) error {
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	if body == nil && res.StatusCode == status {
		body = io.Discard
	}
	if body == nil {
		text, _ := io.ReadAll(res.Body) // what came of it is enough to tell
		return fmt.Errorf("status %d: %s", res.StatusCode, text)
	}
	if _, err := io.Copy(body, res.Body); err != nil {
		return err
	}
	return res.Body.Close()
}

// get is a GET as it is on the wire; token may be empty.
func get(path, token string) []byte {
	head := "GET " + path + " HTTP/1.1\r\nHost: bench.example\r\n"
	if token != "" {
		head += "Authorization: Bearer " + token + "\r\n"
	}
	return []byte(head + "\r\n")
}

// repeat returns a load: so many calls of the same request, by all clients.
func repeat(b *testing.B, address string, request []byte) func(calls int) {
	b.Helper()
	callers := make([]*caller, clients)
	for i := range callers {
		callers[i] = dial(b, address)
	}
	return func(calls int) {
		var calling sync.WaitGroup
		for _, c := range callers {
			calling.Go(func() {
				for range calls / clients {
					if err := c.call(request, http.StatusOK, nil); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		calling.Wait()
	}
}

// answer is the body of one answer.
func answer(b *testing.B, address string, request []byte) string {
	b.Helper()
	var body strings.Builder
	require.NoError(b, dial(b, address).call(request, http.StatusOK, &body))
	return body.String()
}
