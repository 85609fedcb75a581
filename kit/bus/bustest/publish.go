package bustest

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/bus"
)

func testArrivesUnchanged(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a.*"))
	got := f.collect(f.queue(0))
	sent := bus.Message{
		ID: "id 1", RoutingKey: "a.b", Body: []byte("{\"x\": 1}\x00\xff"), Mandatory: true,
		Headers: map[string]string{"traceparent": "00-ab", "empty": "", bus.HeaderContentType: "application/json"},
	}
	body := string(sent.Body)
	f.publish(sent)
	for i := range sent.Body {
		sent.Body[i] = 'x' // the publisher may reuse it
	}
	m := receive(t, got)
	require.Equal(t, sent.ID, m.ID)
	require.Equal(t, sent.RoutingKey, m.RoutingKey)
	require.Equal(t, body, string(m.Body))
	require.Equal(t, sent.Headers, m.Headers)
	require.False(t, m.Redelivered)
	f.publish(bus.Message{ID: "bare", RoutingKey: "a.c"})
	m = receive(t, got)
	require.Equal(t, "bare", m.ID)
	require.Empty(t, m.Body)
	require.Empty(t, m.Headers)
}

func testWaitsForConsumer(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a.#"))
	f.publish(messages(3, "a.b")...)
	require.Len(t, receiveIDs(t, f.collect(f.queue(0)), 3), 3)
}

func testLargeBatch(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a"))
	f.publish(messages(1_300, "a")...)
	require.Empty(t, f.Publish(t.Context(), nil))
	require.Len(t, receiveIDs(t, f.collect(f.queue(0)), 1_300), 1_300)
}

func testParallelPublishers(t *testing.T, factory Factory) {
	t.Helper()
	const publishers, each = 8, 100
	keys := strings.Split("a.a a.b a.c a.d a.e a.f a.g a.h", " ")
	f := setup(t, factory, Topology("a.*"))
	results := make([][]error, publishers)
	var running sync.WaitGroup
	for i := range publishers {
		running.Go(func() {
			batch := messages(each, keys[i])
			batch = append(batch, message(i, "nowhere"))
			results[i] = f.Publish(t.Context(), batch)
		})
	}
	running.Wait()
	for _, errs := range results {
		for _, err := range errs[:each] {
			require.NoError(t, err)
		}
		require.ErrorIs(t, errs[each], bus.ErrUnroutable)
	}
	require.Len(t, receiveIDs(t, f.collect(f.queue(0)), publishers*each), publishers*each)
}

func testMandatory(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a.*"))
	batch := []bus.Message{
		message(0, "a.b"), message(1, "lost.b"), message(2, "a.c"),
		{ID: "3", RoutingKey: "lost.c"},
		message(4, "a.b.c"), message(5, "a.d"),
	}
	errs := f.Publish(t.Context(), batch)
	require.Len(t, errs, len(batch))
	for i, err := range errs {
		if i == 1 || i == 4 {
			require.ErrorIs(t, err, bus.ErrUnroutable, "message %d", i)
			continue
		}
		require.NoError(t, err, "message %d", i)
	}
	require.Equal(t, map[string]int{"a.b-0": 1, "a.c-2": 1, "a.d-5": 1}, receiveIDs(t, f.collect(f.queue(0)), 3))
}

func testInvalid(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a"))
	batch := []bus.Message{
		message(0, "a"),
		{RoutingKey: "a"},
		{ID: "2", RoutingKey: strings.Repeat("k", 300)},
		{ID: "3", RoutingKey: "a", Headers: map[string]string{strings.Repeat("k", 200): "v"}},
		message(4, "a"),
	}
	errs := f.Publish(t.Context(), batch)
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], bus.ErrInvalid)
	require.ErrorIs(t, errs[2], bus.ErrInvalid)
	require.ErrorIs(t, errs[3], bus.ErrInvalid)
	require.NoError(t, errs[4])
	require.Len(t, receiveIDs(t, f.collect(f.queue(0)), 2), 2)
}

func testEndedContext(t *testing.T, factory Factory) {
	t.Helper()
	f := setup(t, factory, Topology("a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, f.Publish(ctx, messages(1, "a"))[0], bus.ErrUnavailable)
	f.publish(message(7, "a"))
	require.Equal(t, "a-7", receive(t, f.collect(f.queue(0))).ID)
}

func testTopicRouting(t *testing.T, factory Factory) {
	t.Helper()
	bindings := []string{"group.*", "group.queued", "#", "*.queued", "group.#", "#.end"}
	f := setup(t, factory, Topology(bindings...))
	keys := []string{"group", "group.queued", "group.a.queued", "other.queued", "group.a.end", "end", "x.y"}
	want := make([][]string, len(bindings))
	for i, key := range keys {
		f.publish(bus.Message{ID: key, RoutingKey: key, Mandatory: true})
		for q, pattern := range bindings {
			if bus.Match(pattern, keys[i]) {
				want[q] = append(want[q], key)
			}
		}
	}
	require.Equal(t, []string{"group.queued"}, want[1])
	for q := range bindings {
		ids := receiveIDs(t, f.collect(f.queue(q)), len(want[q]))
		for _, key := range want[q] {
			require.Equal(t, 1, ids[key], "%s in the queue of %s", key, bindings[q])
		}
	}
}

func testObserver(t *testing.T, factory Factory) {
	t.Helper()
	topology := Topology("a", "#")
	topology.Queues[1].Optional = true
	f := setup(t, factory, topology)
	observed, worked := f.collect(f.queue(1)), f.collect(f.queue(0))
	errs := f.Publish(t.Context(), []bus.Message{message(0, "a"), message(1, "b"), {ID: "2", RoutingKey: "c"}})
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], bus.ErrUnroutable, "the observer must not hide the missing queue")
	require.NoError(t, errs[2])
	require.Equal(t, "a-0", receive(t, worked).ID)
	require.Equal(t, map[string]int{"a-0": 1, "b-1": 1, "2": 1}, receiveIDs(t, observed, 3))
}
