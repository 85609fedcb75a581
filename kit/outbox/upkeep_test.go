package outbox_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
)

// addDay makes the partition of a past day with one row.
func (b *testBundle) addDay(t *testing.T, daysAgo int, published bool) {
	t.Helper()
	_, err := b.owner.Exec(t.Context(), "SELECT outbox_add_partition((now() AT TIME ZONE 'UTC')::date - $1::int)", daysAgo)
	require.NoError(t, err)
	_, err = b.admin.Exec(t.Context(), `
		INSERT INTO outbox_events (id, event_type, aggregate_type, aggregate_id, payload, created_at, published_at)
		VALUES (gen_random_uuid(), 'a.b', 'a', '1', '{}', now() - make_interval(days => $1), CASE WHEN $2 THEN now() END)`, daysAgo, published)
	require.NoError(t, err)
}

func (b *testBundle) partitions(t *testing.T) int {
	t.Helper()
	return scalar[int](t, b, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'outbox_events'::regclass")
}

func TestUpkeepMakesAndDropsDays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.Equal(t, outbox.AheadDays+1, b.partitions(t), "today and the days ahead")
	b.addDay(t, 7, true)
	b.addDay(t, 8, true)
	b.addDay(t, 9, false)
	b.addDay(t, 30, true)
	_, err := b.admin.Exec(t.Context(), "DROP TABLE outbox_events_"+systemClock().Now().UTC().AddDate(0, 0, outbox.AheadDays).Format("20060102"))
	require.NoError(t, err)

	u, err := outbox.Upkeep(t.Context(), b.worker)
	require.NoError(t, err)
	require.Equal(t, 1, u.Created)
	require.Equal(t, 2, u.Dropped, "8 and 30 days ago")
	require.Equal(t, 1, u.Held, "9 days ago is not published yet")
	require.Equal(t, systemClock().Now().UTC().AddDate(0, 0, outbox.AheadDays).Format(time.DateOnly), u.ReadyUntil.Format(time.DateOnly))
	require.Equal(t, outbox.AheadDays+1+2, b.partitions(t))
	require.Equal(t, 1, b.unpublished(t))

	_, err = b.admin.Exec(t.Context(), "UPDATE outbox_events SET published_at = now()")
	require.NoError(t, err)
	u, err = outbox.Upkeep(t.Context(), b.worker)
	require.NoError(t, err)
	require.Equal(t, 1, u.Dropped)
	require.Zero(t, u.Created+u.Held)
}

// TestUpkeepDoesNotWaitForWriters shows that a long transaction on the table
// postpones the drop and nothing else.
func TestUpkeepDoesNotWaitForWriters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.addDay(t, 8, true)
	tx, err := b.api.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }() // when the test fails
	require.NoError(t, outbox.Append(t.Context(), &pg.Tx{Tx: tx}, event("a.b")))
	u, err := outbox.Upkeep(t.Context(), b.worker)
	require.NoError(t, err)
	require.Equal(t, 1, u.Held)
	require.NoError(t, tx.Commit(t.Context()))
	u, err = outbox.Upkeep(t.Context(), b.worker)
	require.NoError(t, err)
	require.Equal(t, 1, u.Dropped)
	require.Equal(t, 1, b.unpublished(t))
}

func TestUpkeepInParallel(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.addDay(t, 8, true)
	results := make(chan error, 4)
	for range 4 {
		go func() {
			_, err := outbox.Upkeep(t.Context(), b.worker)
			results <- err
		}()
	}
	for range 4 {
		require.NoError(t, <-results)
	}
	require.Equal(t, outbox.AheadDays+1, b.partitions(t))
}

func TestUpkeepPurgesTheInbox(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.admin.Exec(t.Context(), `
		INSERT INTO inbox (event_id, consumer, received_at)
		SELECT gen_random_uuid(), 'c', now() - make_interval(days => CASE WHEN n <= 6000 THEN 9 ELSE 1 END) FROM generate_series(1, 6010) n`)
	require.NoError(t, err)
	u, err := outbox.Upkeep(t.Context(), b.worker)
	require.NoError(t, err)
	require.EqualValues(t, 6000, u.Purged)
	require.Equal(t, 10, scalar[int](t, b, "SELECT count(*) FROM inbox"))
}

// TestClaimPlan keeps the claim on the partial indexes and out of the days to
// come.
func TestClaimPlan(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.admin.Exec(t.Context(), `
		INSERT INTO outbox_events (id, event_type, aggregate_type, aggregate_id, payload, published_at)
		SELECT gen_random_uuid(), 'a.b', 'a', '1', '{}', now() FROM generate_series(1, 5000)`)
	require.NoError(t, err)
	_, err = b.admin.Exec(t.Context(), "ANALYZE outbox_events")
	require.NoError(t, err)
	tx, err := b.worker.BeginTx(t.Context(), pgx.TxOptions{BeginQuery: outbox.BeginBatch})
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	rows, err := tx.Query(t.Context(), "EXPLAIN "+outbox.ClaimSQL, 500)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	plan := fmt.Sprint(lines)
	require.NotContains(t, plan, "Seq Scan")
	require.NotContains(t, plan, "Sort  (")
	require.Contains(t, plan, "Merge Append")
	require.Contains(t, plan, "Subplans Removed")
}

func TestListenerHearsAndComesBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	heard := make(chan struct{}, 100)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 2)
	l := &outbox.Listener{Pool: b.worker, Clock: systemClock(), Logger: quiet()}
	go func() { done <- l.Run(ctx, func() { heard <- struct{}{} }) }()
	receive(t, heard) // connected
	n := outbox.NewNotifier(b.api, systemClock(), quiet())
	go func() { done <- n.Run(ctx) }()
	n.Notify()
	receive(t, heard)
	require.Equal(t, 1, scalar[int](t, b, `
		SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE query = 'LISTEN outbox_channel' AND datname = current_database()`))
	receive(t, heard) // connected again
	n.Notify()
	receive(t, heard)
	stop()
	require.NoError(t, <-done)
	require.NoError(t, <-done)
}
