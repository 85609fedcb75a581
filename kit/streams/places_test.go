package streams_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func refused(t *testing.T, err error) {
	t.Helper()
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_RATE_LIMITED), "%v", err)
	require.Positive(t, apierr.From(err).RetryAfter)
}

// TestPlaces: 20 for a caller, 200 for an account, and each comes back once.
func TestPlaces(t *testing.T) {
	t.Parallel()
	p := streams.NewPlaces(clock.System())
	var taken []*streams.Place
	for i := range streams.PerAccount {
		place, err := p.Take(fmt.Sprint("caller", i/streams.PerCaller), []string{"A"}, false)
		require.NoError(t, err)
		taken = append(taken, place)
	}
	_, err := p.Take("caller0", []string{"B"}, false)
	refused(t, err) // the caller, wherever
	_, err = p.Take("another", []string{"A"}, false)
	refused(t, err) // the account, whoever
	taken[0].Release(streams.Left)
	taken[0].Release(streams.Left)
	_, err = p.Take("another", []string{"A"}, false)
	require.NoError(t, err)
	_, err = p.Take("yet another", []string{"A"}, false)
	refused(t, err)
	require.Equal(t, streams.PerAccount, p.Open())
}

// TestPlacesOfSeveralAccounts: a stream that may see a full account counts in another
// one, until it is known to be the full one's.
func TestPlacesOfSeveralAccounts(t *testing.T) {
	t.Parallel()
	p := streams.NewPlaces(clock.System())
	for i := range streams.PerAccount {
		_, err := p.Take(fmt.Sprint("caller", i), []string{"A"}, false)
		require.NoError(t, err)
	}
	place, err := p.Take("of both", []string{"A", "B"}, false)
	require.NoError(t, err)
	ctx := streams.WithPlace(t.Context(), place)
	refused(t, streams.Settle(ctx, "A"))
	require.NoError(t, streams.Settle(ctx, "B"))
	require.NoError(t, streams.Settle(context.Background(), "A"), "a service's stream is nobody's")
	place.Release(streams.Ended)
	require.NoError(t, place.Settle("B"), "after the end nothing counts")
	require.Equal(t, streams.PerAccount, p.Open())
}

// TestReadsCountForAWhile: who opens streams that read, and drops them, opens no more than
// 20 in 20 s, and their account 200, one second or all at once; who watches for longer
// leaves at once.
func TestReadsCountForAWhile(t *testing.T) {
	t.Parallel()
	now := clock.NewFake(time.Unix(1_770_000_000, 0))
	p := streams.NewPlaces(now)
	drop := func(caller string) error {
		place, err := p.Take(caller, []string{"A"}, true)
		if err == nil {
			require.NoError(t, place.Settle("A"))
			place.Release(streams.Left)
		}
		return err
	}
	for range streams.PerCaller {
		require.NoError(t, drop("caller"))
	}
	require.Zero(t, p.Open())
	require.Equal(t, streams.ReadHold, apierr.From(drop("caller")).RetryAfter, "until the first of them counts no more")
	_, err := p.Take("caller", nil, false)
	refused(t, err) // whatever is opened next
	for i := range streams.PerAccount - streams.PerCaller {
		require.NoError(t, drop(fmt.Sprint("caller", i/streams.PerCaller)))
	}
	require.Equal(t, streams.ReadHold, apierr.From(drop("another")).RetryAfter)
	now.Advance(streams.ReadHold - time.Second)
	require.Equal(t, time.Second, apierr.From(drop("caller")).RetryAfter)
	now.Advance(time.Second)
	long, err := p.Take("caller", []string{"A"}, true)
	require.NoError(t, err)
	require.NoError(t, long.Settle("B"))
	for range streams.PerCaller - 1 {
		require.NoError(t, drop("caller"))
	}
	refused(t, drop("caller"))
	now.Advance(streams.ReadHold)
	for range streams.PerCaller - 1 {
		require.NoError(t, drop("caller"))
	}
	refused(t, drop("caller"))
	long.Release(streams.Left)
	require.NoError(t, drop("caller"))
}

// TestHowStreamsEndCounts: who was refused may ask at once, who read all of it soon.
func TestHowStreamsEndCounts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		end        streams.End
		took, hold time.Duration
	}{
		{streams.Refused, time.Second, 0},
		{streams.Ended, 0, 0},
		{streams.Ended, 10 * time.Millisecond, (streams.EndTimes - 1) * 10 * time.Millisecond},
		{streams.Ended, 3 * time.Second, streams.EndHold - 3*time.Second},
		{streams.Ended, time.Minute, 0},
		{streams.Left, time.Second, streams.ReadHold - time.Second},
		{streams.Left, time.Minute, 0},
	} {
		now := clock.NewFake(time.Unix(1_770_000_000, 0))
		p := streams.NewPlaces(now)
		var open []*streams.Place
		for range streams.PerCaller {
			place, err := p.Take("caller", nil, true)
			require.NoError(t, err)
			open = append(open, place)
		}
		now.Advance(c.took)
		for _, place := range open {
			place.Release(c.end)
		}
		if c.hold > 0 {
			now.Advance(c.hold - time.Nanosecond)
			_, err := p.Take("caller", nil, true)
			refused(t, err)
			now.Advance(time.Nanosecond)
		}
		_, err := p.Take("caller", nil, true)
		require.NoError(t, err, "%+v", c)
	}
}

// TestWhoReadsFindsAPlace reads streams to their ends, one after another, of which the
// longest takes ten times as long as the shortest.
func TestWhoReadsFindsAPlace(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := clock.NewFake(time.Unix(1_770_000_000, 0))
		p := streams.NewPlaces(now)
		shortest := rapid.Int64Range(1, int64(time.Minute)).Draw(t, "shortest")
		took := rapid.Int64Range(shortest, 10*shortest)
		for range rapid.IntRange(1, 200).Draw(t, "streams") {
			place, err := p.Take("caller", []string{"A"}, true)
			if err != nil {
				t.Fatal(err)
			}
			now.Advance(time.Duration(took.Draw(t, "took")))
			place.Release(streams.Ended)
		}
	})
}

// TestPlacesAddUp takes, settles and releases in any order.
func TestPlacesAddUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := clock.NewFake(time.Unix(1_770_000_000, 0))
		p := streams.NewPlaces(now)
		open := map[*streams.Place]string{}
		names := rapid.SampledFrom([]string{"A", "B", "C"})
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			caller := names.Draw(t, "caller")
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				if place, err := p.Take(caller, []string{names.Draw(t, "account")}, rapid.Bool().Draw(t, "reads")); err == nil {
					open[place] = caller
				}
			case 2:
				for place := range open {
					_ = place.Settle(caller)
					break
				}
			case 3:
				for place := range open {
					place.Release(rapid.SampledFrom([]streams.End{streams.Refused, streams.Ended, streams.Left}).Draw(t, "end"))
					delete(open, place)
					break
				}
			case 4:
				now.Advance(streams.ReadHold / 4)
			}
			of := map[string]int{}
			for _, who := range open {
				of[who]++
				if of[who] > streams.PerCaller {
					t.Fatalf("%s has %d streams", who, of[who])
				}
			}
			if p.Open() != len(open) {
				t.Fatalf("%d of %d", p.Open(), len(open))
			}
		}
		for place := range open {
			place.Release(streams.Left)
		}
		now.Advance(streams.ReadHold)
		for range streams.PerCaller {
			if _, err := p.Take("A", []string{"A"}, false); err != nil {
				t.Fatalf("a place was lost: %v", err)
			}
		}
	})
}
