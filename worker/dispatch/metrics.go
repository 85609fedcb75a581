package dispatch

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// Metrics are the figures of dispatch. Their labels are words of ours: channel types,
// providers, states, classes; never an account, a channel or an address.
type Metrics struct {
	dispatched *prometheus.CounterVec
	durations  *prometheus.HistogramVec
	rateLimits *prometheus.CounterVec
	pauses     *prometheus.CounterVec
	leasesLost *prometheus.CounterVec
	chunks     *prometheus.GaugeVec
	failures   *failureRate
}

// Why a channel's messages had to wait.
const (
	byChannel  = "channel"  // its own rate
	byProvider = "provider" // the provider said so
)

// NewMetrics returns metrics registered with r; nil leaves them unregistered.
func NewMetrics(r prometheus.Registerer, c clock.Clock) (*Metrics, error) {
	m := &Metrics{
		dispatched: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turumba_messages_dispatched_total", Help: "Messages that got an outcome: the state it brought them to and the adapter's class, refused for those that were not sent.",
		}, []string{"channel_type", "provider", "status", "class"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "turumba_dispatch_duration_seconds", Help: "Time of one call of a provider's adapter.", Buckets: telemetry.LatencyBuckets(),
		}, []string{"channel_type", "provider"}),
		rateLimits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turumba_rate_limit_hits_total", Help: "Times that messages had to wait for the channel's own rate or because the provider throttled.",
		}, []string{"channel_type", "by"}),
		pauses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turumba_channel_pauses_total", Help: "Times that a channel stopped sending, by the class of what the provider said.",
		}, []string{"channel_type", "class"}),
		leasesLost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turumba_dispatch_leases_lost_total", Help: "Chunks that this worker had in work and somebody else took over.",
		}, []string{"lane"}),
		chunks: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "turumba_dispatch_chunks_in_work", Help: "Chunks that this worker has in work.",
		}, []string{"lane"}),
		failures: &failureRate{clock: c, types: map[string]*[failureSlots]failureSlot{}},
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.dispatched, m.durations, m.rateLimits, m.pauses, m.leasesLost, m.chunks, m.failures} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// outcomeLabels are what outcomes of one window are counted by.
type outcomeLabels struct{ status, class string }

// outcomes counts a window of a channel.
func (m *Metrics) outcomes(c *messaging.Channel, list []messaging.Outcome) {
	counted := map[outcomeLabels]int{}
	failed := 0
	for _, o := range list {
		l := outcomeLabels{o.Status, o.Class}
		if l.class == "" {
			l.class = "refused"
		} else if o.Class != channel.ClassOK.String() {
			failed++
		}
		counted[l]++
	}
	for l, n := range counted {
		m.dispatched.WithLabelValues(c.ChannelType, c.Provider, l.status, l.class).Add(float64(n))
	}
	m.failures.add(c.ChannelType, len(list), failed)
}

// failureRate is the share of calls of the last five minutes that did not succeed,
// for those who look at a figure rather than at a rate of counters.
type failureRate struct {
	clock clock.Clock
	mu    sync.Mutex
	types map[string]*[failureSlots]failureSlot
}

const (
	failureSlots = 30
	slotLength   = 10 * time.Second
)

// failureSlot is what happened in ten seconds, number at of them since 1970.
type failureSlot struct {
	at            int64
	calls, failed int
}

func (f *failureRate) slot() int64 { return f.clock.Now().UnixNano() / int64(slotLength) }

func (f *failureRate) add(channelType string, calls, failed int) {
	at := f.slot()
	f.mu.Lock()
	defer f.mu.Unlock()
	ring := f.types[channelType]
	if ring == nil {
		ring = new([failureSlots]failureSlot)
		f.types[channelType] = ring
	}
	s := &ring[at%failureSlots]
	if s.at != at {
		*s = failureSlot{at: at}
	}
	s.calls += calls
	s.failed += failed
}

var failureRateDesc = prometheus.NewDesc("turumba_dispatch_failure_rate", "Share of provider calls of the last five minutes that did not succeed, 0 to 1.", []string{"channel_type"}, nil)

// Describe implements prometheus.Collector.
func (f *failureRate) Describe(out chan<- *prometheus.Desc) { out <- failureRateDesc }

// Collect implements prometheus.Collector.
func (f *failureRate) Collect(out chan<- prometheus.Metric) {
	oldest := f.slot() - failureSlots
	f.mu.Lock()
	defer f.mu.Unlock()
	for channelType, ring := range f.types {
		calls, failed := 0, 0
		for _, s := range ring {
			if s.at > oldest {
				calls, failed = calls+s.calls, failed+s.failed
			}
		}
		out <- prometheus.MustNewConstMetric(failureRateDesc, prometheus.GaugeValue, float64(failed)/float64(max(calls, 1)), channelType)
	}
}
