package main

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// untilServing is where a program prints; it asks it to stop with its last line.
type untilServing struct {
	strings.Builder
	stop context.CancelFunc
}

func (w *untilServing) Write(b []byte) (int, error) {
	n, err := w.Builder.Write(b)
	if strings.Contains(w.String(), "Ctrl-C") {
		w.stop()
	}
	return n, err
}

// TestUpPrintsItsPorts: where the system chose a port, the one that it chose is printed.
func TestUpPrintsItsPorts(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, errs := &untilServing{stop: stop}, &strings.Builder{}
	code := run(ctx, []string{"TURUMBA_DATA_DIR=" + t.TempDir()}, []string{"up", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0"}, out, errs)
	require.Zero(t, code, errs)
	ports := regexp.MustCompile(`(?m)^\w+ +\S+(?::| port )(\d+)`).FindAllStringSubmatch(out.String(), -1)
	require.Len(t, ports, 6, out.String())
	for _, port := range ports {
		require.NotEqual(t, "0", port[1], port[0])
	}
}
