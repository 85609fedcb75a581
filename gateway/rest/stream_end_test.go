package rest

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

// source is a service whose streams say what they are told to: send, until the client is
// gone, and end with the error.
type source struct {
	recorder
	lines int // before the error; negative for no end
	fail  error
	gone  chan struct{}
}

func (s *source) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	if s.gone != nil {
		context.AfterFunc(ctx, func() { close(s.gone) })
	}
	return &sourceStream{source: s, watchStream: watchStream{ctx: ctx}}, nil
}

type sourceStream struct {
	*source
	watchStream
	sent int
}

func (s *sourceStream) Header() (metadata.MD, error) { return metadata.MD{}, nil }

func (s *sourceStream) RecvMsg(m any) error {
	out, ok := m.(*messagingv1.WatchGroupMessageResponse)
	if ok && s.sent != s.lines && s.ctx.Err() == nil {
		s.sent++
		out.GroupMessage = &messagingv1.GroupMessage{Name: string(make([]byte, 200))}
		return nil
	}
	return cmp.Or(s.ctx.Err(), s.fail)
}

const watchPath = "/v1/group-messages/0190a5c8-1111-7000-8000-000000000000/watch"

// gatewayOf serves REST over conn until stop is called.
func gatewayOf(t *testing.T, conn grpc.ClientConnInterface, most int, c clock.Clock) (server *httptest.Server, stop context.CancelFunc) {
	t.Helper()
	h, err := NewHandler(t.Context(), Config{Backends: Backends{Account: conn, Messaging: conn}, Logger: telemetry.Discard(), Clock: c, MaxStreams: most})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	base := BaseContext(ctx)
	server = httptest.NewUnstartedServer(h)
	server.Config.BaseContext = func(net.Listener) context.Context { return base }
	server.Start()
	t.Cleanup(server.Close)
	t.Cleanup(stop)
	return server, stop
}

func watch(t *testing.T, server *httptest.Server) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+watchPath, nil)
	require.NoError(t, err)
	resp, err := server.Client().Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() }) // it was read
	return resp
}

// TestStreamRefused: a stream that is refused before its first line has the status of
// the reason and says when to try again.
func TestStreamRefused(t *testing.T) {
	t.Parallel()
	refused := apierr.New(errorv1.Reason_REASON_RATE_LIMITED, "you have 20 streams open").WithRetryAfter(5 * time.Second)
	server, _ := gatewayOf(t, &source{fail: refused.GRPCStatus().Err()}, 0, clock.System())
	resp := watch(t, server)
	require.Equal(t, http.StatusTooManyRequests, resp.StatusCode)
	require.Equal(t, "5", resp.Header.Get("Retry-After"))
	raw, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(raw), "RATE_LIMITED")
}

// TestStreamsHaveRoom: above the most there may be, streams are refused and other
// requests are not.
func TestStreamsHaveRoom(t *testing.T) {
	t.Parallel()
	server, _ := gatewayOf(t, &watched{}, 2, clock.System())
	for range 2 {
		require.Equal(t, http.StatusOK, watch(t, server).StatusCode)
	}
	resp := watch(t, server)
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.NotEmpty(t, resp.Header.Get("Retry-After"))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/healthz", nil)
	require.NoError(t, err)
	ok, err := server.Client().Do(req)
	require.NoError(t, err)
	require.NoError(t, ok.Body.Close())
	require.Equal(t, http.StatusOK, ok.StatusCode)
}

// TestStopTellsStreams: the last line of a watch whose gateway stops says that it may be
// opened again.
func TestStopTellsStreams(t *testing.T) {
	t.Parallel()
	server, stop := gatewayOf(t, &watched{}, 0, clock.System())
	lines := bufio.NewReader(watch(t, server).Body)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "News")
	stop()
	line, err = lines.ReadString('\n')
	require.NoError(t, err)
	var last body
	require.NoError(t, json.Unmarshal([]byte(line), &last))
	require.Equal(t, "UNAVAILABLE", last.Code)
	require.NotEmpty(t, last.RequestID)
	_, err = lines.ReadString('\n')
	require.ErrorIs(t, err, io.EOF)
}

// TestReaderWhoDoesNotRead is given up after a minute, and soon when the gateway stops.
func TestReaderWhoDoesNotRead(t *testing.T) {
	t.Parallel()
	for name, stops := range map[string]bool{"in time": false, "the gateway stops": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := &source{lines: -1, gone: make(chan struct{})}
			now := clock.System()
			if !stops {
				now = &offset{Clock: now, by: time.Second - idleLimit} // a minute is a second
			}
			server, stop := gatewayOf(t, from, 0, now)
			require.Equal(t, http.StatusOK, watch(t, server).StatusCode)
			if stops {
				stop()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			select {
			case <-from.gone:
			case <-ctx.Done():
				require.Fail(t, "the stream goes on")
			}
		})
	}
}

// offset is a clock that is late by a constant.
type offset struct {
	clock.Clock
	by time.Duration
}

// Now implements clock.Clock.
func (o *offset) Now() time.Time { return o.Clock.Now().Add(o.by) }
