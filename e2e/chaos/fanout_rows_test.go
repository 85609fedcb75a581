package chaos_test

import (
	"github.com/turumba/turumba/kit/failpoint"
)

// fanoutRows break the fan-out of sends (catalogue F-30 to F-36).
func fanoutRows() []row {
	return []row{
		{"F-30", "kill at the first, a middle and the last batch, and before the end", true, killFanout},
		{"F-32", "several workers take the same send", true, fanoutRivals},
	}
}

// killFanout kills the worker at each step of a send to five batches.
func killFanout(r *trial) {
	x, rounds := r.tenant(2100), r.times(3)-1
	steps := []struct {
		point failpoint.Point
		nth   int
	}{
		{failpoint.FanoutBeforeBatch, 1},
		{failpoint.FanoutAfterBatch, 1},
		{failpoint.FanoutBeforeBatch, 2},
		{failpoint.FanoutAfterBatch, 3},
		{failpoint.FanoutBeforeEnd, 1},
	}
	for range rounds {
		r.worker.kill()
		x.send()
		for _, s := range steps {
			r.killed(r.worker, s.point, s.nth)
			r.expire()
		}
		r.worker.start()
		r.eventually("the send has all its recipients", "SELECT count(*) = 0 FROM fanout_jobs")
	}
	r.may.Window = rounds * len(steps) * inFlight
	r.did("%d kills in %d sends to %d", rounds*len(steps), rounds, len(x.contacts))
}

// fanoutRivals lets three workers take sends at once.
func fanoutRivals(r *trial) {
	x, times := r.tenant(600), r.times(5)
	r.newWorker(r.t, "WORKER_ROLES=fanout")
	r.newWorker(r.t, "WORKER_ROLES=fanout")
	for range times {
		x.send()
	}
	r.did("%d sends to %d, three workers", times, len(x.contacts))
}
