// Package bustest is the contract of kit/bus as tests. Every implementation
// runs it; what passes here may be relied upon by handlers.
package bustest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/bus"
)

// patience is how long a test waits for something that must happen. It is
// never waited out when all is well.
const patience = 30 * time.Second

// Factory returns a connected bus that declares the topology. It registers
// whatever clean-up it needs; the suite closes the bus itself.
type Factory func(t *testing.T, topology bus.Topology, policy bus.Policy) bus.Bus

// Run runs the contract suite, each part in parallel on a bus and queues of its
// own.
func Run(t *testing.T, factory Factory) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Factory){
		"PublishedArrivesUnchanged":    testArrivesUnchanged,
		"MessageWaitsForConsumer":      testWaitsForConsumer,
		"BatchBeyondTheWindow":         testLargeBatch,
		"PublishersInParallel":         testParallelPublishers,
		"MandatoryReportsTheRightOne":  testMandatory,
		"InvalidCostsOnlyItself":       testInvalid,
		"EndedContextPublishesNothing": testEndedContext,
		"TopicRouting":                 testTopicRouting,
		"ObserverIsNoRoute":            testObserver,
		"CompetingConsumers":           testCompetingConsumers,
		"PrefetchBoundsHandlers":       testPrefetch,
		"FailedComesAgain":             testRedelivery,
		"PoisonGoesToDeadLetters":      testDeadLetter,
		"PanicIsAFailure":              testPanic,
		"LongJobDelaysNobody":          testLongJob,
		"EndOfConsumeDrains":           testDrain,
		"CloseEndsEverything":          testClose,
		"WrongArguments":               testArguments,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, factory)
		})
	}
}

// Quiet is a logger for tests that provoke failures on purpose.
func Quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// quick is a policy whose pauses do not slow the suite.
func quick() bus.Policy {
	return bus.Policy{Attempts: 3, RetryDelay: time.Millisecond, MaxRetryDelay: time.Millisecond}
}

// Topology returns a topology with names of its own, so parallel tests can share
// a broker. Each binding makes one queue of that number: queue 0, queue 1, …
func Topology(bindings ...string) bus.Topology {
	raw := make([]byte, 6)
	if _, err := rand.Read(raw); err != nil {
		panic(err) // never fails on the systems Go supports
	}
	prefix := "t" + hex.EncodeToString(raw)
	topology := bus.Topology{
		Exchange: prefix, DeadLetterExchange: prefix + ".dlx", DeadLetterQueue: prefix + ".dlq",
	}
	for i, b := range bindings {
		topology.Queues = append(topology.Queues, bus.Queue{
			Name: fmt.Sprintf("%s.q%d", prefix, i), Bindings: []string{b}, Quorum: true,
		})
	}
	return topology
}

// fixture is one bus under test and the consumers running on it.
type fixture struct {
	bus.Bus
	t        *testing.T
	topology bus.Topology
	running  sync.WaitGroup
}

func setup(t *testing.T, factory Factory, topology bus.Topology) *fixture {
	t.Helper()
	f := &fixture{t: t, topology: topology, Bus: factory(t, topology, quick())}
	t.Cleanup(func() { // t.Context() has ended by now, and with it the consumers
		f.running.Wait()
		require.NoError(t, f.Close())
	})
	return f
}

// consume runs a consumer until the test ends or the returned function is
// called, which waits for it.
func (f *fixture) consume(queue string, prefetch int, h bus.Handler) (stop func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	f.running.Go(func() {
		defer close(done)
		// A bus closed by the test itself is reported there.
		_ = f.Consume(ctx, queue, prefetch, h)
	})
	return func() {
		cancel()
		<-done
	}
}

// collect runs a consumer that sends what it gets to the returned channel.
func (f *fixture) collect(queue string) <-chan bus.Message {
	got := make(chan bus.Message, 4096)
	f.consume(queue, 10, func(_ context.Context, m bus.Message) error {
		got <- m
		return nil
	})
	return got
}

func (f *fixture) queue(i int) string { return f.topology.Queues[i].Name }

// publish publishes and requires that everything is confirmed.
func (f *fixture) publish(messages ...bus.Message) {
	f.t.Helper()
	for i, err := range f.Publish(f.t.Context(), messages) {
		require.NoError(f.t, err, "message %d", i)
	}
}

// message returns the i-th message for a routing key.
func message(i int, key string) bus.Message {
	return bus.Message{ID: fmt.Sprintf("%s-%d", key, i), RoutingKey: key, Body: fmt.Appendf(nil, "body %d", i), Mandatory: true}
}

func messages(n int, key string) []bus.Message {
	all := make([]bus.Message, n)
	for i := range all {
		all[i] = message(i, key)
	}
	return all
}

// receive waits for one value.
func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		require.FailNow(t, "nothing arrived")
	}
	panic("unreachable")
}

// receiveIDs waits for n messages and counts their ids.
func receiveIDs(t *testing.T, c <-chan bus.Message, n int) map[string]int {
	t.Helper()
	ids := make(map[string]int, n)
	for range n {
		ids[receive(t, c).ID]++
	}
	return ids
}
