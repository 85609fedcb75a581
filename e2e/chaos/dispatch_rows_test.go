package chaos_test

import (
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/failpoint"
)

// dispatchRows break the dispatcher (catalogue F-40 to F-59).
func dispatchRows() []row {
	return []row{
		{"F-40", "kill after consume, before claim", quick, beside, killDispatch(failpoint.ConsumeBeforeEffect, 1, 1)},
		{"F-41", "kill after claim commit, before any byte", quick, beside, killDispatch(failpoint.DispatchAfterClaim, 2, 0)},
		{"F-42", "kill after the gate, before the first byte", smoke, beside, killCalling(failpoint.DispatchAfterGate, 0)},
		{"F-43", "kill after the response, before its commit", smoke, beside, killCalling(failpoint.DispatchAfterResponse, 2)},
		{"F-44", "kill after the commit, before the end", quick, beside, killDispatch(failpoint.DispatchAfterStore, 1, 0)},
		{"F-45", "worker frozen past its lease during the call, then awake", quick, beside, zombies},
		{"F-46", "database gone when results are stored", smoke, beside, resultsWithoutDatabase},
		{"F-47", "four sweepers", full, beside, sweepers},
		{"F-100", "a panic while a chunk is sent", quick, beside, panics},
	}
}

// killDispatch kills the worker at the point, again and again, each time with
// perKill new messages waiting. window is how many a kill may leave unknown: a worker
// that starts also looks for work by itself.
func killDispatch(point failpoint.Point, perKill, window int) func(r *trial) {
	return func(r *trial) {
		x, kills := r.tenant(0), r.times(50)
		r.worker.kill()
		for range kills {
			x.messages(perKill)
			r.killed(r.worker, point, 1)
		}
		r.may.Window = kills * window
		r.did("%d kills, %d messages", kills, len(x.accepted))
	}
}

// killCalling kills the worker when a window counts as called, with a channel that
// holds what may have arrived and one that sends it again: only the latter may send
// twice, at most what was on its way (again, for each kill).
func killCalling(point failpoint.Point, again int) func(r *trial) {
	return func(r *trial) {
		hold, resends, kills := r.tenant(0), r.tenant(0, resend), r.times(50)
		r.worker.kill()
		for range kills {
			hold.messages(2)
			resends.messages(2)
			r.killed(r.worker, point, 1)
		}
		r.may.Window, r.may.Dup = 2*kills, again*kills
		r.then = func() {
			rows, received := r.stored(), r.received()
			for _, id := range hold.accepted {
				require.LessOrEqual(r.t, len(received[id]), 1, "held message %s", id)
			}
			for _, id := range resends.accepted {
				require.Equal(r.t, "sent", rows[id].Status, "message %s is sent again", id)
			}
		}
		r.did("%d kills, %d messages held, %d sent again", kills, len(hold.accepted), len(resends.accepted))
	}
}

// panics lets the worker panic with answers in its hands, again and again: it lives and sends
// what comes next, also by the same channel, and the messages of the chunk are unknown
// when its lease is over.
func panics(r *trial) {
	const said = "panic while a chunk was sent"
	x, times := r.tenant(0), r.times(20)
	for n := range times {
		r.worker.kill()
		r.worker.start("FP=" + string(failpoint.DispatchAfterResponse) + "=panic@1")
		before := strings.Count(r.worker.log.String(), said)
		x.messages(2)
		require.Eventually(r.t, func() bool { return strings.Count(r.worker.log.String(), said) > before }, soon, blink, "the panic is logged")
		x.messages(10)
		r.eventually("all others are sent", "SELECT count(*) >= $1 FROM messages WHERE status = 'sent'", 10*(n+1))
		require.True(r.t, r.worker.runs())
		r.expire()
		r.eventually("nothing waits", "SELECT count(*) = 0 FROM dispatch_chunks")
	}
	r.may.Window = 2 * times
	r.did("%d panics, %d messages", times, len(x.accepted))
}

// zombies freezes a worker in the middle of its calls until another has taken its
// leases, and lets it go on: its late results are taken, and nothing is sent again.
func zombies(r *trial) {
	x, times := r.tenant(0), r.times(20)
	r.newWorker(r.t, "WORKER_ROLES=upkeep")
	x.proven()
	slow(r.t, r.simulator, 300)
	defer slow(r.t, r.simulator, 0)
	for range times {
		x.messages(2)
		r.eventually("both are called", "SELECT count(*) = 2 FROM dispatch_chunks WHERE state = 'leased' AND calling_upto = n")
		require.NoError(r.t, r.worker.cmd.Process.Signal(syscall.SIGSTOP))
		r.expire()
		r.eventually("both leases are taken", "SELECT count(*) = 0 FROM dispatch_chunks")
		require.NoError(r.t, r.worker.cmd.Process.Signal(syscall.SIGCONT))
		require.Eventually(r.t, func() bool { return r.metric(r.worker, "turumba_dispatch_chunks_in_work") == 0 }, soon, blink, "the late results are stored")
	}
	r.then = func() {
		rows, received, sent := r.stored(), r.received(), 0
		for id, row := range rows { // one that was marked and not begun before the freeze is not begun after it
			require.Equal(r.t, len(received[id]) > 0, row.Status == "sent", "message %s is %s", id, row.Status)
			if row.Status == "sent" {
				sent++
			}
		}
		require.Greater(r.t, sent, times, "most were called before they froze")
	}
	r.may.Window = 2 * times // marked and not begun: unknown, and the provider has none of them
	r.did("%d freezes, %d messages", times, len(x.accepted))
}

// resultsWithoutDatabase takes the database away while calls are on their way: their
// results are kept until it is back.
func resultsWithoutDatabase(r *trial) {
	x, times := r.tenant(0), r.times(20)
	x.proven()
	for range times {
		slow(r.t, r.simulator, 300)
		x.messages(4)
		r.eventually("all are called", "SELECT count(*) = 4 FROM dispatch_chunks WHERE state = 'leased' AND calling_upto = n")
		said := strings.Count(r.worker.log.String(), "outcomes not stored yet")
		r.workerDB.Refuse()
		r.workerDB.Reset()
		require.Eventually(r.t, func() bool { return strings.Count(r.worker.log.String(), "outcomes not stored yet") > said }, soon, blink)
		slow(r.t, r.simulator, 0)
		require.NoError(r.t, r.workerDB.Pass())
		r.eventually("the results are stored", "SELECT count(*) = 0 FROM messages WHERE status <> 'sent'")
	}
	r.did("%d losses of the database, %d messages", times, len(x.accepted))
}

// sweepers lets four find the leases of a dead worker at once.
func sweepers(r *trial) {
	x, times := r.tenant(0), r.times(10)
	for range 4 {
		r.newWorker(r.t, "WORKER_ROLES=upkeep")
	}
	r.worker.kill()
	for range times {
		x.messages(12)
		r.killed(r.worker, failpoint.DispatchAfterClaim, 8)
		require.Eventually(r.t, func() bool {
			r.expire() // again: what the dead one asked for last may commit after its death
			return r.number("SELECT count(*) FROM dispatch_chunks WHERE state = 'leased'") == 0
		}, soon, 20*time.Millisecond, "all leases are taken")
	}
	var twice int
	require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT count(*) - count(DISTINCT (chunk_id, epoch)) FROM chaos_recoveries").Scan(&twice))
	require.Zero(r.t, twice, "leases taken twice")
	r.may.Window = times * 12
	r.did("%d kills, %d messages", times, len(x.accepted))
}
