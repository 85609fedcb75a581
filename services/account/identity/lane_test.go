package identity

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
)

// full are lanes whose place for registrations is taken.
func full(t *testing.T) (l *lanes, leave func()) {
	t.Helper()
	l = newLanes(clock.NewFake(time.Unix(1_770_000_000, 0)), Places{Logins: 1, Registrations: 1})
	require.Nil(t, l.wait(registrations, OfUser("first")))
	return l, func() { l.leave(registrations, OfUser("first"), true) }
}

// TestLaneOrder: who tried least comes first; each call of somebody that waits is a try.
func TestLaneOrder(t *testing.T) {
	t.Parallel()
	l, leave := full(t)
	crowd, victim := OfUser("crowd"), OfUser("victim")
	l.tried[crowd] = 7
	many := l.wait(registrations, crowd)
	one := l.wait(registrations, OfUser("somebody"))
	second := l.wait(registrations, OfUser("somebody"))
	newcomer := l.wait(registrations, victim)
	require.Nil(t, l.wait(logins, crowd), "another kind has places of its own")
	for _, next := range []*waiter{one, newcomer, second, many} {
		require.Empty(t, many.turn)
		leave()
		select {
		case err := <-next.turn:
			require.NoError(t, err)
		default:
			require.Fail(t, "it was another's turn")
		}
	}
	require.Equal(t, 9, l.tried[crowd])
	l.leave(registrations, victim, false)
	require.NotContains(t, l.tried, victim, "a good call does not count")
	require.Equal(t, 1, l.of[registrations].free)
}

// TestLaneIsShort: nobody waits longer than maxWait, and of more than mostWaiting the one
// who tried most gets no turn.
func TestLaneIsShort(t *testing.T) {
	t.Parallel()
	l, _ := full(t)
	_, err := l.enter(t.Context(), registrations, OfUser("patient"))
	require.ErrorIs(t, err, ErrBusy)
	require.Equal(t, 1, l.tried[OfUser("patient")], "and it counts")
	l.tried[OfUser("crowd")] = 3
	worst := l.wait(registrations, OfUser("crowd"))
	for range mostWaiting - 1 {
		l.wait(registrations, OfUser(NewToken()))
	}
	require.Empty(t, worst.turn)
	newcomer := l.wait(registrations, OfUser("victim"))
	require.ErrorIs(t, <-worst.turn, ErrBusy)
	require.Empty(t, newcomer.turn)
	require.Len(t, l.of[registrations].waiting, mostWaiting)
}

// TestLaneForgets: whoever gives up leaves no place taken, and what was tried fades.
func TestLaneForgets(t *testing.T) {
	t.Parallel()
	l, leave := full(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := l.enter(ctx, registrations, OfUser("gone"))
	require.ErrorIs(t, err, context.Canceled)
	leave()
	left, err := l.enter(t.Context(), registrations, OfUser("next"))
	require.NoError(t, err)
	left(true)
	require.Equal(t, 1, l.of[registrations].free)
	now, _ := l.clock.(*clock.Fake)
	l.tried[OfUser("crowd")] = 9
	now.Advance(fadeAfter)
	require.Nil(t, l.wait(others, OfUser("somebody")))
	require.Equal(t, map[Who]int{OfUser("crowd"): 4, OfUser("somebody"): 1}, l.tried)
	require.Equal(t, map[Who]int{OfUser("somebody"): 1}, l.here)
}

// TestCrowdsAreHeld: who has many calls there at once waits for a refusal, others do not.
func TestCrowdsAreHeld(t *testing.T) {
	t.Parallel()
	l, _ := full(t)
	crowded, one := OfUser("crowd"), OfUser("somebody")
	for range crowd + 1 {
		l.wait(registrations, crowded)
	}
	l.wait(registrations, one)
	began := clock.System().Now()
	require.ErrorIs(t, l.refuse(t.Context(), crowded, ErrBusy), ErrBusy)
	require.GreaterOrEqual(t, clock.System().Now().Sub(began), hold)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.here[crowded]++
	require.ErrorIs(t, l.refuse(ctx, crowded, ErrBusy), ErrBusy, "nobody waits any more")
	require.ErrorIs(t, l.refuse(t.Context(), one, ErrBusy), ErrBusy)
	require.NotContains(t, l.here, one)
	require.Equal(t, crowd, l.here[crowded])
}

// TestACrowdLeavesPlaces: beside many sides that have tried something, who has not finds a
// place at once; without them everybody has all places.
func TestACrowdLeavesPlaces(t *testing.T) {
	t.Parallel()
	l := newLanes(clock.NewFake(time.Unix(1_770_000_000, 0)), Places{Logins: 8, Registrations: 1})
	sides := make([]Who, many+12)
	for i := range sides {
		sides[i] = OfUser(NewToken())
		l.tried[sides[i]] = 4
	}
	in, waits := []Who{}, map[Who]*waiter{}
	for _, who := range sides {
		if w := l.wait(logins, who); w == nil {
			in = append(in, who)
		} else {
			waits[who] = w
		}
	}
	require.Len(t, in, 8, "until there are many")
	for _, who := range in[:7] {
		l.leave(logins, who, true)
	}
	require.Greater(t, len(l.here), many, "a crowd is still there")
	require.Equal(t, 6, l.of[logins].free, "and takes a quarter of the places")
	require.Nil(t, l.wait(logins, OfUser("somebody")), "there is a place")
	l.leave(logins, in[7], true)
	for left := len(waits) + 1; left > len(waits); { // each that leaves lets others in, down to the last
		left = len(waits)
		for who, w := range waits {
			if len(w.turn) > 0 {
				require.NoError(t, <-w.turn)
				delete(waits, who)
				l.leave(logins, who, true)
			}
		}
	}
	require.Empty(t, waits)
	l.leave(logins, OfUser("somebody"), false)
	require.Empty(t, l.of[logins].waiting)
	require.Equal(t, 8, l.of[logins].free)
}
