package dispatch

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging"
)

// TestBreaker: outcomes as a line, x a failure, ? no answer; the channel trips with the last of them
// and not before.
func TestBreaker(t *testing.T) {
	t.Parallel()
	for line, trips := range map[string]bool{
		"xxxxx":                true,
		"xx?x?":                true,
		".?.?.?.?.?.?.?.?.?.?": false,
		"xxxx.xxxx":            false,
		".x.x.x.x.x.x.x.x.x.x": true,
		".x.x.x.x.x.x.x.x.x..": false,
		"x":                    false,
		strings.Repeat(".", 40) + "xx.xx.xx.xx.xx": true,
		strings.Repeat(".", 40) + "xxx.xxx.xxx":    false,
		strings.Repeat("x.", 9) + "..x":            false,
	} {
		var b breaker
		tripped := false
		for i, c := range line {
			tripped = b.add(c != '.', c == '?')
			require.Truef(t, !tripped || i == len(line)-1, "%s trips at %d", line, i)
		}
		require.Equal(t, trips, tripped, line)
	}
}

func TestValve(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	v := &valve{}
	shut := func(wait time.Duration, why string) {
		t.Helper()
		gotWait, gotWhy := v.held(now)
		require.Equal(t, wait, gotWait)
		if wait > 0 {
			require.Equal(t, why, gotWhy)
		}
	}
	shut(0, "")
	require.False(t, v.note(messaging.Outcome{Class: "rate_limited", RetryIn: 3 * time.Second}, time.Millisecond, now))
	require.False(t, v.note(messaging.Outcome{Class: "rate_limited", RetryIn: 2 * time.Second}, time.Millisecond, now))
	shut(3*time.Second, "rate_limited")
	now = now.Add(3 * time.Second)
	shut(0, "")
	require.False(t, v.note(messaging.Outcome{Class: "config", RetryIn: time.Second}, time.Millisecond, now))
	shut(time.Second, "config")
	v.open()
	shut(0, "")
	for range tripRun - 1 {
		require.False(t, v.note(messaging.Outcome{Class: "unknown"}, time.Millisecond, now))
	}
	require.True(t, v.note(messaging.Outcome{Class: "transient"}, time.Millisecond, now))
	shut(tripPause, codeCircuitOpen)
}
