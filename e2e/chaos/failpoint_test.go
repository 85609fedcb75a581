package chaos_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/failpoint"
)

// TestFailpointsAreCompiledOut looks for the names of the failpoints in the worker
// as people run it, and, so that this proves something, as the suite runs it.
func TestFailpointsAreCompiledOut(t *testing.T) {
	t.Parallel()
	ordinary, err := os.ReadFile(binary(t, "worker/cmd/worker"))
	require.NoError(t, err)
	chaos, err := os.ReadFile(binary(t, "worker/cmd/worker", "-tags", "chaos"))
	require.NoError(t, err)
	for _, p := range failpoint.Points() {
		require.False(t, bytes.Contains(ordinary, []byte(p)), p)
	}
	for _, p := range []failpoint.Point{failpoint.DispatchAfterGate, failpoint.RelayAfterClaim} {
		require.True(t, bytes.Contains(chaos, []byte(p)), p)
	}
}
