package telemetry

import (
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// NewRegistry returns a metrics registry with the Go runtime's and the process's
// own metrics and turumba_build_info.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "turumba_build_info",
		Help: "Always 1; the labels tell which build runs.",
	}, []string{"version", "go_version"})
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build,
	)
	build.WithLabelValues(version(), runtime.Version()).Set(1)
	return registry
}

// version returns the commit or module version that the binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return info.Main.Version
}

// LatencyBuckets returns histogram bounds in seconds, from 0.5 ms to 30 s, which
// is the deadline cap of unary calls.
func LatencyBuckets() []float64 {
	return []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
}

// Series finds the series of a histogram by a key, so that what is measured for every
// call puts its labels into words once only. It is safe for concurrent use.
type Series[K comparable] struct {
	vec    *prometheus.HistogramVec
	labels func(K) []string

	mu    sync.RWMutex
	known map[K]prometheus.Observer
}

// NewSeries finds the series of vec; labels are the values of its labels for a key.
func NewSeries[K comparable](vec *prometheus.HistogramVec, labels func(K) []string) *Series[K] {
	return &Series[K]{vec: vec, labels: labels, known: map[K]prometheus.Observer{}}
}

// Of returns the series of a key.
func (s *Series[K]) Of(key K) prometheus.Observer {
	s.mu.RLock()
	o, ok := s.known[key]
	s.mu.RUnlock()
	if ok {
		return o
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o = s.vec.WithLabelValues(s.labels(key)...)
	s.known[key] = o
	return o
}
