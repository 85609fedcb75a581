package app_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/turumba/turumba/gateway/app"
	"github.com/turumba/turumba/gateway/rest"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slow is a service whose calls last until it lets them go, and whose streams
// never end by themselves.
type slow struct {
	called chan string
	let    chan struct{}
}

func (s *slow) Invoke(ctx context.Context, method string, _, _ any, _ ...grpc.CallOption) error {
	s.called <- method
	select {
	case <-s.let:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slow) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	s.called <- method
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestStopLetsRequestsFinish: a request that was taken is answered after the
// stop was asked for; a stream, which would never end, ends at once.
func TestStopLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	s := &slow{called: make(chan string, 2), let: make(chan struct{})}
	a, err := app.New(t.Context(), app.Config{HTTPAddr: "127.0.0.1:0"}, app.Deps{
		Backends: rest.Backends{Account: s, Messaging: s}, Logger: telemetry.Discard(), Clock: clock.System(),
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()

	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	get := func(path string) <-chan int {
		status := make(chan int, 1)
		go func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.Addr().String()+path, nil)
			if err != nil {
				t.Error(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				status <- 0
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body) // the status is what counts
			_ = resp.Body.Close()
			status <- resp.StatusCode
		}()
		return status
	}
	request := get("/v1/contacts")
	<-s.called
	stream := get("/v1/group-messages/0190a5c8-1111-7000-8000-00000000dead/watch")
	<-s.called
	stop()
	require.NotEqual(t, http.StatusOK, <-stream)
	require.Empty(t, request)
	close(s.let)
	require.Equal(t, http.StatusOK, <-request)
	require.NoError(t, <-ran)
}
