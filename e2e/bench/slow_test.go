package bench_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// slowConnections are those of a slow channel, slowBulk the part of them that sends have.
const slowConnections, slowBulk = 32, 24

// BenchmarkSlow is how much of connections / latency a group send has behind a provider
// that takes its time: 1 is all that is possible.
func BenchmarkSlow(b *testing.B) {
	s := server(b)
	for _, c := range []struct {
		name    string
		people  int
		latency func() time.Duration
		mean    time.Duration
	}{
		{"50ms", 400 * slowBulk, always(50 * time.Millisecond), 50 * time.Millisecond},
		{"300ms", 60 * slowBulk, always(300 * time.Millisecond), 300 * time.Millisecond},
		{"1s", 20 * slowBulk, always(time.Second), time.Second},
		{"3s", 10 * slowBulk, always(3 * time.Second), 3 * time.Second},
		{"5s", 8 * slowBulk, always(5 * time.Second), 5 * time.Second},
		{"mixed", 100 * slowBulk, mixed, mixedMean},
	} {
		b.Run(c.name, func(b *testing.B) {
			url := s.URL("slow" + c.name)
			require.NoError(b, pg.EnsureDatabase(b.Context(), url))
			provider := &taking{latency: c.latency}
			w := newSender(b, url, provider)
			w.channel = messaging.NewID()
			w.connect(messaging.SMTP{Host: "unused.example"}, slowConnections)
			for b.Loop() {
				began := clock.System().Now()
				w.end(w.begin(c.people), c.people)
				rate := float64(c.people) / clock.System().Now().Sub(began).Seconds()
				b.ReportMetric(rate, "messages/s")
				b.ReportMetric(rate*c.mean.Seconds()/slowBulk, "of_possible")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// mixed is what providers do: 300 to 450 ms, and one call in a hundred takes 1.6 s.
func mixed() time.Duration {
	if rand.IntN(100) == 0 {
		return 1600 * time.Millisecond
	}
	return 300*time.Millisecond + rand.N(150*time.Millisecond)
}

// mixedMean is the mean of mixed.
const mixedMean = (99*375 + 1600) * time.Millisecond / 100

// taking is an adapter that accepts everything after a while.
type taking struct {
	nothing

	latency func() time.Duration
}

// Open implements channel.Adapter.
func (t *taking) Open(channel.Settings) (channel.Sender, error) { return t, nil }

// Send implements channel.Sender.
func (t *taking) Send(ctx context.Context, m channel.Message) channel.Result {
	if clock.Sleep(ctx, clock.System(), t.latency()) != nil {
		return channel.Lost("timeout", "")
	}
	return t.nothing.Send(ctx, m)
}
