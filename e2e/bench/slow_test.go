package bench_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// slowConnections are those of a slow channel.
const slowConnections = 32

// BenchmarkSlow is how much of connections / latency a send has, and a batch of single
// messages, each alone on a channel whose provider takes its time: 1 is all that is
// possible.
func BenchmarkSlow(b *testing.B) {
	s := server(b)
	for _, c := range []struct {
		name    string
		rounds  int // messages for each connection
		latency func() time.Duration
		mean    time.Duration
	}{
		{"50ms", 300, always(50 * time.Millisecond), 50 * time.Millisecond},
		{"300ms", 60, always(300 * time.Millisecond), 300 * time.Millisecond},
		{"1s", 24, always(time.Second), time.Second},
		{"3s", 12, always(3 * time.Second), 3 * time.Second},
		{"5s", 10, always(5 * time.Second), 5 * time.Second},
		{"mixed", 75, mixed, mixedMean},
	} {
		for lane, begin := range map[string]func(w *sender, n int){
			"send":    func(w *sender, n int) { w.begin(n) },
			"singles": (*sender).batch,
		} {
			b.Run(c.name+"/"+lane, func(b *testing.B) {
				url := s.URL("slow" + c.name + lane)
				require.NoError(b, pg.EnsureDatabase(b.Context(), url))
				n := c.rounds * slowConnections
				provider := &taking{latency: c.latency, all: make(chan struct{})}
				w := newSender(b, url, provider)
				w.channel = messaging.NewID()
				w.connect(messaging.SMTP{Host: "unused.example"}, slowConnections)
				for b.Loop() {
					provider.left.Store(int64(n))
					began := clock.System().Now()
					begin(w, n)
					provider.wait(b)
					rate := float64(n) / clock.System().Now().Sub(began).Seconds()
					b.ReportMetric(rate, "messages/s")
					b.ReportMetric(rate*c.mean.Seconds()/slowConnections, "of_possible")
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// batchSize is how many single messages one call stores.
const batchSize = 1000

// batch stores n single messages as calls with many of them do.
func (s *sender) batch(n int) {
	s.b.Helper()
	body := "Your parcel has come."
	for list := []*messaging.Message(nil); n > 0; list = nil {
		for ; n > 0 && len(list) < batchSize; n-- {
			list = append(list, &messaging.Message{
				AccountID: s.account, ChannelID: s.channel, ChannelType: messaging.TypeEmail, Direction: messaging.DirectionOutbound,
				Status: messaging.MessageQueued, DeliveryAddress: fmt.Sprintf("parcel-%d@example.org", n), Body: &body,
			})
		}
		s.tx(func(ctx context.Context, tx *pg.Tx) error { return s.store.CreateMessages(ctx, tx, list, nil) })
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
	left    atomic.Int64  // messages that it has not taken
	all     chan struct{} // gets one when none is left
}

// Open implements channel.Adapter.
func (t *taking) Open(channel.Settings) (channel.Sender, error) { return t, nil }

// Send implements channel.Sender.
func (t *taking) Send(ctx context.Context, m channel.Message) channel.Result {
	if clock.Sleep(ctx, clock.System(), t.latency()) != nil {
		return channel.Lost("timeout", "")
	}
	if t.left.Add(-1) == 0 {
		t.all <- struct{}{}
	}
	return t.nothing.Send(ctx, m)
}

// wait waits until all messages are taken.
func (t *taking) wait(b *testing.B) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), sendLimit)
	defer cancel()
	select {
	case <-t.all:
	case <-ctx.Done():
		b.Fatalf("%d messages were not taken", t.left.Load())
	}
}
