package chaos_test

import (
	"time"

	"github.com/stretchr/testify/require"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/failpoint"
)

// fanoutRows break the fan-out of sends (catalogue F-30 to F-36).
func fanoutRows() []row {
	return []row{
		{"F-30", "kill at the first, a middle and the last batch, and before the end", true, killFanout},
		{"F-32", "several workers take the same send", true, fanoutRivals},
		{"F-34", "cancel at half", false, cancelAtHalf},
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

// cancelAtHalf cancels a send when half of its recipients have their outcome: two
// seconds later nothing starts any more.
func cancelAtHalf(r *trial) {
	x := r.tenant(600)
	slow(r.t, r.simulator, 200)
	defer slow(r.t, r.simulator, 0)
	id := x.send()
	r.eventually("half is sent", "SELECT sent_count >= 300 FROM group_messages WHERE id = $1", id)
	_, err := messagingv1.NewGroupMessageServiceClient(r.messagingConn).CancelGroupMessage(x.ctx(), &messagingv1.CancelGroupMessageRequest{GroupMessageId: id})
	require.NoError(r.t, err)
	limit := r.now().Add(2*time.Second + 200*time.Millisecond) // the journal notes when a message has come
	r.eventually("the rest is cancelled", "SELECT status = 'cancelled' AND pending_count = 0 FROM group_messages WHERE id = $1", id)
	r.then = func() {
		var sent, cancelled int
		require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT sent_count, cancelled_count FROM group_messages WHERE id = $1", id).Scan(&sent, &cancelled))
		require.Positive(r.t, cancelled)
		require.Equal(r.t, len(x.contacts), sent+cancelled)
		for _, times := range r.received() {
			require.True(r.t, times[0].Before(limit), "sent at %s, cancelled 2 s before %s", times[0], limit)
		}
	}
	r.did("one send to %d", len(x.contacts))
}
