package chaos_test

import (
	"fmt"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/failpoint"
)

// relayRows break the way from the outbox to the broker (catalogue F-10 to F-19).
func relayRows() []row {
	return []row{
		{"F-10", "kill the relay after claim, publish, confirm and mark", true, killRelay},
		{"F-13", "four relays", true, relayRivals},
		{"F-14", "events that commit in another order", true, lateCommit},
	}
}

// relayBatch is the most events of one batch: what a kill may publish twice.
const relayBatch = 500

func killRelay(r *trial) {
	x, kills := r.tenant(0), r.times(25)
	r.audit()
	points := []failpoint.Point{failpoint.RelayAfterClaim, failpoint.BusAfterPublish, failpoint.RelayAfterConfirm, failpoint.RelayAfterMark}
	r.worker.kill()
	for range kills {
		for _, p := range points {
			x.messages(1)
			r.killed(r.worker, p, 1)
		}
	}
	r.may.Window = kills * len(points) // it dispatches too
	r.then = func() {
		published, twice := r.audit()
		var lost int
		for _, id := range r.events() {
			if !published[id] {
				lost++
			}
		}
		require.Zero(r.t, lost, "events that never reached the broker")
		require.LessOrEqual(r.t, twice, kills*len(points)*relayBatch)
		r.note += fmt.Sprintf(", %d events, %d of them twice at the broker", len(r.events()), twice)
	}
	r.did("%d kills, %d messages", kills*len(points), len(x.accepted))
}

func relayRivals(r *trial) {
	x := r.tenant(0)
	r.audit()
	for range 3 {
		r.newWorker(r.t, "WORKER_ROLES=relay")
	}
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() { x.messages(r.times(100)) })
	}
	clients.Wait()
	r.then = func() {
		published, twice := r.audit()
		for _, id := range r.events() {
			require.True(r.t, published[id], "event %s is at the broker", id)
		}
		require.Zero(r.t, twice, "events twice at the broker")
	}
	r.did("four relays, %d messages", len(x.accepted))
}

// lateCommit publishes what commits late although something later was published.
func lateCommit(r *trial) {
	const insert = `INSERT INTO outbox_events (id, event_type, aggregate_type, aggregate_id, payload)
		VALUES (gen_random_uuid(), 'group_message.created', 'group_message', $1, '{}')`
	const published = "SELECT count(*) = 1 FROM outbox_events WHERE aggregate_id = $1 AND published_at IS NOT NULL"
	times := r.times(50)
	for n := range times {
		early, late := fmt.Sprintf("early %d", n), fmt.Sprintf("late %d", n)
		tx, err := r.sql.Begin(r.t.Context())
		require.NoError(r.t, err)
		_, err = tx.Exec(r.t.Context(), insert, early)
		require.NoError(r.t, err)
		_, err = r.sql.Exec(r.t.Context(), insert, late)
		require.NoError(r.t, err)
		r.eventually("the later event is published", published, late)
		require.NoError(r.t, tx.Commit(r.t.Context()))
		r.eventually("the earlier event is published", published, early)
	}
	r.did("%d pairs of events", times)
}

// audit takes what the broker has got since the last call: the ids of events, and how
// many came again.
func (r *trial) audit() (ids map[string]bool, twice int) {
	r.t.Helper()
	conn, err := amqp.Dial(r.broker.URL())
	require.NoError(r.t, err)
	defer func() { require.NoError(r.t, conn.Close()) }()
	ch, err := conn.Channel()
	require.NoError(r.t, err)
	ids = map[string]bool{}
	for {
		m, more, err := ch.Get("messaging_audit", true)
		require.NoError(r.t, err)
		if !more {
			return ids, twice
		}
		if ids[m.MessageId] {
			twice++
		}
		ids[m.MessageId] = true
	}
}

// events are the ids of those of the row's accounts.
func (r *trial) events() []string {
	r.t.Helper()
	accounts := make([]string, len(r.of))
	for i, x := range r.of {
		accounts[i] = x.account
	}
	ids, err := lines(r.t.Context(), r.sql, "SELECT id::text FROM outbox_events WHERE payload->>'account_id' = ANY ($1) AND event_type LIKE 'message.%'", accounts)
	require.NoError(r.t, err)
	return ids
}
