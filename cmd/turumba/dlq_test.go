package main

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/rabbitmq"
	"github.com/turumba/turumba/kit/bus/rabbitmq/rabbittest"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/embedded"
	"github.com/turumba/turumba/kit/telemetry"
	messaging "github.com/turumba/turumba/services/messaging/app"
	"github.com/turumba/turumba/worker/relay"
)

// stuckEvent is one that the relay has failed with.
const stuckEvent = `INSERT INTO outbox_events (id, event_type, aggregate_type, aggregate_id, payload, due_at, attempts, last_error)
	VALUES ('01990000-0000-7000-8000-000000000001', 'group_message.queued', 'group_message', 'x', '{"event_id":"y"}', now() + interval '1 hour', 12, 'bus: message unroutable')`

// TestDLQCommand: dead letters of a broker and stuck events of a database, listed,
// shown and given back.
func TestDLQCommand(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	server, err := embedded.Start(t.Context(), embedded.Options{DataDir: data})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.WithoutCancel(t.Context()))) })
	at := server.URL("turumba_messaging")
	require.NoError(t, pg.EnsureDatabase(t.Context(), at))
	require.NoError(t, messaging.Migrate(t.Context(), at))
	conn, err := pgx.Connect(t.Context(), at)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), stuckEvent)
	require.NoError(t, err)
	env := []string{"TURUMBA_DATA_DIR=" + data}
	found := func(args ...string) (r dlqReport) {
		code, stdout, stderr := play(t, env, append([]string{"dlq"}, append(args, "--json")...)...)
		require.Zero(t, code, stderr)
		require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
		return r
	}
	r := found("list")
	require.Equal(t, noBroker, r.Note, "the in-process bus has none that could be seen")
	require.Len(t, r.Letters, 1)
	require.Equal(t, "outbox", r.Letters[0].Source)
	require.Equal(t, "not published after 12 attempts: bus: message unroutable", r.Letters[0].Reason)

	broker := rabbittest.Start(t)
	env = append(env, "AMQP_URL="+broker.URL())
	oneLine(t, "a worker declares it", env, "dlq", "list")
	got := die(t, broker.URL(), bus.Message{ID: "alien\x1b[2J", RoutingKey: "group_message.created", Body: []byte("<script>")}, bus.Message{ID: "2", RoutingKey: "group_message.queued", Body: []byte(`{"event_id":"2","event_type":"group_message.queued"}`)})
	require.Eventually(t, func() bool { return len(found("list").Letters) == 3 }, 30*time.Second, 50*time.Millisecond)
	require.Len(t, found("list", "--type", "group_message.queued").Letters, 2)
	require.JSONEq(t, `{"event_id":"2","event_type":"group_message.queued"}`, found("show", "--id", "2").Letters[0].Body)
	require.Contains(t, found("list", "--type", "group_message.created").Letters[0].Problem, "is no event in JSON")
	code, stdout, _ := play(t, env, "dlq", "list")
	require.Zero(t, code)
	require.Contains(t, stdout, "delivery_limit")
	require.NotContains(t, stdout, "\x1b")
	require.NotContains(t, stdout, "<script>")
	oneLine(t, "--id, --type or --all", env, "dlq", "redrive")
	oneLine(t, "there is no dead letter", env, "dlq", "show", "--id", "3")

	require.Equal(t, 2, found("redrive", "--type", "group_message.queued").Redriven)
	require.Equal(t, "2", (<-got).ID)
	var due bool
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT due_at <= now() FROM outbox_events").Scan(&due))
	require.True(t, due, "the relay tries it at once")
	require.Equal(t, 2, found("redrive", "--all").Redriven, "the alien, and the event that nobody has published yet")
	require.Equal(t, "alien\x1b[2J", (<-got).ID)
	require.NoError(t, conn.Close(t.Context()))
}

// die lets messages fail for good, and tells what comes after that.
func die(t *testing.T, url string, messages ...bus.Message) <-chan bus.Message {
	t.Helper()
	b, err := rabbitmq.Dial(t.Context(), url, relay.Topology(true, true), rabbitmq.Options{Policy: bus.Policy{RetryDelay: time.Millisecond}, Logger: telemetry.Discard()})
	require.NoError(t, err)
	require.NoError(t, b.Ready(t.Context()))
	got, attempts, slots := make(chan bus.Message, 10), map[string]int{}, make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.Consume(ctx, relay.GroupQueue, 10, func(_ context.Context, m bus.Message) error {
			slots <- struct{}{}
			defer func() { <-slots }()
			if attempts[m.ID]++; attempts[m.ID] <= 5 {
				return errors.New("not yet")
			}
			got <- m
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, b.Close())
	})
	for _, err := range b.Publish(t.Context(), messages) {
		require.NoError(t, err)
	}
	return got
}
