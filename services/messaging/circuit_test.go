package messaging_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging"
)

func TestBreakAndMend(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	c := &messaging.Channel{IsEnabled: true, Status: messaging.ChannelConnected}
	require.True(t, c.MaySend(now))
	for _, rest := range []int{1, 2, 4, 8, 16, 32, 60, 60} {
		c.Break(now, false, "away")
		require.Equal(t, now.Add(time.Duration(rest)*time.Second), *c.CircuitUntil)
	}
	require.Equal(t, messaging.ChannelDisconnected, c.ShownStatus(now))
	require.Equal(t, "away", c.ErrorMessage)
	late := now.Add(time.Minute)
	require.Equal(t, []bool{false, false, true}, []bool{c.MaySend(now), c.MayProbe(now), c.Broken(now)})
	require.Equal(t, []bool{false, true, false}, []bool{c.MaySend(late), c.MayProbe(late), c.Broken(late)})
	require.Equal(t, 10*time.Second, c.HeldFor(now), "of 60 s at most ten")
	require.Equal(t, time.Second+10*time.Millisecond, c.HeldFor(late.Add(-time.Second)))
	require.Zero(t, c.HeldFor(late), "it may be tried")
	c.Mend()
	require.True(t, c.MaySend(now))
	require.Empty(t, c.ErrorMessage)

	for _, rest := range []int{1, 2, 4, 8, 15, 15} {
		c.Break(now, true, "the login is wrong")
		require.Equal(t, now.Add(time.Duration(rest)*time.Minute), *c.CircuitUntil)
		require.Equal(t, messaging.ChannelError, c.ShownStatus(now))
	}
	c.IsEnabled = false
	require.Equal(t, []bool{false, false, false}, []bool{c.MaySend(late), c.MayProbe(now.Add(time.Hour)), c.Broken(now)}, "a channel that is off holds its messages")
	require.Equal(t, messaging.MendedCheck, c.HeldFor(now), "only a change helps")
	c.IsEnabled = true
	c.Mend()
	require.Equal(t, messaging.ChannelDisconnected, c.Status)
}

func TestSlow(t *testing.T) {
	t.Parallel()
	limit := func(n int32) *int32 { return &n }
	now := time.Unix(1000, 0)
	rate := func(c *messaging.Channel, in time.Duration) int32 {
		if r := c.Rate(now.Add(in)); r != nil {
			return *r
		}
		return 0
	}
	limited := &messaging.Channel{RateLimit: limit(600)}
	limited.Slow(now, 100_000)
	require.EqualValues(t, 300, rate(limited, 0), "half of the limit, not of what was observed")
	require.EqualValues(t, 360, rate(limited, 10*time.Second))
	require.EqualValues(t, 600, rate(limited, 50*time.Second))
	limited.Slow(now.Add(10*time.Second), 1)
	require.EqualValues(t, 180, rate(limited, 10*time.Second), "half again")
	require.EqualValues(t, 240, rate(limited, 20*time.Second), "by the same step")
	require.EqualValues(t, 600, rate(limited, time.Hour), "the limit itself comes back")

	free := &messaging.Channel{}
	require.Zero(t, rate(free, 0))
	free.Slow(now, 1200)
	require.EqualValues(t, 600, rate(free, 0))
	require.EqualValues(t, 1188, rate(free, 49*time.Second))
	require.Zero(t, rate(free, 51*time.Second), "no limit again")
	free.Slow(now, 1)
	free.Slow(now, 1)
	for range 20 {
		free.Slow(now, 1)
	}
	require.EqualValues(t, 1, rate(free, 0), "never nothing")
}
