package chaos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/rabbitmq"
	"github.com/turumba/turumba/kit/failpoint"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/worker/relay"
)

// consumeRows break the way from the broker to the effect (catalogue F-20 to F-26).
func consumeRows() []row {
	return []row{
		{"F-20", "every delivery five times, in another order", quick, beside, duplicates},
		{"F-21", "a handler that never ends", full, beside, slowHandler},
		{"F-22", "poison, and a handler that panics", quick, alone, poison},
		{"F-23", "kill after the effect, before the acknowledgement", quick, beside, killUnacknowledged},
		{"F-24", "one channel floods and its provider is silent", quick, alone, flood},
		{"F-25", "SIGTERM under load", quick, beside, terminate},
		{"F-26", "events of a later version", quick, beside, laterVersion},
	}
}

// deadLetters is where the broker puts what failed too often.
const deadLetters = "messaging.dlq"

// duplicates takes what the relay has published and gives each of it five times to the
// worker, shuffled.
func duplicates(r *trial) {
	const copies = 5
	x, n := r.tenant(r.times(1000)), r.times(100)
	r.relayAlone()
	x.messages(n)
	for range 3 {
		x.send()
	}
	r.eventually("all are published", "SELECT ("+unpublishedSQL+") = 0")
	var all []letter
	for _, queue := range []string{relay.GroupQueue, dispatchQueue} {
		for _, d := range r.drain(queue) {
			for range copies {
				all = append(all, letter{d.Exchange, d.RoutingKey, amqp.Publishing{MessageId: d.MessageId, Headers: d.Headers, ContentType: d.ContentType, DeliveryMode: amqp.Persistent, Body: d.Body}})
			}
		}
	}
	require.GreaterOrEqual(r.t, len(all), copies*(n+3))
	r.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	r.worker.start()
	r.post(all)
	r.then = func() { r.consumed() }
	r.did("%d deliveries, %d messages, 3 sends to %d", len(all), n, len(x.contacts))
}

// letter is a message published past the relay.
type letter struct {
	exchange, key string
	amqp.Publishing
}

func (r *trial) post(all []letter) {
	r.t.Helper()
	r.onBroker(func(ch *amqp.Channel) error {
		for _, l := range all {
			if err := ch.PublishWithContext(r.t.Context(), l.exchange, l.key, true, false, l.Publishing); err != nil {
				return err
			}
		}
		return nil
	})
}

// waiting is how many messages of a queue wait for a consumer.
func (r *trial) waiting(queue string) (n int) {
	r.t.Helper()
	r.onBroker(func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		n = q.Messages
		return err
	})
	return n
}

// consumed, of a mesh at rest, waits until the queues of hints are empty and ends the
// workers, who give back what they hold and could not handle: no hint of the row may be
// there, or given up.
func (r *trial) consumed(others ...*program) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return r.waiting(relay.GroupQueue)+r.waiting(dispatchQueue) == 0 }, soon, 50*time.Millisecond, "all is consumed")
	for _, p := range append(others, r.worker) {
		r.terminated(p)
	}
	for _, queue := range []string{relay.GroupQueue, dispatchQueue, deadLetters} {
		for _, d := range r.drain(queue) {
			for _, x := range r.of {
				require.NotContains(r.t, string(d.Body), x.account, "a hint is in %s", queue)
			}
		}
	}
	r.worker.start()
}

// slowHandler runs a handler that ends only with its context, on a broker that closes
// channels with a delivery held too long. All times are a twentieth of what they are in
// an installation, and of the minute that the broker allows.
func slowHandler(r *trial) {
	const scale, allowed, held = 20, time.Minute, 30 * time.Second
	limits := func(timeout, tick time.Duration) {
		r.broker.Ctl(r.t, "eval", fmt.Sprintf("application:set_env(rabbit, consumer_timeout, %d), application:set_env(rabbit, channel_tick_interval, %d).", timeout.Milliseconds(), tick.Milliseconds()))
	}
	limits(allowed/scale, 100*time.Millisecond)
	defer limits(30*time.Minute, time.Minute)
	p := bus.Policy{}.WithDefaults()
	p.HandlerTimeout, p.RetryDelay, p.MaxRetryDelay = p.HandlerTimeout/scale, p.RetryDelay/scale, p.MaxRetryDelay/scale
	log := &logBuffer{}
	topology := bus.Topology{
		Exchange: "slow", DeadLetterExchange: "slow.dlx", DeadLetterQueue: "slow.dlq",
		Queues: []bus.Queue{{Name: "slow.queue", Bindings: []string{"slow"}, Quorum: true}},
	}
	b, err := rabbitmq.Dial(r.t.Context(), r.broker.URL(), topology, rabbitmq.Options{Policy: p, Logger: telemetry.NewLogger(log, nil)})
	require.NoError(r.t, err)
	ctx, stop := context.WithCancel(r.t.Context())
	defer func() { require.NoError(r.t, b.Close()) }()
	defer stop()
	var attempts atomic.Int64
	ended := make(chan error, 1)
	go func() {
		ended <- b.Consume(ctx, "slow.queue", 1, func(ctx context.Context, _ bus.Message) error {
			attempts.Add(1)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	require.NoError(r.t, b.Ready(ctx))
	took := stopwatch()
	require.NoError(r.t, b.Publish(ctx, []bus.Message{{ID: uuid.NewString(), RoutingKey: "slow", Mandatory: true}})[0])
	require.Eventually(r.t, func() bool { return r.waiting("slow.dlq") == 1 }, soon, 50*time.Millisecond, "the message is given up")
	each := took() / time.Duration(p.Attempts)
	stop()
	require.NoError(r.t, <-ended)
	require.EqualValues(r.t, p.Attempts, attempts.Load())
	require.NotContains(r.t, log.String(), "consumer interrupted", "the broker closed the channel")
	require.LessOrEqual(r.t, p.HandlerTimeout+p.MaxRetryDelay, held/scale, "how long a delivery is held")
	r.did("%d attempts of %s each on average", attempts.Load(), each*scale)
}

// poison gives the worker what no relay publishes, which it takes for hints, and then
// panics in its handler: the hints become dead letters, the worker lives, messages
// are sent by the poll, and put back the hints are consumed.
func poison(r *trial) {
	r.drain(deadLetters) // of other rows
	x, n := r.tenant(0), r.times(100)
	x.messages(n)
	before := r.delay(x, 0, n)
	poisons := r.poisons(x)
	r.post(poisons)
	x.messages(n)
	r.setAside(poisons)
	during := r.delay(x, n, 2*n)
	require.LessOrEqual(r.t, during, before*6/5+busy, "p95 of other messages")

	const failed = "message handler failed"
	said := strings.Count(r.worker.log.String(), failed)
	r.worker.kill()
	r.worker.start("FP=" + string(failpoint.ConsumeBeforeEffect) + "=panic")
	x.messages(2)
	require.Eventually(r.t, func() bool { return r.waiting(deadLetters) == 2 }, soon, 50*time.Millisecond, "dead letters")
	require.True(r.t, r.worker.runs())
	require.Equal(r.t, 2*bus.Policy{}.WithDefaults().Attempts, strings.Count(r.worker.log.String(), failed)-said, "attempts")
	r.delay(x, 2*n, 2*n+2)
	var back []letter
	for _, d := range r.drain(deadLetters) {
		require.Equal(r.t, "delivery_limit", d.Headers[bus.HeaderDeadReason])
		require.Equal(r.t, dispatchQueue, d.Headers[bus.HeaderDeadQueue])
		require.NotContains(r.t, string(d.Body), "@", "an address")
		require.NotContains(r.t, string(d.Body), "Hello", "a text")
		back = append(back, letter{"", dispatchQueue, amqp.Publishing{MessageId: d.MessageId, ContentType: d.ContentType, DeliveryMode: amqp.Persistent, Body: d.Body}})
	}
	r.worker.kill()
	r.worker.start()
	r.post(back)
	r.then = func() { r.consumed() }
	r.did("%d poisons set aside, p95 of %d messages %s before and %s with them, %d dead letters put back", len(poisons), n, before, during, len(back))
}

// poisons are bodies that no relay publishes, for both queues.
func (r *trial) poisons(x *tenant) (all []letter) {
	event := func(of map[string]any) []byte {
		body, err := json.Marshal(of)
		require.NoError(r.t, err)
		return body
	}
	bodies := [][]byte{
		nil, []byte("{"), []byte("\x00\xff"), bytes.Repeat([]byte("x"), 5<<20),
		event(map[string]any{"event_id": uuid.NewString(), "event_type": "group_message.unheard"}),
		event(map[string]any{"event_id": uuid.NewString(), "event_type": "group_message.queued", "schema_version": 99}),
		event(map[string]any{"event_id": uuid.NewString(), "event_type": "group_message.queued", "aggregate_id": uuid.NewString(), "account_id": x.account}),
		event(map[string]any{"event_id": uuid.NewString(), "event_type": dispatchQueue, "aggregate_id": x.channel, "account_id": uuid.NewString()}),
	}
	for _, queue := range []string{relay.GroupQueue, dispatchQueue} {
		for i, body := range bodies {
			all = append(all, letter{"", queue, amqp.Publishing{MessageId: uuid.NewString(), ContentType: []string{"application/json", "image/png", ""}[i%3], Body: body}})
		}
	}
	return all
}

// setAside waits until all these are dead letters, beside hints of sends of other rows,
// which are wiped.
func (r *trial) setAside(list []letter) {
	r.t.Helper()
	left := map[string]bool{}
	for _, l := range list {
		left[l.MessageId] = true
	}
	require.Eventually(r.t, func() bool {
		for _, d := range r.drain(deadLetters) {
			delete(left, d.MessageId)
		}
		return len(left) == 0
	}, soon, 50*time.Millisecond, "all poison is set aside")
}

// delay waits until the from-th to the upto-th message of the tenant are sent and
// returns the time from the call to the provider that 95 of 100 took at most.
func (r *trial) delay(x *tenant, from, upto int) time.Duration {
	r.t.Helper()
	ids := x.accepted[from:upto]
	r.eventually("all are sent", "SELECT count(*) = $1 FROM messages WHERE status = 'sent' AND id = ANY ($2::uuid[])", len(ids), ids)
	received := r.received()
	rows, err := r.sql.Query(r.t.Context(), "SELECT id::text, created_at FROM messages WHERE id = ANY ($1::uuid[])", ids)
	require.NoError(r.t, err)
	var id string
	var at time.Time
	var took []time.Duration
	_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error {
		took = append(took, received[id][0].Sub(at))
		return nil
	})
	require.NoError(r.t, err)
	return part(took, 0.95)
}

// killUnacknowledged kills the worker with a hint in hand that it has followed: the
// broker delivers it again, and says so.
func killUnacknowledged(r *trial) {
	x, kills, again := r.tenant(0), r.times(50), 0 // again counts hints
	r.worker.kill()
	for range kills {
		x.messages(1 + r.rand.IntN(3))
		r.killed(r.worker, failpoint.ConsumeBeforeAck, 1)
		// What is taken from the queue here is found by the poll.
		require.Eventually(r.t, func() bool {
			for _, d := range r.drain(dispatchQueue) {
				if d.Redelivered {
					again++
					return true
				}
			}
			return false
		}, soon, blink, "the broker has the hint again")
	}
	r.may.Window = 3 * kills
	r.did("%d kills, %d hints delivered again, %d messages", kills, again, len(x.accepted))
}

// flood fills the lane with messages of a channel whose provider takes connections and
// says nothing: those of another channel go on.
func flood(r *trial) {
	const limit = 2 * time.Second
	bad, good, n := r.tenant(0, elsewhere(r.other.Addr())), r.tenant(0), r.times(100)
	r.other.Stall()
	bad.messages(10 * n) // more than a worker has in work in all
	good.messages(n)
	took := r.delay(good, 0, n)
	require.LessOrEqual(r.t, took, limit, "p95 of the other channel")
	var stuck int
	require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT count(*) FROM messages WHERE status <> 'sent'").Scan(&stuck))
	require.Equal(r.t, 10*n, stuck, "the silent provider has taken nothing")
	require.NoError(r.t, r.other.Pass())
	r.may.Window = singlesOfChannel
	r.did("%d messages to a silent provider, p95 of %d others %s", 10*n, n, took)
}

// singlesOfChannel is how many single messages of a channel are on their way at once.
const singlesOfChannel = 16

// elsewhere lets the channel reach its provider at another address.
func elsewhere(addr string) func(*messagingv1.CreateChannelRequest) {
	return func(req *messagingv1.CreateChannelRequest) {
		var port uint32
		_, _ = fmt.Sscan(portOf(addr), &port) // an address of the harness
		interval := int32(1)
		req.RetryInterval, req.Credentials.GetSmtp().Port = &interval, &port
	}
}

// terminate asks the worker and the messaging service to end while clients call and
// messages are on their way, and the worker when it has just stored a stretch of a send:
// they finish what they have, and nothing more.
func terminate(r *trial) {
	const limit = 25 * time.Second
	x, times := r.tenant(500), r.times(10)-1
	slow(r.t, r.simulator, 200)
	defer slow(r.t, r.simulator, 0)
	var longest time.Duration
	l := x.load(4)
	for range times {
		for _, p := range []*program{r.worker, r.messaging} {
			l.until(10 + r.rand.IntN(10))
			r.eventually("messages are on their way", "SELECT count(*) > 0 FROM dispatch_chunks WHERE state = 'leased'")
			took := stopwatch()
			r.terminated(p)
			longest = max(longest, took())
			if p == r.worker {
				r.eventually("nothing is left in hand", "SELECT count(*) = 0 FROM dispatch_chunks WHERE state = 'leased'")
			}
			p.start()
			r.messagingConn.ResetConnectBackoff()
		}
	}
	l.stop()
	r.terminated(r.worker)
	for range times {
		r.worker.start("FP=" + string(failpoint.FanoutAfterBatch) + "=block@1")
		said := strings.Count(r.worker.log.String(), string(failpoint.FanoutAfterBatch))
		x.send()
		r.says(r.worker, string(failpoint.FanoutAfterBatch), said)
		r.terminated(r.worker)
		require.Zero(r.t, r.number("SELECT count(*) FROM dispatch_chunks WHERE state = 'leased'"), "chunks left in hand")
	}
	require.LessOrEqual(r.t, longest, limit, "the slowest end")
	for _, err := range l.errs {
		require.Equal(r.t, codes.Unavailable, status.Code(err), err)
	}
	r.then = func() { require.Zero(r.t, r.count("chaos_recoveries"), "leases that nobody gave back") }
	r.did("%d ends of each, at most %s, %d messages, %d sends to %d, %d calls refused", times, longest, len(x.accepted), len(x.sends), len(x.contacts), len(l.errs))
}

// terminated asks the program to end, and it ends well.
func (r *trial) terminated(p *program) {
	r.t.Helper()
	require.NoError(r.t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Zero(r.t, p.dies(), "exit status: %s", p.log.tail())
}

// laterVersion publishes events as a later version would, among those of this one, to
// two workers: what is unknown is kept on the way and harms nobody.
func laterVersion(r *trial) {
	x := r.tenant(r.times(500))
	second := r.newWorker(r.t)
	r.audit()
	var want []string
	for _, event := range []string{"group_message.queued", "group_message.unheard", "message.unheard", dispatchQueue} {
		about := x.send()
		if event == dispatchQueue {
			about = x.channel
		}
		ids, err := lines(r.t.Context(), r.sql, `
			INSERT INTO outbox_events (id, event_type, aggregate_type, aggregate_id, payload)
			SELECT id, $1, 'group_message', $2, jsonb_build_object('event_id', id, 'event_type', $1::text, 'schema_version', 2,
				'account_id', $3::text, 'aggregate_id', $2::text, 'unheard', jsonb_build_object('of', 'here'))
			FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 5)) made RETURNING id::text`, event, about, x.account)
		require.NoError(r.t, err)
		want = append(want, ids...)
		x.messages(2)
	}
	r.eventually("all are published", "SELECT ("+unpublishedSQL+") = 0")
	kept := map[string]bool{}
	for _, d := range r.drain("messaging_audit") {
		kept[d.MessageId] = strings.Contains(string(d.Body), `"unheard": {"of": "here"}`)
	}
	for _, id := range want {
		require.True(r.t, kept[id], "event %s is at the broker, with all its fields", id)
	}
	r.then = func() { r.consumed(second) }
	r.did("%d events of a later version, %d messages, 4 sends to %d", len(want), len(x.accepted), len(x.contacts))
}
