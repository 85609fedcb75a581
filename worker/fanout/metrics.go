package fanout

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the figures of fan-out.
type Metrics struct {
	durations  prometheus.Histogram
	recipients *prometheus.CounterVec
	leasesLost prometheus.Counter
}

// NewMetrics returns metrics registered with r; nil leaves them unregistered.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		durations: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "turumba_group_message_fanout_duration_seconds", Help: "Time from the claim of a group message to its last recipient being written, by the worker that finished it.",
			Buckets: []float64{0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800},
		}),
		recipients: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turumba_fanout_recipients_total", Help: "Recipients of group messages, by whether they got a message or were left out.",
		}, []string{"channel_type", "result"}),
		leasesLost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "turumba_fanout_leases_lost_total", Help: "Group messages that this worker was writing and somebody else took over.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.durations, m.recipients, m.leasesLost} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) written(channelType string, messages, skipped int) {
	m.recipients.WithLabelValues(channelType, "written").Add(float64(messages))
	m.recipients.WithLabelValues(channelType, "skipped").Add(float64(skipped))
}
