package chaos_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/chaos/fault"
	"github.com/turumba/turumba/kit/failpoint"
	"github.com/turumba/turumba/worker/relay"
)

// relayRows break the way from the outbox to the broker (catalogue F-10 to F-19).
func relayRows() []row {
	return []row{
		{"F-10", "kill the relay after claim, publish, confirm and mark", smoke, beside, killRelay},
		{"F-11", "a backlog of 100 000 after five minutes without a broker", full, alone, backlog},
		{"F-12", "a queue deleted and a binding removed", quick, beside, unroutable},
		{"F-13", "four relays", quick, beside, relayRivals},
		{"F-14", "events that commit in another order", full, beside, lateCommit},
		{"F-15", "confirms that never come", full, beside, noConfirms},
		{"F-16", "a broker short of memory", full, beside, blockedBroker},
		{"F-17", "kill the broker under load", full, beside, killBroker},
		{"F-18", "a broker that falls silent", quick, beside, silentBroker},
		{"F-19", "wake-ups that are lost", quick, beside, lostWakeUps},
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
		r.rand.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
		for _, p := range points {
			x.messages(1 + r.rand.IntN(3))
			r.killed(r.worker, p, 1)
		}
	}
	r.may.Window = 3 * kills * len(points) // it dispatches too
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
		VALUES (gen_random_uuid(), 'message.created', 'message', $1, '{}')`
	const published = "SELECT count(*) = 1 FROM outbox_events WHERE aggregate_id = $1 AND published_at IS NOT NULL"
	times := r.times(50)
	wake := func() { // as who commits does
		_, err := r.sql.Exec(r.t.Context(), "SELECT pg_notify('outbox_channel', '')")
		require.NoError(r.t, err)
	}
	for n := range times {
		early, late := fmt.Sprintf("early %d", n), fmt.Sprintf("late %d", n)
		tx, err := r.sql.Begin(r.t.Context())
		require.NoError(r.t, err)
		_, err = tx.Exec(r.t.Context(), insert, early)
		require.NoError(r.t, err)
		_, err = r.sql.Exec(r.t.Context(), insert, late)
		require.NoError(r.t, err)
		wake()
		r.eventually("the later event is published", published, late)
		require.NoError(r.t, tx.Commit(r.t.Context()))
		wake()
		r.eventually("the earlier event is published", published, early)
	}
	r.did("%d pairs of events", times)
}

// backlog takes the broker from a relay until 100 000 events, the oldest five minutes
// old, wait for it, and lets it go on.
func backlog(r *trial) {
	const age = 5 * time.Minute
	n, alone := r.times(100_000), r.relayAlone()
	oldest := func() float64 { return r.metric(alone, "turumba_outbox_oldest_seconds") }
	defer r.onBroker(func(ch *amqp.Channel) error { // nobody reads all of them one by one
		_, err := ch.QueuePurge("messaging_audit", false)
		return err
	})
	r.amqp.Refuse()
	r.amqp.Reset()
	r.storeEvents(n, "message.created", age)
	var waits float64
	require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT extract(epoch FROM now() - min(created_at)) FROM outbox_events WHERE published_at IS NULL").Scan(&waits))
	require.Eventually(r.t, func() bool { return oldest() >= waits }, soon, blink, "the age of the oldest event rises")
	n = r.unpublished()
	require.NoError(r.t, r.amqp.Pass())
	r.eventually("the first are published", "SELECT ("+unpublishedSQL+") < $1", n)
	began, drained := r.unpublished(), stopwatch()
	var memory float64
	require.Eventually(r.t, func() bool {
		memory = max(memory, r.metric(alone, "process_resident_memory_bytes"))
		return r.unpublished() == 0 // it counts what is left, so seldom
	}, patience, 500*time.Millisecond, "all are published")
	rate := float64(began) / drained().Seconds()
	require.GreaterOrEqual(r.t, rate, 500*float64(min(runtime.NumCPU(), 4)), "events in a second")
	require.LessOrEqual(r.t, memory, 150e6, "bytes of memory")
	require.Eventually(r.t, func() bool { return oldest() == 0 }, soon, blink, "the age of the oldest event falls")
	r.did("%d events drained at %.0f/s, oldest %.0f s, memory %.0f MB", n, rate, waits, memory/1e6)
}

// unroutable deletes a queue that a relay publishes to, and removes a binding: the
// events stay unpublished, with an alarm, until there is a queue again.
func unroutable(r *trial) {
	x, n := r.tenant(0), 2+r.rand.IntN(5)
	alone := r.relayAlone()
	r.onBroker(func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(dispatchQueue, false, false, false)
		return err
	})
	x.messages(n)
	const returned = "FROM outbox_events WHERE published_at IS NULL AND last_error LIKE '%unroutable%'"
	r.eventually("the events came back", fmt.Sprintf("SELECT count(*) = %d %s", n, returned))
	_, err := r.sql.Exec(r.t.Context(), "UPDATE outbox_events SET attempts = 9, due_at = now() WHERE id IN (SELECT id "+returned+")")
	require.NoError(r.t, err)
	require.Eventually(r.t, func() bool { return r.metric(alone, "turumba_outbox_alarms_total") >= float64(n) }, soon, blink, "an alarm")
	require.Equal(r.t, n, r.unpublished())
	r.worker.start() // declares what is missing
	r.hurry()
	r.eventually("all are published", "SELECT ("+unpublishedSQL+") = 0")
	alone.kill()

	r.onBroker(func(ch *amqp.Channel) error {
		return ch.QueueUnbind(dispatchQueue, dispatchQueue, "messaging", nil)
	})
	x.messages(1)
	r.eventually("the event is published", "SELECT ("+unpublishedSQL+") = 0")
	r.eventually("at the second attempt", "SELECT attempts >= 2 FROM outbox_events WHERE event_type = $1 ORDER BY created_at DESC LIMIT 1", dispatchQueue)
	r.did("%d events without a queue, one without a binding, %d messages", n, len(x.accepted))
}

// noConfirms lets nothing come back from the broker, on connections that stay open:
// the relay gives them up, and publishes again what may have arrived.
func noConfirms(r *trial) {
	x, times := r.tenant(0), r.times(2)
	r.audit()
	for range times {
		said := strings.Count(r.worker.log.String(), "broker gave no confirms in time")
		r.amqp.HalfOpen(fault.ToClient)
		x.messages(1 + r.rand.IntN(5))
		r.says(r.worker, "broker gave no confirms in time", said)
		require.NoError(r.t, r.amqp.Pass())
		r.eventually("all are published", "SELECT ("+unpublishedSQL+") = 0")
	}
	r.then = func() {
		published, twice := r.audit()
		for _, id := range r.events() {
			require.True(r.t, published[id], "event %s is at the broker", id)
		}
		r.note += fmt.Sprintf(", %d events twice at the broker", twice)
	}
	r.did("%d silences, %d messages", times, len(x.accepted))
}

// blockedBroker takes the broker's memory away: it accepts nothing from the relay,
// which says so, and the API and what it accepts go on.
func blockedBroker(r *trial) {
	x, n := r.tenant(0), r.times(50)
	r.broker.Ctl(r.t, "set_vm_memory_high_watermark", "0.0001")
	before := r.metric(r.worker, "turumba_outbox_alarms_total")
	x.messages(n)
	r.eventually("all are sent by the poll", "SELECT count(*) = 0 FROM messages WHERE status <> 'sent'")
	r.says(r.worker, "the broker is short of memory or disk", 0)
	require.Eventually(r.t, func() bool { return r.metric(r.worker, "turumba_outbox_alarms_total") > before }, soon, blink, "an alarm")
	require.True(r.t, r.isReady(r.messaging))
	require.Positive(r.t, r.unpublished())
	r.broker.Ctl(r.t, "set_vm_memory_high_watermark", "0.4")
	resumed := r.within(5*time.Second+busy, "all are published", func() bool { return r.unpublished() == 0 })
	r.did("%d messages while the broker accepted nothing, all published %s after", len(x.accepted), resumed)
}

// consumes is what a worker says when its consumers have their connection, which its
// readiness does not wait for.
const consumes = `"broker connected","purpose":"consume"`

// killBroker kills the broker while it is published to: what it has confirmed is there
// when it is back, and consumers are back soon.
func killBroker(r *trial) {
	const event = "group_message.created"
	x, n, kills := r.tenant(0), r.times(2000), r.times(3)-1
	r.relayAlone()
	consumer := r.newWorker(r.t, "WORKER_ROLES=dispatch")
	r.drain(relay.GroupQueue)
	var want []string
	var back []time.Duration
	for range kills {
		want = append(want, r.storeEvents(n, event, 0)...)
		waiting := r.rand.IntN(n)
		require.Eventually(r.t, func() bool { return r.unpublished() <= waiting }, soon, time.Millisecond, "part is published")
		r.broker.Kill()
		x.messages(3)
		said := strings.Count(consumer.log.String(), consumes)
		r.broker.Restart(r.t)
		took := stopwatch()
		r.says(consumer, consumes, said)
		back = append(back, took())
		r.hurry()
		r.eventually("all are published", "SELECT ("+unpublishedSQL+") = 0")
	}
	require.LessOrEqual(r.t, slices.Max(back), 15*time.Second, "consumers are back")
	got := map[string]bool{}
	all := r.drain(relay.GroupQueue)
	for _, m := range all {
		got[m.MessageId] = true
	}
	for _, id := range want {
		require.True(r.t, got[id], "event %s was confirmed and is gone", id)
	}
	require.LessOrEqual(r.t, len(all)-len(want), kills*2*relayBatch, "events twice at the broker")
	r.did("%d kills, %d events published, %d twice, consumers back after %s, %d messages", kills, len(want), len(all)-len(want), slices.Max(back), len(x.accepted))
}

// silentBroker lets the connections to the broker carry nothing while nothing is to be
// said: the heartbeat shows it. It is two seconds here and ten in an installation.
func silentBroker(r *trial) {
	const heartbeat = 2 * time.Second
	r.worker.kill()
	p := r.newWorker(r.t, "AMQP_URL=amqp://guest:guest@"+r.amqp.Addr()+"/?heartbeat=2")
	const lost = `"broker not connected","purpose":"`
	both := func() bool {
		return strings.Contains(p.log.String(), lost+"publish") && strings.Contains(p.log.String(), lost+"consume")
	}
	r.says(p, consumes, 0) // a greeting that is not answered has a limit of its own
	require.False(r.t, both())
	r.amqp.Stall()
	noticed := r.within(2*heartbeat+busy, "both connections are given up", both)
	require.NoError(r.t, r.amqp.Pass())
	x := r.tenant(0)
	x.messages(2)
	r.eventually("all are published", "SELECT ("+unpublishedSQL+") = 0")
	r.did("silence noticed after %s, %d messages", noticed, len(x.accepted))
}

// lostWakeUps cuts the connection that listens, and stores events that wake nobody: the
// poll finds them.
func lostWakeUps(r *trial) {
	const limit = 2 * time.Second
	x, times := r.tenant(0), r.times(20)
	r.relayAlone() // what is dispatched wakes the relay of its process
	for range times {
		_, err := r.sql.Exec(r.t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'listen%'")
		require.NoError(r.t, err)
		x.messages(1)
		r.within(limit+busy, "all are published", func() bool { return r.unpublished() == 0 })
		// Listening again, the relay looks at once; what is stored after that wakes nobody.
		r.eventually("the relay listens again", "SELECT count(*) > 0 FROM pg_stat_activity WHERE query ILIKE 'listen%' AND state = 'idle'")
		r.storeEvents(1, "message.created", 0)
		r.within(limit+busy, "all are published", func() bool { return r.unpublished() == 0 })
	}
	r.did("%d connections cut, %d messages", times, len(x.accepted))
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

// dispatchQueue gets the hints of the single messages that tenants make.
var dispatchQueue = relay.DispatchQueue("email", "transactional")

// storeEvents stores n events of so long ago, without a wake-up, and returns their ids.
func (r *trial) storeEvents(n int, event string, age time.Duration) (ids []string) {
	r.t.Helper()
	ids, err := lines(r.t.Context(), r.sql, `
		INSERT INTO outbox_events (id, event_type, aggregate_type, aggregate_id, payload, created_at, due_at)
		SELECT id, $2, 'group_message', id::text, jsonb_build_object('event_id', id, 'event_type', $2::text, 'schema_version', 1),
			greatest(now() - $3::interval, date_trunc('day', now(), 'UTC')), now()
		FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, $1)) made RETURNING id::text`, n, event, age)
	require.NoError(r.t, err)
	return ids
}

// relayAlone stops the worker and starts one that only relays, with further settings.
func (r *trial) relayAlone(env ...string) *program {
	r.t.Helper()
	r.worker.kill()
	return r.newWorker(r.t, append([]string{"WORKER_ROLES=relay"}, env...)...)
}

const unpublishedSQL = "SELECT count(*) FROM outbox_events WHERE published_at IS NULL"

func (r *trial) unpublished() (n int) {
	r.t.Helper()
	require.NoError(r.t, r.sql.QueryRow(r.t.Context(), unpublishedSQL).Scan(&n))
	return n
}

// says waits until the program has said the text once more than before.
func (r *trial) says(p *program, text string, before int) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return strings.Count(p.log.String(), text) > before }, soon, blink, "%q", text)
}

// hurry makes events that wait for another attempt due.
func (r *trial) hurry() {
	r.t.Helper()
	_, err := r.sql.Exec(r.t.Context(), "UPDATE outbox_events SET due_at = now() WHERE published_at IS NULL")
	require.NoError(r.t, err)
}
