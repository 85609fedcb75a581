package bench_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging/channel"
)

// The campaigns that share a type of channel: how many messages the first account's have
// together, and how much later that of the second, with half as many, begins;
// FAIR_MESSAGES and FAIR_OFFSET ask for others. One minute needs as many messages as the
// machine sends in two.
const (
	fairMessages = 200_000
	fairOffset   = 2 * time.Second
)

// BenchmarkFairShares is how two accounts of the same weight share the worker while both
// send: with one campaign each, and with four of the first, each on a channel of its own.
func BenchmarkFairShares(b *testing.B) {
	for _, channels := range []int{1, 4} {
		b.Run(fmt.Sprintf("channels=%d:1", channels), func(b *testing.B) { fairShares(b, channels) })
	}
}

func fairShares(b *testing.B, channels int) {
	b.Helper()
	n, offset := sizeOf(b, "FAIR_MESSAGES", fairMessages), fairOffset
	if text := os.Getenv("FAIR_OFFSET"); text != "" {
		var err error
		offset, err = time.ParseDuration(text)
		require.NoError(b, err)
	}
	s := server(b)
	require.NoError(b, pg.EnsureDatabase(b.Context(), s.URL("ours")))
	desk := &tally{sent: map[string]*atomic.Int64{}}
	early := []*sender{newSender(b, s.URL("ours"), desk)}
	for len(early) < channels {
		early = append(early, early[0].another())
	}
	late := newAccount(b, early[0].store)
	first, second := new(atomic.Int64), new(atomic.Int64)
	desk.sent[early[0].account], desk.sent[late.account] = first, second
	for b.Loop() {
		firsts, seconds := first.Load()+int64(n), second.Load()+int64(n/2)
		ids := make([]string, channels)
		for i, s := range early {
			ids[i] = s.begin(n / channels)
		}
		require.NoError(b, clock.Sleep(b.Context(), clock.System(), offset))
		id := late.begin(n / 2)
		desk.wait(b, func() bool { return second.Load() > seconds-int64(n/2) })
		mine, theirs := first.Load(), second.Load()
		require.Less(b, mine, firsts, "the first campaign has ended before the second began: FAIR_MESSAGES")
		desk.wait(b, func() bool { return first.Load() == firsts || second.Load() == seconds })
		mine, theirs = first.Load()-mine, second.Load()-theirs
		share := float64(theirs) / float64(mine+theirs)
		b.ReportMetric(share, "share_of_late")
		b.ReportMetric(math.Abs(share-0.5)/0.5, "deviation")
		for i, s := range early {
			s.end(ids[i], n/channels)
		}
		late.end(id, n/2)
	}
	b.ReportMetric(0, "ns/op")
}

// tally is an adapter that accepts everything and counts by account.
type tally struct {
	nothing
	sent map[string]*atomic.Int64
}

// Open implements channel.Adapter.
func (t *tally) Open(channel.Settings) (channel.Sender, error) { return t, nil }

// Send implements channel.Sender.
func (t *tally) Send(ctx context.Context, m channel.Message) channel.Result {
	t.sent[m.AccountID].Add(1)
	return t.nothing.Send(ctx, m)
}

// wait looks every now and then.
func (t *tally) wait(b *testing.B, done func() bool) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), sendLimit)
	defer cancel()
	for !done() {
		require.NoError(b, clock.Sleep(ctx, clock.System(), time.Millisecond))
	}
}
