package bench_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/embedded"
)

// rounds is how often ours and the reference take turns.
const rounds = 9

// compare runs both in turns and reports of each its median rate, and the median of the
// ratios of neighbours: what the machine does besides hits neighbours alike, and a best
// round would favour the one whose rounds are shorter. Each does its work and returns how
// many units it was; prepare is not timed.
func compare(b *testing.B, unit string, prepare func(), ours, reference func() int) {
	b.Helper()
	rate := func(fn func() int) float64 {
		c := clock.System()
		began := c.Now()
		n := fn()
		return float64(n) / c.Now().Sub(began).Seconds()
	}
	for b.Loop() {
		var mine, theirs, ratios []float64
		for range 1 + rounds {
			prepare()
			theirs = append(theirs, rate(reference))
			mine = append(mine, rate(ours))
			ratios = append(ratios, mine[len(mine)-1]/theirs[len(theirs)-1])
		}
		// The first round warmed caches up.
		b.ReportMetric(median(mine[1:]), unit+"/s")
		b.ReportMetric(median(theirs[1:]), "reference_"+unit+"/s")
		b.ReportMetric(median(ratios[1:]), "ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// server is a PostgreSQL with fsync on.
func server(b *testing.B) *embedded.Server {
	b.Helper()
	s, err := embedded.Start(b.Context(), embedded.Options{DataDir: b.TempDir(), Clock: clock.System(), Settings: statementSettings()})
	require.NoError(b, err)
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(b.Context()), 20*time.Second)
		defer cancel()
		require.NoError(b, s.Stop(ctx))
	})
	return s
}

func pool(b *testing.B, url string) *pgxpool.Pool {
	b.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	require.NoError(b, err)
	cfg.AfterConnect = pg.RegisterTypes // the reference encodes ids like ours
	p, err := pgxpool.NewWithConfig(b.Context(), cfg)
	require.NoError(b, err)
	b.Cleanup(p.Close)
	return p
}
