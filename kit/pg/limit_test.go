package pg_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
)

// ways are all ways to run a statement.
func ways() map[string]func(ctx context.Context, db *pg.DB, sql string) error {
	return map[string]func(ctx context.Context, db *pg.DB, sql string) error{
		"exec": func(ctx context.Context, db *pg.DB, sql string) error {
			_, err := db.Exec(ctx, sql)
			return err
		},
		"query": func(ctx context.Context, db *pg.DB, sql string) error {
			rows, err := db.Query(ctx, sql)
			if err != nil {
				return err
			}
			_, err = pgx.CollectRows(rows, pgx.RowTo[any])
			return err
		},
		"row": func(ctx context.Context, db *pg.DB, sql string) error {
			return db.QueryRow(ctx, sql).Scan(new(any))
		},
		"batch": func(ctx context.Context, db *pg.DB, sql string) error {
			b := &pgx.Batch{}
			b.Queue(sql)
			return db.SendBatch(ctx, b).Close()
		},
		"row of a batch": func(ctx context.Context, db *pg.DB, sql string) error {
			b := &pgx.Batch{}
			b.Queue(sql)
			results := db.SendBatch(ctx, b)
			return errors.Join(results.QueryRow().Scan(new(any)), results.Close())
		},
		"in a batch": func(ctx context.Context, db *pg.DB, sql string) error {
			b := &pgx.Batch{}
			b.Queue(sql)
			return db.InBatch(ctx, nil, b)
		},
		"read": func(ctx context.Context, db *pg.DB, sql string) error {
			_, err := pg.Read(ctx, db, nil, func(rows pgx.Rows) ([]any, error) { return pgx.CollectRows(rows, pgx.RowTo[any]) }, sql)
			return err
		},
		"transaction": func(ctx context.Context, db *pg.DB, sql string) error {
			return db.InTx(ctx, nil, func(tx *pg.Tx) error {
				_, err := tx.Exec(context.Background(), sql)
				return err
			})
		},
		"savepoint": func(ctx context.Context, db *pg.DB, sql string) error {
			return db.InTx(ctx, nil, func(tx *pg.Tx) error {
				point, err := tx.Begin(ctx)
				if err != nil {
					return err
				}
				_, err = point.Exec(context.WithoutCancel(ctx), sql)
				return err
			})
		},
	}
}

// TestEveryStatementEnds: by whatever way it is run, and in whatever context, a statement
// ends by the limit of its handle, as UNAVAILABLE.
func TestEveryStatementEnds(t *testing.T) {
	t.Parallel()
	db := open(t).Within(300 * time.Millisecond)
	for name, run := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			later, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			for _, ctx := range []context.Context{context.Background(), later} {
				err := run(ctx, db, "SELECT pg_sleep(60)")
				require.True(t, unavailable(err), "%v", err)
				require.NotZero(t, apierr.From(err).RetryAfter)
			}
		})
	}
}

// TestCallersDeadlineIsTheirs: where the caller's own deadline passes, it is not our fault.
func TestCallersDeadlineIsTheirs(t *testing.T) {
	t.Parallel()
	db := open(t)
	for name, run := range ways() {
		if name == "transaction" || name == "savepoint" {
			continue // these use other contexts on purpose
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			err := run(ctx, db, "SELECT pg_sleep(60)")
			require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_DEADLINE_EXCEEDED), "%v", err)
		})
	}
}

// TestServerGivesUpFirst: a server that works ends what takes too long, by whatever way, and
// the connection stays good; Within moves both limits.
func TestServerGivesUpFirst(t *testing.T) {
	t.Parallel()
	db := open(t).With(pg.Set("statement_timeout", "200"))
	longer := open(t).Within(time.Minute)
	for name, run := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := run(t.Context(), db, "SELECT pg_sleep(60)")
			require.True(t, unavailable(err), "%v", err)
			require.ErrorContains(t, err, "statement timeout")
			require.NoError(t, run(t.Context(), longer, "SELECT current_setting('statement_timeout')"))
		})
	}
	var limit string
	require.NoError(t, longer.QueryRow(t.Context(), "SELECT current_setting('statement_timeout')").Scan(&limit))
	require.Equal(t, "59s", limit)
}

// TestWaitForAConnectionIsLimited: the wait for a connection of the pool counts too.
func TestWaitForAConnectionIsLimited(t *testing.T) {
	t.Parallel()
	db, err := pg.Open(t.Context(), pg.Config{URL: pgtest.New(t).URL, MaxConns: 1})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	err = db.InTx(t.Context(), nil, func(*pg.Tx) error {
		for name, run := range ways() {
			err := run(context.Background(), db.Within(50*time.Millisecond), "SELECT 1")
			require.True(t, unavailable(err), "%s: %v", name, err)
		}
		return nil
	})
	require.NoError(t, err)
}

// TestTxEndsWithItsOwnContext: a statement also ends with the context that it is given.
func TestTxEndsWithItsOwnContext(t *testing.T) {
	t.Parallel()
	db := open(t)
	err := db.InTx(t.Context(), nil, func(tx *pg.Tx) error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := tx.Exec(ctx, "SELECT 1")
		return err
	})
	require.ErrorIs(t, err, context.Canceled)
}
