package bench_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// codesEvery is how often a code is sent while the campaign runs.
const codesEvery = 20 * time.Millisecond

// BenchmarkSingleInCampaign is how long single messages take from their commit to the
// provider while another account's campaign runs on the same type of channel.
func BenchmarkSingleInCampaign(b *testing.B) {
	s := server(b)
	require.NoError(b, pg.EnsureDatabase(b.Context(), s.URL("ours")))
	desk := &stopwatch{arrived: map[string]time.Time{}}
	campaign := newSender(b, s.URL("ours"), desk)
	codes := newAccount(b, campaign.store)
	for b.Loop() {
		running, ended := context.WithCancel(b.Context())
		var sending sync.WaitGroup
		sending.Go(func() {
			campaign.send()
			ended()
		})
		committed := map[string]time.Time{}
		for i := 0; running.Err() == nil; i++ {
			to := fmt.Sprintf("code-%d@example.org", i)
			codes.single(to)
			committed[to] = clock.System().Now()
			require.NoError(b, clock.Sleep(b.Context(), clock.System(), codesEvery))
		}
		sending.Wait()
		took := desk.waits(b, committed)
		b.ReportMetric(float64(len(took)), "codes")
		b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50_ms")
		b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99_ms")
	}
	b.ReportMetric(0, "ns/op")
}

// single stores one message.
func (s *sender) single(to string) {
	s.b.Helper()
	body := "Your code is 1234."
	s.tx(func(ctx context.Context, tx *pg.Tx) error {
		return s.store.CreateMessages(ctx, tx, []*messaging.Message{{
			AccountID: s.account, ChannelID: s.channel, ChannelType: messaging.TypeEmail, Direction: messaging.DirectionOutbound,
			Status: messaging.MessageQueued, DeliveryAddress: to, Body: &body,
		}}, nil)
	})
}

// stopwatch is an adapter that accepts everything and notes when codes came.
type stopwatch struct {
	nothing

	mu      sync.Mutex
	arrived map[string]time.Time
}

// Open implements channel.Adapter.
func (s *stopwatch) Open(channel.Settings) (channel.Sender, error) { return s, nil }

// Send implements channel.Sender.
func (s *stopwatch) Send(ctx context.Context, m channel.Message) channel.Result {
	if strings.HasPrefix(m.To, "code-") {
		s.mu.Lock()
		s.arrived[m.To] = clock.System().Now()
		s.mu.Unlock()
	}
	return s.nothing.Send(ctx, m)
}

// waits are how long the codes took, ascending, once all have come.
func (s *stopwatch) waits(b *testing.B, committed map[string]time.Time) []time.Duration {
	b.Helper()
	require.Eventually(b, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.arrived) == len(committed)
	}, time.Minute, 10*time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	took := make([]time.Duration, 0, len(committed))
	for to, at := range committed {
		took = append(took, max(s.arrived[to].Sub(at), 0))
	}
	clear(s.arrived)
	slices.Sort(took)
	return took
}
