package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/bustest"
	"github.com/turumba/turumba/kit/bus/rabbitmq"
	"github.com/turumba/turumba/kit/bus/rabbitmq/rabbittest"
	"github.com/turumba/turumba/kit/clock"
)

// TestDeadLetters lists what died, leaves it there, and gives back what it is told to.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	url := rabbittest.URL(t)
	for name, quorum := range map[string]bool{"Quorum": true, "Classic": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topology := bustest.Topology("a.*")
			topology.Queues[0].Quorum = quorum
			b := dial(t, url, topology, rabbitmq.Options{Policy: bus.Policy{Attempts: 2, RetryDelay: time.Millisecond}, Logger: bustest.Quiet()})
			var mended atomic.Bool
			got := consumeUnless(t, b, topology.Queues[0].Name, &mended)
			for i := range 3 {
				require.NoError(t, b.Publish(t.Context(), []bus.Message{{ID: fmt.Sprint(i), RoutingKey: fmt.Sprintf("a.%d", i), Body: []byte("{}"), Headers: map[string]string{"k": "v"}}})[0])
			}
			dead, err := rabbitmq.OpenDeadLetters(t.Context(), url, topology, rabbitmq.Options{})
			require.NoError(t, err)
			t.Cleanup(func() { dead.Close(context.WithoutCancel(t.Context())) })
			list := func() []rabbitmq.DeadLetter { return review(t, dead, func(rabbitmq.DeadLetter) bool { return false }) }
			require.Eventually(t, func() bool { return len(list()) == 3 }, patience, 20*time.Millisecond)
			letters := list()
			require.Len(t, letters, 3, "looking takes nothing")
			for _, l := range letters {
				require.Equal(t, topology.Queues[0].Name, l.Queue)
				require.NotEmpty(t, l.Reason)
				require.WithinDuration(t, clock.System().Now(), l.Died, 5*time.Minute)
				require.Equal(t, "v", l.Headers["k"])
			}

			mended.Store(true)
			review(t, dead, func(l rabbitmq.DeadLetter) bool { return l.RoutingKey == "a.1" })
			m := <-got
			require.Equal(t, "1", m.ID)
			require.Equal(t, "{}", string(m.Body))
			require.Equal(t, map[string]string{"k": "v"}, m.Headers, "it comes as it was before it died")
			require.Eventually(t, func() bool { return len(list()) == 2 }, patience, 20*time.Millisecond)
			review(t, dead, func(rabbitmq.DeadLetter) bool { return true })
			require.ElementsMatch(t, []string{"0", "2"}, []string{(<-got).ID, (<-got).ID})
			require.Empty(t, list())
			require.Empty(t, got)
		})
	}
}

// TestRedriveNobodyWants stays where it is, and says so.
func TestRedriveNobodyWants(t *testing.T) {
	t.Parallel()
	url := rabbittest.URL(t)
	topology := bustest.Topology("a")
	b := dial(t, url, topology, rabbitmq.Options{Policy: bus.Policy{Attempts: 1}, Logger: bustest.Quiet()})
	var mended atomic.Bool
	consumeUnless(t, b, topology.Queues[0].Name, &mended)
	require.NoError(t, b.Publish(t.Context(), []bus.Message{{ID: "1", RoutingKey: "a", Body: []byte("{}")}})[0])
	dead, err := rabbitmq.OpenDeadLetters(t.Context(), url, topology, rabbitmq.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { dead.Close(context.WithoutCancel(t.Context())) })
	require.Eventually(t, func() bool { return len(review(t, dead, func(rabbitmq.DeadLetter) bool { return false })) == 1 }, patience, 20*time.Millisecond)
	unbind(t, url, topology)
	var failures []error
	require.NoError(t, dead.Review(t.Context(), func(rabbitmq.DeadLetter) bool { return true }, func(_ rabbitmq.DeadLetter, err error) { failures = append(failures, err) }))
	require.Len(t, failures, 1)
	require.ErrorIs(t, failures[0], bus.ErrUnroutable)
	require.Eventually(t, func() bool { return len(review(t, dead, func(rabbitmq.DeadLetter) bool { return false })) == 1 }, patience, 20*time.Millisecond)
}

func TestDeadLettersSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := rabbitmq.OpenDeadLetters(t.Context(), "amqp://guest:hunter2@%zz/", bustest.Topology("a"), rabbitmq.Options{})
	require.ErrorIs(t, err, bus.ErrInvalid)
	_, err = rabbitmq.OpenDeadLetters(t.Context(), "amqp://guest:hunter2@127.0.0.1:1/", bustest.Topology("a"), rabbitmq.Options{})
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.NotContains(t, err.Error(), "hunter2")
	dead, err := rabbitmq.OpenDeadLetters(t.Context(), rabbittest.URL(t), bustest.Topology("a"), rabbitmq.Options{})
	require.NoError(t, err)
	defer dead.Close(context.WithoutCancel(t.Context()))
	require.ErrorIs(t, dead.Review(t.Context(), nil, nil), bus.ErrNoQueue)
}

func review(t *testing.T, d *rabbitmq.DeadLetters, redrive func(rabbitmq.DeadLetter) bool) (seen []rabbitmq.DeadLetter) {
	t.Helper()
	require.NoError(t, d.Review(t.Context(), func(l rabbitmq.DeadLetter) bool {
		seen = append(seen, l)
		return redrive(l)
	}, func(l rabbitmq.DeadLetter, err error) { t.Errorf("%s: %v", l.ID, err) }))
	return seen
}

// consumeUnless fails every message until it is mended.
func consumeUnless(t *testing.T, b bus.Bus, queue string, mended *atomic.Bool) <-chan bus.Message {
	t.Helper()
	got := make(chan bus.Message, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.Consume(ctx, queue, 10, func(_ context.Context, m bus.Message) error {
			if !mended.Load() {
				return errors.New("not yet")
			}
			got <- m
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return got
}

// unbind takes the binding of the topology's only queue away.
func unbind(t *testing.T, url string, topology bus.Topology) {
	t.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.QueueUnbind(topology.Queues[0].Name, topology.Queues[0].Bindings[0], topology.Exchange, nil))
	require.NoError(t, conn.Close())
}
