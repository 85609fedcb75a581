package app_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/rabbitmq"
	"github.com/turumba/turumba/kit/bus/rabbitmq/rabbittest"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/worker/relay"
)

// TestPoison is catalogue F-22: whatever is no hint of ours ends in the dead letters
// after five attempts, with a reason, while a send passes by. A handler that panics
// is a case of the bus's own suite.
func TestPoison(t *testing.T) {
	t.Parallel()
	broker := rabbittest.Start(t)
	topology := relay.Topology(true, true)
	policy := bus.Policy{RetryDelay: time.Millisecond, MaxRetryDelay: 10 * time.Millisecond}
	b, err := rabbitmq.Dial(t.Context(), broker.URL(), topology, rabbitmq.Options{Logger: telemetry.Discard(), Policy: policy})
	require.NoError(t, err)
	require.NoError(t, b.Ready(t.Context()))
	w := newWorld(t)
	w.people(50, nil)
	w.startOn(b)

	poison := w.poison()
	require.Equal(t, make([]error, len(poison)), b.Publish(t.Context(), poison))
	sent := w.final(w.queue())
	require.EqualValues(t, 50, sent.Sent, "a send passes by")

	dead, err := rabbitmq.OpenDeadLetters(t.Context(), broker.URL(), topology, rabbitmq.Options{})
	require.NoError(t, err)
	defer dead.Close(t.Context())
	var letters []rabbitmq.DeadLetter
	look := func(redrive bool) int {
		letters = nil
		require.NoError(t, dead.Review(t.Context(), func(l rabbitmq.DeadLetter) bool {
			letters = append(letters, l)
			return redrive
		}, func(l rabbitmq.DeadLetter, err error) { t.Errorf("%s: %v", l.ID, err) }))
		return len(letters)
	}
	all := func() bool { return look(false) == len(poison) }
	require.Eventually(t, all, patience, 50*time.Millisecond)
	for _, l := range letters {
		require.Equal(t, "delivery_limit", l.Reason, l.ID)
		require.Contains(t, []string{relay.GroupQueue, relay.DispatchQueue("email", "bulk")}, l.Queue, l.ID)
	}
	look(true)
	require.Eventually(t, all, patience, 50*time.Millisecond, "given back unmended they die again")
	require.EqualValues(t, 50, w.final(w.queue()).Sent)
}

// poison is the set, for a queue with rows of its own and for one without.
func (w *world) poison() []bus.Message {
	w.t.Helper()
	known := w.queue()
	w.exec("DELETE FROM fanout_jobs") // it is here to be named, not to be sent
	w.exec("DELETE FROM outbox_events")
	other := messaging.NewID()
	var list []bus.Message
	for _, key := range []string{"group_message.queued", "message.dispatch.email.bulk"} {
		event := func(id string, change map[string]any) []byte {
			ev := map[string]any{
				"event_id": id, "event_type": key, "aggregate_type": "x", "aggregate_id": known, "account_id": w.account, "schema_version": 1,
			}
			maps.Copy(ev, change)
			body, err := json.Marshal(ev)
			require.NoError(w.t, err)
			return body
		}
		add := func(name string, body []byte, headers map[string]string) {
			list = append(list, bus.Message{ID: name, RoutingKey: key, Body: body, Headers: headers, Mandatory: true})
		}
		add("empty", nil, nil)
		add("broken JSON", []byte(`{"event_id":`), nil)
		add("unknown type", event("unknown type", map[string]any{"event_type": "group_message.exploded"}), nil)
		add("unknown version", event("unknown version", map[string]any{"schema_version": 99}), nil)
		add("no ids", event("no ids", map[string]any{"aggregate_id": "1"}), nil)
		add("5 MiB", event("5 MiB", map[string]any{"request_id": strings.Repeat("x", 5<<20)}), nil)
		add("other content type", event("other content type", nil), map[string]string{bus.HeaderContentType: "application/xml"})
		if key == "group_message.queued" {
			add("missing row", event("missing row", map[string]any{"aggregate_id": other}), nil)
			add("row of another account", event("row of another account", map[string]any{"account_id": other}), nil)
		}
	}
	return list
}
