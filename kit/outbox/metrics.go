package outbox

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/jobs"
)

// Metrics are the figures of one or more relays.
type Metrics struct {
	published   prometheus.Counter
	failures    *prometheus.CounterVec
	alarms      prometheus.Counter
	unpublished prometheus.Gauge
	oldest      *jobs.Ages
	latency     prometheus.Histogram
}

// NewMetrics returns metrics registered with r; nil leaves them unregistered. To
// tell several databases apart, give each its own labels by
// prometheus.WrapRegistererWith.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		published: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "turumba_outbox_published_total", Help: "Events published and marked.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turumba_outbox_failures_total", Help: "Failed attempts to publish: events, or batches where the broker or the database was away.",
		}, []string{"reason"}),
		alarms: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "turumba_outbox_alarms_total", Help: "Events, or the whole relay, that failed ten more times in a row.",
		}),
		unpublished: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "turumba_outbox_pending_count", Help: "Events waiting, counted up to 10 001.",
		}),
		oldest: jobs.NewAges("turumba_outbox_oldest_seconds", "Age of the oldest event waiting, which grows on where it cannot be measured.", 2*sampleEvery),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "turumba_outbox_latency_seconds", Help: "Time from the transaction of an event to its confirm.",
			Buckets: []float64{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30, 300, 3600},
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.published, m.failures, m.alarms, m.unpublished, m.oldest, m.latency} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// reason is the label of a failure.
func reason(err error) string {
	for _, known := range []struct {
		err  error
		name string
	}{
		{bus.ErrUnroutable, "unroutable"},
		{bus.ErrFull, "full"},
		{bus.ErrRejected, "rejected"},
		{bus.ErrUnconfirmed, "unconfirmed"},
		{bus.ErrInvalid, "invalid"},
		{bus.ErrUnavailable, "unavailable"},
		{bus.ErrClosed, "unavailable"},
	} {
		if errors.Is(err, known.err) {
			return known.name
		}
	}
	return "database"
}
