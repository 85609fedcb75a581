package jobs_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
)

// TestAges: a reading is shown as it is while it is fresh, and goes on ageing when
// nobody renews it, also from the first moment on.
func TestAges(t *testing.T) {
	t.Parallel()
	c, registry := clock.NewFake(time.Unix(1_770_000_000, 0)), prometheus.NewRegistry()
	a := jobs.NewAges("oldest_seconds", "Age.", 20*time.Second, "lane")
	require.NoError(t, registry.Register(a))
	shown := func() []float64 {
		families, err := registry.Gather()
		require.NoError(t, err)
		var values []float64
		for _, f := range families {
			for _, m := range f.GetMetric() {
				values = append(values, m.GetGauge().GetValue())
			}
		}
		return values
	}
	a.Set(jobs.Age{Labels: []string{"bulk"}, Age: time.Minute})
	require.Empty(t, shown(), "nobody measures here")
	a.Begin(c, jobs.Age{Labels: []string{"bulk"}})
	require.Equal(t, []float64{0}, shown())
	c.Advance(21 * time.Second)
	require.Equal(t, []float64{21}, shown(), "the first reading never came")
	a.Set(jobs.Age{Labels: []string{"bulk"}, Age: 5 * time.Second}, jobs.Age{Labels: []string{"transactional"}})
	c.Advance(20 * time.Second)
	require.Equal(t, []float64{5, 0}, shown())
	c.Advance(time.Second)
	require.Equal(t, []float64{26, 21}, shown())
	c.Advance(time.Hour)
	require.Equal(t, []float64{3626, 3621}, shown())
	a.Set(jobs.Age{Labels: []string{"bulk"}})
	require.Equal(t, []float64{0}, shown())
}
