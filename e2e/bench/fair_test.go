package bench_test

import (
	"context"
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

// The campaigns that share a type of channel: that of the first account, and how much
// later that of the second begins; FAIR_MESSAGES and FAIR_OFFSET ask for others. The
// second is half as large.
const (
	fairMessages = 200_000
	fairOffset   = 2 * time.Second
)

// BenchmarkFairShares is how two accounts' campaigns share the worker while both run.
func BenchmarkFairShares(b *testing.B) {
	n, offset := sizeOf(b, "FAIR_MESSAGES", fairMessages), fairOffset
	if text := os.Getenv("FAIR_OFFSET"); text != "" {
		var err error
		offset, err = time.ParseDuration(text)
		require.NoError(b, err)
	}
	s := server(b)
	require.NoError(b, pg.EnsureDatabase(b.Context(), s.URL("ours")))
	desk := &tally{sent: map[string]*atomic.Int64{}}
	early := newSender(b, s.URL("ours"), desk)
	late := newAccount(b, early.store)
	desk.sent[early.account], desk.sent[late.account] = new(atomic.Int64), new(atomic.Int64)
	for b.Loop() {
		one, other := desk.sent[early.account], desk.sent[late.account]
		began, first := early.begin(n), one.Load()
		require.NoError(b, clock.Sleep(b.Context(), clock.System(), offset))
		second := late.begin(n / 2)
		desk.wait(b, func() bool { return other.Load() > 0 })
		from := [2]int64{one.Load(), other.Load()}
		desk.wait(b, func() bool { return one.Load() == first+int64(n) || other.Load() == int64(n/2) })
		mine, theirs := float64(one.Load()-from[0]), float64(other.Load()-from[1])
		b.Logf("before %d, in both: %.0f %.0f", from[0], mine, theirs)
		b.ReportMetric(theirs/(mine+theirs), "share_of_late")
		b.ReportMetric(math.Abs(theirs/(mine+theirs)-0.5)/0.5, "deviation")
		early.end(began, n)
		late.end(second, n/2)
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
