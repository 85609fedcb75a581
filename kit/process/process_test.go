package process_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/process"
)

// TestAdminAddress: the listener tells the address that it serves on.
func TestAdminAddress(t *testing.T) {
	t.Parallel()
	addr, serve, err := process.Admin{Addr: "127.0.0.1:0"}.Listen(t.Context(), prometheus.NewRegistry(), nil, nil)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx) }()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr.String()+"/readyz", http.NoBody)
	require.NoError(t, err)
	res, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)
	stop()
	require.NoError(t, <-served)
}
