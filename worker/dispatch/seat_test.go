package dispatch

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging/postgres"
)

// TestSeats plays a lane: what may be claimed beside what is in work.
func TestSeats(t *testing.T) {
	t.Parallel()
	s := newSeats(16, 16)
	limit := chunkLimit{quick: 4, most: 4}
	paces := map[string]pace{}
	slowOnes := map[string]string{}
	known := func(id string) (pace, bool) { return paces[id], false }
	skip := func() postgres.Skip {
		return s.skip(limit, known, slowOnes, func(account string) []string { return []string{"known of " + account} })
	}
	take := func(account, channel string) *seat {
		s.main <- struct{}{}
		return s.take(&postgres.Chunk{AccountID: account, ChannelID: channel}, paces[channel])
	}

	first := take("a", "a1")
	require.Equal(t, postgres.Skip{Channels: []string{"a1"}, Fresh: []string{"a"}, Known: []string{"known of a"}}, skip(), "a new channel has one chunk, an account one new channel")
	paces["a1"] = quick
	first.equip(1, 1)
	first.move(nowhere)
	require.Empty(t, s.main)
	require.Equal(t, postgres.Skip{}, skip())

	var quickOnes []*seat
	for i := range 12 {
		paces[fmt.Sprint("b", i)] = quick
		quickOnes = append(quickOnes, take("b", fmt.Sprint("b", i)))
	}
	require.Equal(t, []string{"b"}, skip().Accounts, "three quarters are one account's at most")
	for _, q := range quickOnes {
		q.move(nowhere)
	}

	// A channel that is known has its chunks in work while the first of them is prepared: one
	// after the other would take a call's time each.
	paces["f"] = steady
	prepared := take("f", "f")
	require.Empty(t, skip().Channels)
	prepared.move(nowhere)

	// A channel that does not move has as many chunks in work as connections.
	paces["c"], slowOnes["c"] = quick, "c"
	for range 2 {
		take("c", "c").equip(2, 2)
	}
	require.Empty(t, skip().Channels)
	paces["c"] = slow
	require.Equal(t, []string{"c"}, skip().Channels)

	// The second part: an account gets its share, and one in any case.
	var moved []*seat
	for i := range 8 {
		paces[fmt.Sprint("d", i)] = quick
		m := take("d", fmt.Sprint("d", i))
		m.equip(4, 4)
		m.move(inSlow)
		moved = append(moved, m)
	}
	paces["d9"], paces["e1"] = slow, slow
	slowOnes = map[string]string{"d9": "d", "e1": "e"}
	require.Equal(t, []string{"c", "d9"}, skip().Channels)
	require.True(t, s.full("d9", "d", limit, slow, true))
	require.False(t, s.full("e1", "e", limit, slow, true))
	require.Len(t, s.main, 2, "they gave their places away")
	for _, m := range moved {
		m.move(nowhere)
		m.move(nowhere)
	}
	require.Equal(t, []string{"c"}, skip().Channels)
	require.Zero(t, s.inSlow)
	require.Zero(t, s.slowAcc)
	require.Len(t, s.accounts, 1)
}
