package bus

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Measured returns b with its figures registered with r: what was published and
// handled, by queue. Queues come from the topology, so their names are few.
func Measured(b Bus, r prometheus.Registerer) (Bus, error) {
	m := &measured{
		Bus: b,
		published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turumba_bus_published_total", Help: "Messages given to the bus, by whether it took them.",
		}, []string{"result"}),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turumba_bus_handled_total", Help: "Deliveries handled, by queue. A message that fails five times goes to the dead letters.",
		}, []string{"queue", "result"}),
	}
	for _, c := range []prometheus.Collector{m.published, m.handled} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

type measured struct {
	Bus
	published, handled *prometheus.CounterVec
}

// Publish implements Publisher.
func (m *measured) Publish(ctx context.Context, messages []Message) []error {
	results := m.Bus.Publish(ctx, messages)
	failed := 0
	for _, err := range results {
		if err != nil {
			failed++
		}
	}
	m.published.WithLabelValues(result(false)).Add(float64(len(results) - failed))
	m.published.WithLabelValues(result(true)).Add(float64(failed))
	return results
}

// Consume implements Consumer.
func (m *measured) Consume(ctx context.Context, queue string, prefetch int, h Handler) error {
	ok, failed := m.handled.WithLabelValues(queue, result(false)), m.handled.WithLabelValues(queue, result(true))
	return m.Bus.Consume(ctx, queue, prefetch, func(ctx context.Context, message Message) error {
		count := failed // a panic counts as well
		defer func() { count.Inc() }()
		err := h(ctx, message)
		if err == nil {
			count = ok
		}
		return err
	})
}

func result(failed bool) string {
	if failed {
		return "failed"
	}
	return "ok"
}
