//go:build chaos

package failpoint

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	plan, err := parse("relay.after_claim=sleep:20ms;dispatch.after_gate=exit@3;")
	require.NoError(t, err)
	require.Len(t, plan, 2)
	require.Equal(t, 20*time.Millisecond, plan[RelayAfterClaim].wait)
	require.Equal(t, int64(3), plan[DispatchAfterGate].nth)
	for _, bad := range []string{"nowhere=exit", "relay.after_claim", "relay.after_claim=burn", "relay.after_claim=exit@0", "relay.after_claim=sleep", "relay.after_claim=exit:1s", "relay.after_claim=sleep:x"} {
		_, err := parse(bad)
		require.Error(t, err, bad)
	}
}

func TestHit(t *testing.T) {
	t.Setenv("FP", "api.before_commit=error@2;api.after_commit=panic;relay.after_claim=block")
	require.NoError(t, Hit(t.Context(), APIBeforeCommit))
	require.ErrorIs(t, Hit(t.Context(), APIBeforeCommit), ErrInjected)
	require.NoError(t, Hit(t.Context(), APIBeforeCommit))
	require.Panics(t, func() { _ = Hit(t.Context(), APIAfterCommit) })
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, Hit(ended, RelayAfterClaim))
	require.NoError(t, Hit(t.Context(), FanoutBeforeEnd))
}
