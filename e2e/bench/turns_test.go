package bench_test

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
)

// turns is how often calls that cost microseconds and their reference take turns:
// so short that what else the machine does hits neighbours alike.
const turns = 40

// side is what one of the two measured ones took in its turns.
type side struct {
	rates []float64       // calls per second of each turn
	cpu   []time.Duration // of the process per call, in each turn
}

// take measures one turn of so many calls.
func (s *side) take(b *testing.B, calls int, fn func(calls int)) {
	b.Helper()
	c := clock.System()
	used, began := processor(b), c.Now()
	fn(calls)
	s.rates = append(s.rates, float64(calls)/c.Now().Sub(began).Seconds())
	s.cpu = append(s.cpu, (processor(b)-used)/time.Duration(calls))
}

// inTurns runs both in short turns of so many calls and reports the median of the
// ratios of neighbours, and of each its median rate and what a call cost this
// process in CPU, the client included.
func inTurns(b *testing.B, calls int, ours, reference func(calls int)) {
	b.Helper()
	for b.Loop() {
		ours(calls)
		reference(calls) // caches are warm
		var mine, theirs side
		ratios := make([]float64, turns)
		for i := range ratios {
			theirs.take(b, calls, reference)
			mine.take(b, calls, ours)
			ratios[i] = mine.rates[i] / theirs.rates[i]
		}
		b.ReportMetric(median(mine.rates), "calls/s")
		b.ReportMetric(float64(median(mine.cpu).Nanoseconds())/1000, "cpu_us/call")
		b.ReportMetric(median(theirs.rates), "reference_calls/s")
		b.ReportMetric(float64(median(theirs.cpu).Nanoseconds())/1000, "reference_cpu_us/call")
		b.ReportMetric(median(ratios), "ratio")
	}
	b.ReportMetric(0, "ns/op")
}

func median[T float64 | time.Duration](list []T) T {
	slices.Sort(list)
	return list[len(list)/2]
}

// processor is the CPU time that this process has used.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
