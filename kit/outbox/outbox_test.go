package outbox_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/turumba/turumba/gen/turumba/event/v1"
	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, pgtest.Goleak()...) }

// patience is how long something that must happen may take; never waited out
// when all is well.
const patience = 30 * time.Second

// testBundle is a fresh database seen by each role.
type testBundle struct {
	api, worker, owner, admin *pgxpool.Pool
}

func setup(t testing.TB) *testBundle {
	t.Helper()
	d := pgtest.New(t, outbox.Migrations())
	return &testBundle{
		api: d.Open(t, pg.RoleAPI).Pool(), worker: d.Open(t, pg.RoleWorker).Pool(),
		owner: d.Open(t, pg.RoleOwner).Pool(), admin: d.Open(t, "").Pool(),
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func event(kind string) *eventv1.Event {
	return &eventv1.Event{
		EventType: kind, AggregateType: "group_message", AggregateId: "0198c0de-0000-7000-8000-000000000001",
		AccountId: "0198c0de-0000-7000-8000-00000000000a", OccurredAt: timestamppb.New(time.Unix(1_770_000_000, 0)),
		SchemaVersion: 1, Data: &structpb.Struct{Fields: map[string]*structpb.Value{"status": structpb.NewStringValue("queued")}},
	}
}

// appendAll appends events as the API role and commits.
func (b *testBundle) appendAll(t testing.TB, events ...*eventv1.Event) []string {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), b.api, func(tx pgx.Tx) error {
		return outbox.Append(t.Context(), &pg.Tx{Tx: tx}, events...)
	}))
	ids := make([]string, len(events))
	for i, ev := range events {
		ids[i] = ev.GetEventId()
	}
	return ids
}

func events(n int, kind string) []*eventv1.Event {
	all := make([]*eventv1.Event, n)
	for i := range all {
		all[i] = event(kind)
	}
	return all
}

// scalar runs a query of one value as the administrator.
func scalar[T any](t testing.TB, b *testBundle, sql string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, b.admin.QueryRow(t.Context(), sql, args...).Scan(&v))
	return v
}

func (b *testBundle) unpublished(t testing.TB) int {
	t.Helper()
	return scalar[int](t, b, "SELECT count(*) FROM outbox_events WHERE published_at IS NULL")
}

func TestAppendStoresTheEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	ctx := trace.ContextWithSpanContext(t.Context(), span)
	ev := event("group_message.queued")
	require.NoError(t, pgx.BeginFunc(ctx, b.api, func(tx pgx.Tx) error { return outbox.Append(ctx, &pg.Tx{Tx: tx}, ev) }))
	require.Len(t, ev.GetEventId(), 36)
	require.Equal(t, "00-01000000000000000000000000000000-0200000000000000-01", ev.GetTraceparent())

	payload := scalar[string](t, b, "SELECT payload::text FROM outbox_events WHERE id = $1 AND published_at IS NULL AND event_type = $2", ev.GetEventId(), ev.GetEventType())
	var stored eventv1.Event
	require.NoError(t, protojson.Unmarshal([]byte(payload), &stored))
	require.Empty(t, cmp.Diff(ev, &stored, protocmp.Transform()))
}

func TestAppendGoesWithTheTransaction(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tx, err := b.api.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, outbox.Append(t.Context(), &pg.Tx{Tx: tx}, events(3, "a.b")...))
	require.NoError(t, outbox.Append(t.Context(), &pg.Tx{Tx: tx}))
	require.NoError(t, tx.Rollback(t.Context()))
	require.Zero(t, b.unpublished(t))
}

// TestAppendWakes: who is registered hears of each commit with an event, once, and of no
// other.
func TestAppendWakes(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, outbox.Migrations())
	db, heard, boom := d.Open(t, pg.RoleAPI), 0, errors.New("boom")
	outbox.OnAppend(db, func() { heard++ })
	in := func(fn func(tx *pg.Tx) error) error { return db.InTx(t.Context(), nil, fn) }
	require.NoError(t, in(func(tx *pg.Tx) error {
		for range 3 {
			if err := outbox.Append(t.Context(), tx, event("a.b")); err != nil {
				return err
			}
		}
		require.Zero(t, heard, "before the commit there is nothing to see")
		return nil
	}))
	require.Equal(t, 1, heard)
	require.ErrorIs(t, in(func(tx *pg.Tx) error { return errors.Join(outbox.Append(t.Context(), tx, event("a.b")), boom) }), boom)
	require.NoError(t, in(func(tx *pg.Tx) error { return outbox.Append(t.Context(), tx) }))
	require.Equal(t, 1, heard)
}

func TestAppendRefusesWhatCannotBePublished(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, spoil := range map[string]func(*eventv1.Event){
		"id":       func(ev *eventv1.Event) { ev.EventId = "not a uuid" },
		"form":     func(ev *eventv1.Event) { ev.EventId = "{0198c0de-0000-7000-8000-000000000001}" },
		"no type":  func(ev *eventv1.Event) { ev.EventType = "" },
		"type":     func(ev *eventv1.Event) { ev.EventType = strings.Repeat("x", 101) },
		"time":     func(ev *eventv1.Event) { ev.OccurredAt = nil },
		"bad utf8": func(ev *eventv1.Event) { ev.AccountId = "\xff" },
		"size":     func(ev *eventv1.Event) { ev.UserId = strings.Repeat("x", outbox.MaxPayload) },
	} {
		ev := event("a.b")
		spoil(ev)
		err := pgx.BeginFunc(t.Context(), b.api, func(tx pgx.Tx) error { return outbox.Append(t.Context(), &pg.Tx{Tx: tx}, ev) })
		require.Error(t, err, name)
	}
	require.Zero(t, b.unpublished(t))
}

// TestRights is decision B6 for these tables: the API inserts and nothing else,
// the worker has no rights on a partition or on what identifies a row.
func TestRights(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.appendAll(t, event("a.b"))
	partition := "outbox_events_" + systemClock().Now().UTC().Format("20060102")
	for _, c := range []struct {
		pool *pgxpool.Pool
		sql  string
	}{
		{b.api, "SELECT 1 FROM outbox_events"},
		{b.api, "UPDATE outbox_events SET attempts = 0"},
		{b.api, "DELETE FROM outbox_events"},
		{b.api, "TRUNCATE outbox_events"},
		{b.api, "SELECT 1 FROM inbox"},
		{b.api, "DELETE FROM inbox"},
		{b.api, "SELECT outbox_upkeep(14, 7)"},
		{b.api, "INSERT INTO " + partition + " SELECT"},
		{b.worker, "DELETE FROM outbox_events"},
		{b.worker, "UPDATE outbox_events SET payload = '{}'"},
		{b.worker, "SELECT 1 FROM " + partition},
		{b.worker, "SELECT outbox_add_partition('2000-01-01')"},
		{b.worker, "UPDATE inbox SET consumer = 'x'"},
	} {
		_, err := c.pool.Exec(t.Context(), c.sql)
		var refused *pgconn.PgError
		require.ErrorAs(t, err, &refused, c.sql)
		require.Equal(t, "42501", refused.Code, c.sql)
	}
}

func TestInboxIsFreshOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := "0198c0de-0000-7000-8000-000000000001"
	note := func(pool *pgxpool.Pool, consumer string) (fresh bool) {
		require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) (err error) {
			fresh, err = outbox.Inbox(t.Context(), tx, consumer, id)
			return err
		}))
		return fresh
	}
	require.True(t, note(b.worker, "fanout"))
	require.False(t, note(b.worker, "fanout"))
	require.False(t, note(b.api, "fanout"))
	require.True(t, note(b.api, "schedule"), "another consumer has its own effect")
}

// TestInboxWaitsForItsRival shows that of two deliveries at the same time one
// has the effect, also when the first one fails.
func TestInboxWaitsForItsRival(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := "0198c0de-0000-7000-8000-000000000001"
	for _, commit := range []bool{false, true} {
		first, err := b.worker.Begin(t.Context())
		require.NoError(t, err)
		fresh, err := outbox.Inbox(t.Context(), first, "c", id)
		require.NoError(t, err)
		require.True(t, fresh)
		second := make(chan bool, 1)
		go func() {
			_ = pgx.BeginFunc(t.Context(), b.worker, func(tx pgx.Tx) error {
				fresh, err := outbox.Inbox(t.Context(), tx, "c", id)
				second <- fresh && err == nil
				return context.Canceled // leave no row behind
			})
		}()
		if commit {
			require.NoError(t, first.Commit(t.Context()))
		} else {
			require.NoError(t, first.Rollback(t.Context()))
		}
		require.Equal(t, !commit, <-second)
	}
}

func TestOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ev := event("a.b")
	b.appendAll(t, ev)
	body, err := protojson.Marshal(ev)
	require.NoError(t, err)
	m := bus.Message{ID: ev.GetEventId(), RoutingKey: "a.b", Body: body}
	effects, failing := 0, true
	h := outbox.Once(b.worker, "c", func(_ context.Context, _ pgx.Tx, got *eventv1.Event) error {
		effects++
		require.Empty(t, cmp.Diff(ev, got, protocmp.Transform()))
		if failing {
			return context.DeadlineExceeded
		}
		return nil
	})
	require.ErrorIs(t, h(t.Context(), m), context.DeadlineExceeded)
	failing = false
	require.NoError(t, h(t.Context(), m), "a failed effect leaves the event fresh")
	require.NoError(t, h(t.Context(), m))
	require.Equal(t, 2, effects)
	m.Body = []byte("{")
	require.Error(t, h(t.Context(), m))
}

func TestDecode(t *testing.T) {
	t.Parallel()
	ev, err := outbox.Decode(bus.Message{ID: "1", Body: []byte(`{"event_id":"1","event_type":"a.b","not_yet_known":{"x":1}}`)})
	require.NoError(t, err, "a newer publisher may say more")
	require.Equal(t, "a.b", ev.GetEventType())
	_, err = outbox.Decode(bus.Message{ID: "1", Body: []byte(`{"event_id":"1","event_type":"a.b","schema_version":2}`)})
	require.NoError(t, err, "a publisher may be one version ahead")
	for name, body := range map[string]string{
		"empty": "", "broken": `{"event_id":`, "other id": `{"event_id":"2","event_type":"a.b"}`,
		"no type": `{"event_id":"1"}`, "not an object": `[1]`, "secret": `{"event_id":"hunter2","event_type":5}`,
		"newer version": `{"event_id":"1","event_type":"a.b","schema_version":3}`,
		"too large":     `{"event_id":"1","event_type":"a.b","request_id":"` + strings.Repeat("x", outbox.MaxPayload) + `"}`,
	} {
		_, err := outbox.Decode(bus.Message{ID: "1", Body: []byte(body)})
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "hunter2")
	}
	_, err = outbox.Decode(bus.Message{ID: "1", Body: []byte(`{"event_id":"1","event_type":"a.b"}`), Headers: map[string]string{bus.HeaderContentType: "text/html"}})
	require.Error(t, err)
}

func FuzzDecode(f *testing.F) {
	f.Add("1", []byte(`{"event_id":"1","event_type":"a.b","data":{"k":[1,null]},"occurred_at":"2026-01-01T00:00:00Z"}`))
	f.Add("", []byte(`{}`))
	f.Fuzz(func(t *testing.T, id string, body []byte) {
		ev, err := outbox.Decode(bus.Message{ID: id, Body: body})
		if err == nil {
			require.Equal(t, id, ev.GetEventId())
			require.NotEmpty(t, ev.GetEventType())
		}
	})
}
