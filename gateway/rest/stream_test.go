package rest

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

// watched sends one state of a send and then none any more.
type watched struct{ recorder }

func (w *watched) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &watchStream{ctx: ctx}, nil
}

type watchStream struct {
	ctx  context.Context
	told bool
}

func (s *watchStream) Header() (metadata.MD, error) { return metadata.MD{}, nil }
func (s *watchStream) Trailer() metadata.MD         { return nil }
func (s *watchStream) CloseSend() error             { return nil }
func (s *watchStream) Context() context.Context     { return s.ctx }
func (s *watchStream) SendMsg(any) error            { return nil }

func (s *watchStream) RecvMsg(m any) error {
	if out, ok := m.(*messagingv1.WatchGroupMessageResponse); ok && !s.told {
		s.told, out.GroupMessage = true, &messagingv1.GroupMessage{Name: "News"}
		return nil
	}
	<-s.ctx.Done()
	return s.ctx.Err()
}

// TestLinesComeAtOnce: also to clients that take gzip, as browsers do.
func TestLinesComeAtOnce(t *testing.T) {
	t.Parallel()
	conn := &watched{}
	h, err := NewHandler(t.Context(), Config{Backends: Backends{Account: conn, Messaging: conn}, Logger: telemetry.Discard(), Clock: clock.System()})
	require.NoError(t, err)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	for _, encoding := range []string{"gzip", "identity"} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/v1/group-messages/0190a5c8-1111-7000-8000-000000000000/watch", nil)
		require.NoError(t, err)
		req.Header.Set("Accept-Encoding", encoding)
		got, err := server.Client().Do(req)
		require.NoError(t, err, encoding)
		line, err := bufio.NewReader(got.Body).ReadString('\n')
		require.NoError(t, err, encoding)
		require.Contains(t, line, "News")
		require.Empty(t, got.Header.Get("Content-Encoding"))
		cancel()
		_ = got.Body.Close() // the stream has no end of its own
	}
}
