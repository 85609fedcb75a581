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

// BenchmarkSlow is how much of connections / latency a send has, and single messages, each
// alone on a channel whose provider takes its time: 1 is all that is possible, and 0.9 is
// wanted.
func BenchmarkSlow(b *testing.B) {
	for _, c := range []slowCase{
		{"50ms", 32, 300, always(50 * time.Millisecond), 50 * time.Millisecond},
		{"300ms", 32, 60, always(300 * time.Millisecond), 300 * time.Millisecond},
		{"1s", 32, 24, always(time.Second), time.Second},
		{"3s", 32, 12, always(3 * time.Second), 3 * time.Second},
		{"5s", 32, 10, always(5 * time.Second), 5 * time.Second},
		{"mixed", 32, 75, mixed, mixedMean},
	} {
		for _, lane := range []string{"send", "batch"} {
			b.Run(c.name+"/"+lane, func(b *testing.B) { c.run(b, lane) })
		}
	}
}

// BenchmarkSlowConnections is the same for other numbers of connections, and for single
// messages that are stored one by one.
func BenchmarkSlowConnections(b *testing.B) {
	for _, c := range []slowCase{
		{"1", 1, 200, always(50 * time.Millisecond), 50 * time.Millisecond},
		{"2", 2, 40, always(300 * time.Millisecond), 300 * time.Millisecond},
		{"4", 4, 40, always(300 * time.Millisecond), 300 * time.Millisecond},
		{"16", 16, 40, always(300 * time.Millisecond), 300 * time.Millisecond},
		{"64", 64, 40, always(300 * time.Millisecond), 300 * time.Millisecond},
	} {
		for lane := range slowLanes {
			b.Run(c.name+"/"+lane, func(b *testing.B) { c.run(b, lane) })
		}
	}
}

// slowLanes are the ways to queue n messages.
var slowLanes = map[string]func(s *sender, n int){
	"send":       func(s *sender, n int) { s.begin(n) },
	"batch":      func(s *sender, n int) { s.batch(n, batchSize) },
	"one_by_one": func(s *sender, n int) { s.batch(n, 1) },
}

// slowCase is a channel with so many connections, each of which gets so many messages.
type slowCase struct {
	name                string
	connections, rounds int
	latency             func() time.Duration
	mean                time.Duration
}

func (c slowCase) run(b *testing.B, lane string) {
	b.Helper()
	url := server(b).URL("slow" + c.name + lane)
	require.NoError(b, pg.EnsureDatabase(b.Context(), url))
	n := c.rounds * c.connections
	provider := &taking{latency: c.latency, all: make(chan struct{})}
	w := newSender(b, url, provider)
	w.channel = messaging.NewID()
	w.connect(messaging.SMTP{Host: "unused.example"}, int32(c.connections)) //nolint:gosec // a few
	for b.Loop() {
		provider.left.Store(int64(n))
		began := clock.System().Now()
		slowLanes[lane](w, n)
		provider.wait(b)
		rate := float64(n) / clock.System().Now().Sub(began).Seconds()
		b.ReportMetric(rate, "messages/s")
		b.ReportMetric(rate*c.mean.Seconds()/float64(c.connections), "of_possible")
	}
	b.ReportMetric(0, "ns/op")
}

// batchSize is how many single messages one call stores at most.
const batchSize = 1000

// batch stores n single messages, so many at a time.
func (s *sender) batch(n, size int) {
	s.b.Helper()
	body := "Your parcel has come."
	for list := []*messaging.Message(nil); n > 0; list = nil {
		for ; n > 0 && len(list) < size; n-- {
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
