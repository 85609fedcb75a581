package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/bustest"
	"github.com/turumba/turumba/kit/bus/rabbitmq"
	"github.com/turumba/turumba/kit/bus/rabbitmq/rabbittest"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/tcp/tcptest"
)

// patience is how long something that must happen may take; never waited out
// when all is well.
const patience = time.Minute

// TestFaults does to a private broker what a shared one must not suffer. The
// parts change the whole broker, so they run one after the other.
func TestFaults(t *testing.T) {
	t.Parallel()
	broker := rabbittest.Start(t)
	for _, part := range []struct {
		name string
		test func(*testing.T, *rabbittest.Broker)
	}{
		{"RefusedLoginIsTold", testRefusedLogin},
		{"OtherQueueArgumentsAreTold", testOtherArguments},
		{"DeletedQueueComesBack", testDeletedQueue},
		{"ForgottenConsumerComesBack", testForgottenConsumer},
		{"RemovedBindingComesBack", testRemovedBinding},
		{"SilentBrokerIsLeft", testSilentBroker},
		{"HalfOpenConnectionsAreReplaced", testHalfOpen},
		{"CutConnectionsAreReplaced", testCutConnections},
		{"BlockedBrokerRefusesAtOnce", testBlocked},
		{"KilledBrokerLosesNothing", testKilledBroker},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, broker) })
	}
}

// quickly reconnects without trying the tests' patience.
func quickly() rabbitmq.Options {
	return rabbitmq.Options{
		MaxReconnectDelay: 200 * time.Millisecond, Logger: bustest.Quiet(),
		Policy: bus.Policy{RetryDelay: time.Millisecond, MaxRetryDelay: time.Millisecond},
	}
}

func quorum(bindings ...string) bus.Topology {
	return bustest.Topology(bindings...)
}

func one(id, key string) []bus.Message {
	return []bus.Message{{ID: id, RoutingKey: key, Body: []byte(id), Mandatory: true}}
}

// publishUntil repeats until the broker takes the message, as the relay does.
func publishUntil(t *testing.T, b bus.Publisher, m []bus.Message) {
	t.Helper()
	require.Eventually(t, func() bool { return b.Publish(t.Context(), m)[0] == nil }, patience, 10*time.Millisecond)
}

// testHalfOpen makes all open connections silent, with the limits that the product has:
// publishing, in the middle of it and idle, and consuming go on within 25 s.
func testHalfOpen(t *testing.T, broker *rabbittest.Broker) {
	t.Helper()
	topology := quorum("a")
	p := tcptest.New(t, "tcp", broker.Addr())
	b := dial(t, "amqp://guest:guest@"+p.Addr()+"/", topology, rabbitmq.Options{Logger: bustest.Quiet()})
	got := collect(t, b, topology.Queues[0].Name)
	publishUntil(t, b, one("first", "a"))
	require.Equal(t, "first", <-got)
	began := clock.System().Now()
	require.Positive(t, p.Silence())
	publishUntil(t, b, one("second", "a"))
	await(t, got, "second") // the first once more, where its acknowledgement was lost
	require.Less(t, clock.System().Now().Sub(began), 25*time.Second)
}

// collect consumes a queue into a channel until the test ends.
func collect(t *testing.T, b bus.Consumer, queue string) <-chan string {
	t.Helper()
	got, done := make(chan string, 100_000), make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		done <- b.Consume(ctx, queue, 50, func(_ context.Context, m bus.Message) error {
			got <- m.ID
			return nil
		})
	}()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})
	return got
}

// await reads until the wanted id comes; others may be repeated deliveries.
func await(t *testing.T, got <-chan string, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		select {
		case have := <-got:
			if have == id {
				return
			}
		case <-ctx.Done():
			require.FailNow(t, "did not arrive", id)
		}
	}
}

// onChannel does something to the broker behind the bus's back.
func onChannel(t *testing.T, url string, do func(*amqp.Channel) error) {
	t.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, do(ch))
	require.NoError(t, conn.Close())
}

func testRefusedLogin(t *testing.T, broker *rabbittest.Broker) {
	t.Helper()
	b, err := rabbitmq.Dial(t.Context(), "amqp://guest:hunter2@"+broker.Addr()+"/", quorum("a"), quickly())
	require.NoError(t, err)
	require.False(t, b.Connected())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var failure error
	require.Eventually(t, func() bool {
		soon, stop := context.WithTimeout(ctx, 20*time.Millisecond)
		defer stop()
		failure = b.Ready(soon)
		return failure != nil && bus.ErrUnavailable.Error()+": not connected yet" != failure.Error()
	}, patience, 10*time.Millisecond)
	require.ErrorIs(t, failure, bus.ErrUnavailable)
	require.ErrorContains(t, failure, "username or password not allowed")
	require.NotContains(t, failure.Error(), "hunter2")
	require.ErrorIs(t, b.Publish(t.Context(), one("1", "a"))[0], bus.ErrUnavailable)
	require.NoError(t, b.Close())
}

func testOtherArguments(t *testing.T, broker *rabbittest.Broker) {
	t.Helper()
	topology := quorum("a")
	dial(t, broker.URL(), topology, quickly())
	o := quickly()
	o.Policy.Attempts = 9
	b, err := rabbitmq.Dial(t.Context(), broker.URL(), topology, o)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		soon, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer stop()
		err = b.Ready(soon)
		return err != nil && err.Error() != bus.ErrUnavailable.Error()+": not connected yet"
	}, patience, 10*time.Millisecond)
	require.ErrorContains(t, err, "PRECONDITION_FAILED")
	require.NoError(t, b.Close())
}

func testDeletedQueue(t *testing.T, broker *rabbittest.Broker) {
	t.Helper()
	topology := quorum("a")
	b := dial(t, broker.URL(), topology, quickly())
	got := collect(t, b, topology.Queues[0].Name)
	publishUntil(t, b, one("before", "a"))
	await(t, got, "before")
	onChannel(t, broker.URL(), func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(topology.Queues[0].Name, false, false, false)
		return err
	})
	publishUntil(t, b, one("after", "a"))
	await(t, got, "after")
}

// testForgottenConsumer deletes a queue and declares it again at once, after
// which the broker keeps the consumer and delivers nothing to it.
func testForgottenConsumer(t *testing.T, broker *rabbittest.Broker) {
	t.Helper()
	topology := quorum("a")
	o := quickly()
	o.QuietCheck = 50 * time.Millisecond
	b := dial(t, broker.URL(), topology, o)
	name := topology.Queues[0].Name
	got := collect(t, b, name)
	publishUntil(t, b, one("before", "a"))
	await(t, got, "before")
	onChannel(t, broker.URL(), func(ch *amqp.Channel) error {
		if _, err := ch.QueueDelete(name, false, false, false); err != nil {
			return err
		}
		_, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{
			amqp.QueueTypeArg: amqp.QueueTypeQuorum, "x-dead-letter-exchange": topology.DeadLetterExchange, "x-delivery-limit": int64(4),
		})
		return errors.Join(err, ch.QueueBind(name, "a", topology.Exchange, false, nil))
	})
	publishUntil(t, b, one("after", "a"))
	await(t, got, "after")
}

func testRemovedBinding(t *testing.T, broker *rabbittest.Broker) {
	t.Helper()
	topology := quorum("a")
	b := dial(t, broker.URL(), topology, quickly())
	onChannel(t, broker.URL(), func(ch *amqp.Channel) error {
		return ch.QueueUnbind(topology.Queues[0].Name, "a", topology.Exchange, nil)
	})
	require.ErrorIs(t, b.Publish(t.Context(), one("1", "a"))[0], bus.ErrUnroutable)
	require.NoError(t, b.Publish(t.Context(), one("1", "a"))[0], "the first return restored the binding")
}

// testSilentBroker is F-15: confirms stop coming while the connection stands.
func testSilentBroker(t *testing.T, broker *rabbittest.Broker) {
	t.Helper()
	p := newProxy(t, broker.Addr())
	topology := quorum("a")
	o := quickly()
	o.ConfirmTimeout = 500 * time.Millisecond
	b := dial(t, p.url(), topology, o)
	p.stall()
	begin := clock.System().Now()
	err := b.Publish(t.Context(), one("1", "a"))[0]
	require.ErrorIs(t, err, bus.ErrUnconfirmed)
	require.Less(t, clock.System().Now().Sub(begin), patience/4)
	require.Eventually(t, func() bool { return !b.Connected() }, patience, time.Millisecond)
	p.resume()
	publishUntil(t, b, one("2", "a"))
	await(t, collect(t, b, topology.Queues[0].Name), "2")
}

func testCutConnections(t *testing.T, broker *rabbittest.Broker) {
	t.Helper()
	p := newProxy(t, broker.Addr())
	topology := quorum("a")
	b := dial(t, p.url(), topology, quickly())
	got := collect(t, b, topology.Queues[0].Name)
	for i := range 5 {
		id := fmt.Sprintf("m%d", i)
		publishUntil(t, b, one(id, "a"))
		await(t, got, id)
		p.cut()
	}
	publishUntil(t, b, one("last", "a"))
	await(t, got, "last")
}

// testBlocked is F-16: a broker short of memory reads nothing from publishers.
func testBlocked(t *testing.T, broker *rabbittest.Broker) {
	t.Helper()
	topology := quorum("a")
	o := quickly()
	o.ConfirmTimeout = 300 * time.Millisecond
	b := dial(t, broker.URL(), topology, o)
	got := collect(t, b, topology.Queues[0].Name)
	publishUntil(t, b, one("before", "a"))
	await(t, got, "before")
	broker.Ctl(t, "set_vm_memory_high_watermark", "0.0001")
	var err error
	require.Eventually(t, func() bool {
		err = b.Publish(t.Context(), one("during", "a"))[0]
		return err != nil && !b.Connected()
	}, patience, 10*time.Millisecond)
	require.True(t, errors.Is(err, bus.ErrUnavailable) || errors.Is(err, bus.ErrUnconfirmed), err)
	err = b.Publish(t.Context(), one("during", "a"))[0]
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.ErrorContains(t, err, "short of memory")
	broker.Ctl(t, "set_vm_memory_high_watermark", "0.6")
	publishUntil(t, b, one("after", "a"))
	await(t, got, "after")
}

// testKilledBroker is F-17: what was confirmed before a kill -9 is there after
// the restart, in both kinds of queue, and both ends find their way back.
func testKilledBroker(t *testing.T, broker *rabbittest.Broker) {
	t.Helper()
	topology := bustest.Topology("a", "b.classic", "b.quorum")
	topology.Queues[1].Quorum = false
	b := dial(t, broker.URL(), topology, quickly())
	got := collect(t, b, topology.Queues[0].Name)
	publishUntil(t, b, one("before", "a"))
	await(t, got, "before")
	confirmed, killed := publishUntilKilled(t, b, broker)
	<-killed
	require.NotEmpty(t, confirmed)
	broker.Restart(t)
	publishUntil(t, b, one("after", "a"))
	await(t, got, "after")
	classic, replicated := collect(t, b, topology.Queues[1].Name), collect(t, b, topology.Queues[2].Name)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(confirmed) > 0 {
		select {
		case id := <-classic:
			delete(confirmed, id)
		case id := <-replicated:
			delete(confirmed, id)
		case <-ctx.Done():
			require.FailNow(t, "confirmed and lost", "%d messages", len(confirmed))
		}
	}
}

// publishUntilKilled publishes to both queues, kills the broker on the way and
// returns what was confirmed. The kill comes when the broker has written the
// names of its young queues to disk, see the package comment.
func publishUntilKilled(t *testing.T, b bus.Publisher, broker *rabbittest.Broker) (map[string]bool, <-chan struct{}) {
	t.Helper()
	confirmed, killed := make(map[string]bool), make(chan struct{})
	ripe := clock.System().NewTimer(3 * time.Second)
	defer ripe.Stop()
	for i := 0; ; i++ {
		batch := make([]bus.Message, 100)
		for n := range batch {
			key := []string{"b.classic", "b.quorum"}[n%2]
			batch[n] = bus.Message{ID: fmt.Sprintf("%d-%d", i, n), RoutingKey: key, Body: make([]byte, 200), Mandatory: true}
		}
		failed := 0
		for n, err := range b.Publish(t.Context(), batch) {
			if err == nil {
				confirmed[batch[n].ID] = true
				continue
			}
			failed++
		}
		select {
		case <-ripe.C():
			go func() {
				broker.Kill()
				close(killed)
			}()
		default:
		}
		if failed == len(batch) {
			return confirmed, killed
		}
	}
}
