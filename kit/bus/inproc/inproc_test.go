package inproc_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/bustest"
	"github.com/turumba/turumba/kit/bus/inproc"
	"github.com/turumba/turumba/kit/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(t *testing.T, topology bus.Topology, policy bus.Policy) bus.Bus {
		t.Helper()
		b, err := inproc.New(topology, inproc.Options{Policy: policy, Logger: bustest.Quiet()})
		require.NoError(t, err)
		return b
	})
}

func TestNewRefusesBadTopology(t *testing.T) {
	t.Parallel()
	_, err := inproc.New(bus.Topology{}, inproc.Options{})
	require.ErrorIs(t, err, bus.ErrInvalid)
}

func messages(n int, key string, size int) []bus.Message {
	all := make([]bus.Message, n)
	for i := range all {
		all[i] = bus.Message{ID: fmt.Sprintf("%04d", i), RoutingKey: key, Body: make([]byte, size), Mandatory: true}
	}
	return all
}

func TestFullQueueRefusesInAll(t *testing.T) {
	t.Parallel()
	topology := bustest.Topology("a.#", "#")
	b, err := inproc.New(topology, inproc.Options{MaxMessages: 3})
	require.NoError(t, err)
	errs := b.Publish(t.Context(), messages(4, "b", 0))
	require.NoError(t, errs[2])
	require.ErrorIs(t, errs[3], bus.ErrFull)
	require.ErrorIs(t, b.Publish(t.Context(), messages(1, "a", 0))[0], bus.ErrFull)

	ctx, stop := context.WithCancel(t.Context())
	got := make(chan bus.Message, 10)
	done := make(chan error, 1)
	go func() {
		done <- b.Consume(ctx, topology.Queues[1].Name, 1, func(_ context.Context, m bus.Message) error {
			got <- m
			return nil
		})
	}()
	for i := range 3 {
		require.Equal(t, fmt.Sprintf("%04d", i), (<-got).ID)
	}
	require.NoError(t, b.Publish(t.Context(), messages(1, "a", 0))[0], "room again, and in both queues")
	require.Equal(t, "a", (<-got).RoutingKey)
	stop()
	require.NoError(t, <-done)
	require.NoError(t, b.Close())
}

func TestBytesAreBounded(t *testing.T) {
	t.Parallel()
	b, err := inproc.New(bustest.Topology("a"), inproc.Options{MaxBytes: 1000})
	require.NoError(t, err)
	errs := b.Publish(t.Context(), messages(3, "a", 400))
	require.NoError(t, errs[1])
	require.ErrorIs(t, errs[2], bus.ErrFull)
	b, err = inproc.New(bustest.Topology("a"), inproc.Options{MaxBytes: 1000})
	require.NoError(t, err)
	require.NoError(t, b.Publish(t.Context(), messages(1, "a", 4000))[0], "one large message fits an empty queue")
}

func TestObserverDropsItsOldest(t *testing.T) {
	t.Parallel()
	topology := bustest.Topology("a", "#")
	topology.Queues[1].Optional = true
	b, err := inproc.New(topology, inproc.Options{MaxMessages: 2})
	require.NoError(t, err)
	for _, m := range messages(200, "b", 10) {
		m.Mandatory = false
		require.NoError(t, b.Publish(t.Context(), []bus.Message{m})[0])
	}
	got := make(chan bus.Message, 10)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.Consume(ctx, topology.Queues[1].Name, 1, func(_ context.Context, m bus.Message) error {
			got <- m
			return nil
		})
	}()
	require.Equal(t, "0198", (<-got).ID)
	require.Equal(t, "0199", (<-got).ID)
	stop()
	require.NoError(t, <-done)
}

// TestRetryPauses moves the clock through the pauses of a failing message.
func TestRetryPauses(t *testing.T) {
	t.Parallel()
	fake := clock.NewFake(time.Unix(0, 0))
	topology := bustest.Topology("a")
	b, err := inproc.New(topology, inproc.Options{
		Clock: fake, Logger: bustest.Quiet(),
		Policy: bus.Policy{Attempts: 3, RetryDelay: time.Minute, MaxRetryDelay: time.Hour},
	})
	require.NoError(t, err)
	attempts := make(chan time.Time, 10)
	consumed := make(chan error, 1)
	go func() {
		consumed <- b.Consume(t.Context(), topology.Queues[0].Name, 1, func(context.Context, bus.Message) error {
			attempts <- fake.Now()
			return errors.New("again")
		})
	}()
	require.NoError(t, b.Publish(t.Context(), messages(1, "a", 0))[0])
	first := <-attempts
	require.NoError(t, fake.WaitForTimers(t.Context(), 1))
	fake.Advance(time.Minute)
	require.Equal(t, time.Minute, (<-attempts).Sub(first))
	require.NoError(t, fake.WaitForTimers(t.Context(), 1))
	fake.Advance(2 * time.Minute)
	require.Equal(t, 3*time.Minute, (<-attempts).Sub(first))
	require.NoError(t, b.Close())
	require.ErrorIs(t, <-consumed, bus.ErrClosed)
}

// TestDrainTimeoutCancelsHandlers shows that a handler cannot hold up the end
// for ever, provided it heeds its context.
func TestDrainTimeoutCancelsHandlers(t *testing.T) {
	t.Parallel()
	fake := clock.NewFake(time.Unix(0, 0))
	topology := bustest.Topology("a")
	b, err := inproc.New(topology, inproc.Options{Clock: fake, Logger: bustest.Quiet(), Policy: bus.Policy{DrainTimeout: time.Minute}})
	require.NoError(t, err)
	started, consumed := make(chan struct{}), make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		consumed <- b.Consume(ctx, topology.Queues[0].Name, 1, func(work context.Context, _ bus.Message) error {
			close(started)
			<-work.Done()
			return work.Err()
		})
	}()
	require.NoError(t, b.Publish(t.Context(), messages(1, "a", 0))[0])
	<-started
	stop()
	require.NoError(t, fake.WaitForTimers(t.Context(), 1))
	fake.Advance(time.Minute)
	require.NoError(t, <-consumed)
}

func BenchmarkPublishConsume(b *testing.B) {
	topology := bustest.Topology("a")
	in, err := inproc.New(topology, inproc.Options{MaxMessages: b.N + 1, MaxBytes: 1 << 30})
	require.NoError(b, err)
	left := b.N
	done := make(chan struct{})
	ctx, stop := context.WithCancel(b.Context())
	consumed := make(chan error, 1)
	go func() {
		consumed <- in.Consume(ctx, topology.Queues[0].Name, 1, func(context.Context, bus.Message) error {
			if left--; left == 0 {
				close(done)
			}
			return nil
		})
	}()
	batch := messages(100, "a", 200)
	b.ReportAllocs()
	for sent := 0; sent < b.N; {
		errs := in.Publish(ctx, batch[:min(100, b.N-sent)])
		for _, err := range errs {
			if err == nil {
				sent++
			}
		}
	}
	<-done
	stop()
	require.NoError(b, <-consumed)
}
