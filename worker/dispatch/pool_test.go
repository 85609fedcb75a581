package dispatch

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestShares: what each lane can have alone is at least 0.9 of the channel's connections,
// and its own in any case.
func TestShares(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		connections    int
		singles, sends int // alone
		own            [lanes]int
	}{
		{1, 1, 1, [lanes]int{1, 1}},
		{2, 2, 2, [lanes]int{1, 1}},
		{3, 3, 3, [lanes]int{1, 2}},
		{4, 4, 4, [lanes]int{1, 3}},
		{8, 8, 8, [lanes]int{2, 6}},
		{15, 15, 15, [lanes]int{3, 12}},
		{16, 16, 15, [lanes]int{4, 12}},
		{64, 64, 63, [lanes]int{16, 48}},
	} {
		t.Run(fmt.Sprint(c.connections), func(t *testing.T) {
			t.Parallel()
			for lane, want := range []int{singles: c.singles, sends: c.sends} {
				s, u := sharesOf(c.connections), usage{}
				for s.may(&u, lane) {
					u.open[lane]++
				}
				require.Equal(t, want, u.open[lane])
				require.GreaterOrEqual(t, float64(want), 0.9*float64(c.connections))
				require.Equal(t, c.own, s.own)
			}
		})
	}
}

// TestNextConnection is whose turn it is when a connection is free.
func TestNextConnection(t *testing.T) {
	t.Parallel()
	const nobody = -1
	at := func(single, bulk int) [lanes]int { return [lanes]int{singles: single, sends: bulk} }
	for name, c := range map[string]struct {
		connections int
		u           usage
		want        int
	}{
		"nobody waits":                                     {4, usage{}, nobody},
		"none is free":                                     {4, usage{open: at(0, 4), waiting: at(1, 1)}, nobody},
		"a single before a send":                           {4, usage{open: at(0, 3), waiting: at(1, 1)}, singles},
		"a single that has its own comes after":            {4, usage{open: at(1, 2), waiting: at(1, 1)}, sends},
		"a single borrows what nobody wants":               {4, usage{open: at(3, 0), waiting: at(1, 0)}, singles},
		"a send borrows what nobody wants":                 {4, usage{open: at(0, 3), waiting: at(0, 1)}, sends},
		"the send's own comes back":                        {4, usage{open: at(3, 0), waiting: at(9, 1)}, sends},
		"one is kept for singles":                          {16, usage{open: at(0, 15), waiting: at(0, 1)}, nobody},
		"and is theirs":                                    {16, usage{open: at(0, 15), waiting: at(1, 1)}, singles},
		"it is used":                                       {16, usage{open: at(1, 14), waiting: at(0, 1)}, sends},
		"one connection: the single after a send":          {1, usage{waiting: at(1, 1), last: sends}, singles},
		"one connection: the send after a single":          {1, usage{waiting: at(1, 1), last: singles}, sends},
		"silent sends borrow no more":                      {4, usage{open: at(0, 3), waiting: at(0, 1), mute: at(0, 2), given: at(0, 1)}, nobody},
		"and leave singles their own":                      {4, usage{open: at(0, 3), waiting: at(1, 1), mute: at(0, 2), given: at(0, 1)}, singles},
		"a send is tried beside singles that are silent":   {4, usage{open: at(3, 0), waiting: at(0, 1), mute: at(3, 0)}, sends},
		"a single is tried beside singles that are silent": {4, usage{open: at(3, 0), waiting: at(1, 0), mute: at(3, 0), given: at(2, 0)}, singles},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lane, ok := sharesOf(c.connections).next(&c.u)
			if c.want == nobody {
				require.False(t, ok)
				return
			}
			require.True(t, ok)
			require.Equal(t, c.want, lane)
		})
	}
}

// TestConnectionsAreShared: calls begin and end by chance in both lanes. There are never
// more than the connections, none lies idle that somebody may have, and what the end of a
// call sets free is a single message's while they have less than their own, and else a
// send's, if one waits. Beside one connection they take turns.
func TestConnectionsAreShared(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 4, 7, 15, 16, 64} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			c := testLine(n).pool
			for range 20000 {
				lane := rand.IntN(lanes)
				switch begin := rand.IntN(2) == 0; {
				case begin && c.use.waiting[lane] < 2*n:
					c.ask(lane)
				case !begin && c.use.open[lane] > 0:
					before := c.use
					before.open[lane]--
					c.free(lane)
					require.Equal(t, turn(c.shares, before), served(before, c.use), "%+v", before)
				}
				require.LessOrEqual(t, c.use.open[singles]+c.use.open[sends], n)
				_, more := c.next(&c.use)
				require.False(t, more)
			}
		})
	}
}

// served is how many of those that waited have a connection now.
func served(before, now usage) (n [lanes]int) {
	for lane := range n {
		n[lane] = before.waiting[lane] - now.waiting[lane]
	}
	return n
}

// turn is who should have the connection that the end of a call set free.
func turn(s shares, u usage) (n [lanes]int) {
	single, bulk := u.waiting[singles] > 0, u.waiting[sends] > 0
	switch {
	case single && bulk && s.all == 1:
		n[1-u.last] = 1
	case single && (u.open[singles] < s.own[singles] || !bulk):
		n[singles] = 1
	case bulk && u.open[singles]+u.open[sends] < s.all-max(s.kept-u.open[singles], 0):
		n[sends] = 1
	}
	return n
}

// TestSingleBeforeCampaign: beside sends that want all they can get, a single message has a
// connection at once where one is kept, and else with the end of the first call.
func TestSingleBeforeCampaign(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 64; n++ {
		c := testLine(n).pool
		for range 3 * n {
			c.ask(sends)
		}
		for range 3 {
			c.ask(singles)
			if n < keepFrom {
				require.Zero(t, c.use.open[singles])
				c.free(sends)
			}
			require.Equal(t, 1, c.use.open[singles], "%d connections", n)
			c.free(singles)
		}
	}
}

// TestSendBesideSingles: sends that come while single messages want all connections have
// their own as calls end, and keep them; beside one connection they have every second call.
func TestSendBesideSingles(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 64; n++ {
		c := testLine(n).pool
		for range 100 * n {
			c.ask(singles)
		}
		for range 9 * n {
			c.ask(sends)
		}
		for range n - c.own[singles] {
			c.free(singles)
		}
		if n > 1 {
			require.Equal(t, c.own[sends], c.use.open[sends], "%d connections", n)
		}
		calls := [lanes]int{}
		for range 4 {
			for lane := range lanes {
				if c.use.open[lane] > 0 {
					c.free(lane)
					calls[lane]++
				}
			}
		}
		if n > 1 {
			require.Equal(t, c.own, c.use.open, "%d connections", n)
		} else {
			require.Equal(t, [lanes]int{4, 4}, calls)
		}
	}
}
