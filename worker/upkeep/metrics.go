package upkeep

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turumba/turumba/services/messaging/postgres"
)

// Metrics are the figures of upkeep: what waits for dispatch, over all workers, and
// what dead workers left.
type Metrics struct {
	types   []string // the channel types that are always shown
	depth   *prometheus.GaugeVec
	oldest  *prometheus.GaugeVec
	expired prometheus.Counter
	unknown *prometheus.CounterVec
	erased  *prometheus.CounterVec
}

// NewMetrics returns metrics registered with r; nil leaves them unregistered. types
// are the channel types that are shown also while nothing waits.
func NewMetrics(r prometheus.Registerer, types []string) (*Metrics, error) {
	m := &Metrics{
		types: types,
		depth: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "turumba_dispatch_queue_depth", Help: "Messages waiting for dispatch or, in the lane retry, for their next attempt. Every worker with the role upkeep tells the same: use max.",
		}, []string{"channel_type", "lane"}),
		oldest: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "turumba_dispatch_queue_oldest_seconds", Help: "Age of the oldest chunk waiting; in the lane retry, how late the earliest retry is.",
		}, []string{"channel_type", "lane"}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "turumba_leases_expired_total", Help: "Chunks taken from workers that gave no sign of life.",
		}),
		unknown: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turumba_messages_unknown_total", Help: "Messages whose outcome a dead worker took with it.",
		}, []string{"channel_type"}),
		erased: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turumba_messages_erased_total", Help: "Messages whose text was erased, by the retention of their account or on demand for a person.",
		}, []string{"by"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.depth, m.oldest, m.expired, m.unknown, m.erased} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// measureEvery is how often the queues are looked at.
const measureEvery = 10 * time.Second

func (r *Role) measure(ctx context.Context) (time.Duration, error) {
	depths, err := r.Store.QueueDepths(ctx)
	if err != nil {
		return measureEvery, err
	}
	for _, channelType := range r.Metrics.types {
		for _, lane := range []string{postgres.LaneTransactional, postgres.LaneBulk, postgres.LaneRetry} {
			r.Metrics.depth.WithLabelValues(channelType, lane).Set(0)
			r.Metrics.oldest.WithLabelValues(channelType, lane).Set(0)
		}
	}
	for _, d := range depths {
		r.Metrics.depth.WithLabelValues(d.ChannelType, d.Lane).Set(float64(d.Messages))
		r.Metrics.oldest.WithLabelValues(d.ChannelType, d.Lane).Set(d.Oldest.Seconds())
	}
	return measureEvery, nil
}
