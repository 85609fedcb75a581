package upkeep

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// Metrics are the figures of upkeep: what waits for dispatch, over all workers, and
// what dead workers left.
type Metrics struct {
	types   []string // the channel types that are always shown
	depth   *prometheus.GaugeVec
	oldest  *jobs.Ages
	held    prometheus.Gauge
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
		oldest: jobs.NewAges("turumba_dispatch_queue_oldest_seconds",
			"Age of the oldest chunk waiting; in the lane retry, how late the earliest retry is. It grows on where it cannot be measured.", 2*measureEvery, "channel_type", "lane"),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "turumba_sending_held_seconds", Help: "For how long an operator has held what is to be sent (turumba hold); 0 while nothing is held.",
		}),
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
	for _, c := range []prometheus.Collector{m.depth, m.oldest, m.held, m.expired, m.unknown, m.erased} {
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
	r.Metrics.show(depths)
	return measureEvery, r.measureHold(ctx)
}

// measureHold shows whether something is held, and says in the log when that changes.
func (r *Role) measureHold(ctx context.Context) error {
	h, err := r.Store.Held(ctx)
	if err != nil {
		return err
	}
	if held := h != nil; held != r.held {
		r.held = held
		if held {
			r.Logger.WarnContext(ctx, "nothing is sent: held until turumba release", "reason", h.Reason, "held_at", h.HeldAt)
		} else {
			r.Logger.InfoContext(ctx, "what was held is sent again")
		}
	}
	r.Metrics.held.Set(0)
	if h != nil {
		r.Metrics.held.Set(r.Clock.Now().Sub(h.HeldAt).Seconds())
	}
	return nil
}

// begin says that this process measures.
func (m *Metrics) begin(c clock.Clock) { m.oldest.Begin(c, m.none()...) }

// none is no age in any lane of the types that are always shown.
func (m *Metrics) none() (list []jobs.Age) {
	for _, channelType := range m.types {
		for _, lane := range []string{postgres.LaneTransactional, postgres.LaneBulk, postgres.LaneRetry} {
			list = append(list, jobs.Age{Labels: []string{channelType, lane}})
		}
	}
	return list
}

// show shows what waits.
func (m *Metrics) show(depths []postgres.QueueDepth) {
	ages := map[[2]string]time.Duration{}
	for _, none := range m.none() {
		m.depth.WithLabelValues(none.Labels...).Set(0)
		ages[[2]string(none.Labels)] = 0
	}
	for _, d := range depths {
		m.depth.WithLabelValues(d.ChannelType, d.Lane).Set(float64(d.Messages))
		ages[[2]string{d.ChannelType, d.Lane}] = d.Oldest
	}
	var list []jobs.Age
	for labels, age := range ages {
		list = append(list, jobs.Age{Labels: labels[:], Age: age})
	}
	m.oldest.Set(list...)
}
