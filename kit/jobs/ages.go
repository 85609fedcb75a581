package jobs

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turumba/turumba/kit/clock"
)

// Ages is a metric of how old the oldest of what waits is, as a loop reads it again and
// again. A reading that is not renewed goes on ageing: where the statement that measures
// fails or hangs, the metric grows instead of staying at what it was. Nothing is shown
// before Begin, so that a process without the loop says nothing.
type Ages struct {
	desc  *prometheus.Desc
	grace time.Duration

	mu       sync.Mutex
	clock    clock.Clock // nil before Begin
	at       time.Time   // of the readings
	readings []Age
}

// Age is one reading.
type Age struct {
	Labels []string
	Age    time.Duration
}

// NewAges makes the metric. A reading that is older than grace is shown as itself plus
// the time since; grace is longer than the usual time between two readings.
func NewAges(name, help string, grace time.Duration, labels ...string) *Ages {
	return &Ages{desc: prometheus.NewDesc(name, help, labels, nil), grace: grace}
}

// Begin says that readings are taken from now on; until the first, these are shown.
func (a *Ages) Begin(c clock.Clock, first ...Age) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clock, a.at, a.readings = c, c.Now(), slices.Clone(first)
}

// Set replaces the readings. It does nothing before Begin.
func (a *Ages) Set(readings ...Age) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.clock != nil {
		a.at, a.readings = a.clock.Now(), slices.Clone(readings)
	}
}

// Describe implements prometheus.Collector.
func (a *Ages) Describe(out chan<- *prometheus.Desc) { out <- a.desc }

// Collect implements prometheus.Collector.
func (a *Ages) Collect(out chan<- prometheus.Metric) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.clock == nil {
		return
	}
	since := a.clock.Now().Sub(a.at)
	if since <= a.grace {
		since = 0
	}
	for _, r := range a.readings {
		out <- prometheus.MustNewConstMetric(a.desc, prometheus.GaugeValue, (r.Age + since).Seconds(), r.Labels...)
	}
}
