package bustest

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/bus"
)

// againError is what handlers under test fail with.
type againError struct{}

func (againError) Error() string { return "not yet" }

func testCompetingConsumers(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a"))
	first, second := make(chan bus.Message, 100), make(chan bus.Message, 100)
	release := make(chan struct{})
	f.consume(f.queue(0), 1, func(_ context.Context, m bus.Message) error {
		first <- m
		<-release
		return nil
	})
	f.publish(message(0, "a"))
	held := receive(t, first)
	f.consume(f.queue(0), 1, func(_ context.Context, m bus.Message) error {
		second <- m
		return nil
	})
	batch := messages(21, "a")[1:]
	f.publish(batch...)
	ids := receiveIDs(t, second, 20)
	require.Len(t, ids, 20)
	require.NotContains(t, ids, held.ID)
	close(release)
	require.Empty(t, first)
}

func testPrefetch(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a"))
	var running, most atomic.Int64
	started, release := make(chan string, 100), make(chan struct{})
	f.publish(messages(12, "a")...)
	f.consume(f.queue(0), 4, func(_ context.Context, m bus.Message) error {
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		started <- m.ID
		<-release
		return nil
	})
	for range 4 {
		receive(t, started)
	}
	require.Empty(t, started)
	close(release)
	for range 8 {
		receive(t, started)
	}
	require.EqualValues(t, 4, most.Load())
}

func testRedelivery(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a"))
	got := make(chan bus.Message, 100)
	f.consume(f.queue(0), 5, func(_ context.Context, m bus.Message) error {
		got <- m
		if m.ID == "a-0" && !m.Redelivered {
			return againError{}
		}
		return nil
	})
	f.publish(message(0, "a"))
	m := receive(t, got)
	require.False(t, m.Redelivered)
	m = receive(t, got)
	require.True(t, m.Redelivered)
	require.Equal(t, "a-0", m.ID)
	require.Equal(t, "body 0", string(m.Body))
	f.publish(message(1, "a"))
	require.Equal(t, "a-1", receive(t, got).ID, "what was acknowledged does not come back")
}

func testDeadLetter(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a.*", "b"))
	var attempts atomic.Int64
	passed := make(chan bus.Message, 100)
	f.consume(f.queue(0), 2, func(_ context.Context, m bus.Message) error {
		if m.ID == "poison" {
			attempts.Add(1)
			return againError{}
		}
		passed <- m
		return nil
	})
	dead := f.collect(f.topology.DeadLetterQueue)
	f.publish(bus.Message{ID: "poison", RoutingKey: "a.x", Body: []byte("bad"), Headers: map[string]string{"k": "v"}, Mandatory: true})
	f.publish(messages(20, "a.y")...)
	require.Len(t, receiveIDs(t, passed, 20), 20)
	m := receive(t, dead)
	require.EqualValues(t, quick().Attempts, attempts.Load())
	require.Equal(t, "poison", m.ID)
	require.Equal(t, "a.x", m.RoutingKey)
	require.Equal(t, "bad", string(m.Body))
	require.Equal(t, "v", m.Headers["k"])
	require.Equal(t, f.queue(0), m.Headers[bus.HeaderDeadQueue])
	require.NotEmpty(t, m.Headers[bus.HeaderDeadReason])
	require.Empty(t, dead)
}

func testPanic(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a"))
	got := f.collect(f.topology.DeadLetterQueue)
	f.consume(f.queue(0), 1, func(context.Context, bus.Message) error { panic("a body nobody expected") })
	f.publish(message(0, "a"), message(1, "a"))
	require.Len(t, receiveIDs(t, got, 2), 2)
}

// testLongJob holds handlers for as long as the test wants: for the bus that is
// a ten-minute job. Neither its queue nor another one, nor publishing, waits.
func testLongJob(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a", "b"))
	started, release := make(chan string, 100), make(chan struct{})
	quickA := make(chan bus.Message, 100)
	f.consume(f.queue(0), 2, func(_ context.Context, m bus.Message) error {
		if m.ID == "a-0" {
			started <- m.ID
			<-release
			return nil
		}
		quickA <- m
		return nil
	})
	blockedB := make(chan string, 100)
	f.consume(f.queue(1), 1, func(_ context.Context, m bus.Message) error {
		blockedB <- m.ID
		<-release
		return nil
	})
	f.publish(message(0, "a"), message(0, "b"))
	receive(t, started)
	receive(t, blockedB)
	f.publish(messages(51, "a")[1:]...)
	require.Len(t, receiveIDs(t, quickA, 50), 50, "the other slot of the same queue goes on")
	otherB := f.collect(f.queue(1))
	f.publish(messages(51, "b")[1:]...)
	require.Len(t, receiveIDs(t, otherB, 50), 50, "another consumer of the full queue goes on")
	require.Empty(t, blockedB, "the long job is not repeated while it runs")
	close(release)
}

func testDrain(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a"))
	started, release, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- f.Consume(ctx, f.queue(0), 1, func(work context.Context, _ bus.Message) error {
			close(started)
			<-release
			result <- work.Err()
			return work.Err()
		})
	}()
	f.publish(messages(2, "a")...)
	receive(t, started)
	cancel()
	require.Empty(t, ended, "Consume waits for the handler")
	close(release)
	require.NoError(t, receive(t, result), "the handler's context outlives the consumer's")
	require.NoError(t, receive(t, ended))
	got := f.collect(f.queue(0))
	require.Equal(t, "a-1", receive(t, got).ID, "only the message nobody handled is left")
	f.publish(message(2, "a"))
	require.Equal(t, "a-2", receive(t, got).ID)
}

func testClose(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a"))
	started, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- f.Consume(t.Context(), f.queue(0), 1, func(context.Context, bus.Message) error {
			close(started)
			<-release
			return nil
		})
	}()
	f.publish(message(0, "a"))
	receive(t, started)
	closed := make(chan error, 1)
	go func() { closed <- f.Close() }()
	require.Empty(t, closed, "Close waits for the handler")
	close(release)
	require.ErrorIs(t, receive(t, ended), bus.ErrClosed)
	require.NoError(t, receive(t, closed))
	require.NoError(t, f.Close())
	require.ErrorIs(t, f.Publish(t.Context(), messages(1, "a"))[0], bus.ErrClosed)
	require.ErrorIs(t, f.Consume(t.Context(), f.queue(0), 1, ignore), bus.ErrClosed)
}

func testArguments(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a"))
	require.ErrorIs(t, f.Consume(t.Context(), "unknown", 1, ignore), bus.ErrNoQueue)
	require.ErrorIs(t, f.Consume(t.Context(), f.queue(0), 0, ignore), bus.ErrInvalid)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := f.Consume(ctx, f.queue(0), 1, ignore)
	require.NotErrorIs(t, err, context.Canceled)
	require.NoError(t, err)
}

func ignore(context.Context, bus.Message) error { return nil }
