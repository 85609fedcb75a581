package pg_test

import (
	"context"
	"errors"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/idempotency"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, pgtest.Goleak()...) }

// things is a tenant table with the second net that every tenant table has.
var things = pg.MigrationSet{Name: "things", FS: fstest.MapFS{"00001_things.sql": {Data: []byte(`-- +goose Up
CREATE TABLE things (id uuid PRIMARY KEY, account_id uuid NOT NULL, n int NOT NULL);
ALTER TABLE things ENABLE ROW LEVEL SECURITY;
ALTER TABLE things FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON things USING (account_id = ANY (string_to_array(nullif(current_setting('app.accounts', true), ''), ',')::uuid[]));
GRANT SELECT, INSERT, UPDATE, DELETE ON things TO turumba_api;
`)}}}

func open(t *testing.T) *pg.DB {
	t.Helper()
	return pgtest.New(t, things, pg.IdempotencyMigrations()).Open(t, pg.RoleAPI)
}

func insert(ctx context.Context, tx *pg.Tx, account string, n int) error {
	_, err := tx.Exec(ctx, "INSERT INTO things (id, account_id, n) VALUES ($1, $2, $3)", uuid.NewString(), account, n)
	return err
}

func count(t *testing.T, db *pg.DB, scope ...string) int {
	t.Helper()
	n, err := pg.Read(t.Context(), db, scope, func(rows pgx.Rows) (int, error) {
		return pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	}, "SELECT count(*)::int FROM things")
	require.NoError(t, err)
	return n
}

func TestTenantSetting(t *testing.T) {
	t.Parallel()
	db, a, b := open(t), uuid.NewString(), uuid.NewString()
	for _, acc := range []string{a, b} {
		require.NoError(t, db.InTx(t.Context(), []string{acc}, func(tx *pg.Tx) error { return insert(t.Context(), tx, acc, 1) }))
	}
	require.Equal(t, 1, count(t, db, a))
	require.Equal(t, 2, count(t, db, a, b))
	require.Equal(t, 0, count(t, db), "no scope, no rows; the setting of an earlier transaction is gone")
	err := db.InTx(t.Context(), []string{a}, func(tx *pg.Tx) error { return insert(t.Context(), tx, b, 1) })
	require.ErrorContains(t, err, "row-level security")
	err = db.InTx(t.Context(), []string{"'; drop table things; --"}, func(*pg.Tx) error { return nil })
	require.ErrorContains(t, err, "not a UUID")
}

func TestInBatch(t *testing.T) {
	t.Parallel()
	db, a, b := open(t), uuid.NewString(), uuid.NewString()
	const insert = "INSERT INTO things (id, account_id, n) VALUES (gen_random_uuid(), $1, 1)"
	n := 0
	step := &pgx.Batch{}
	step.Queue(insert, a)
	step.Queue("SELECT count(*)::int FROM things").QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
	require.NoError(t, db.InBatch(t.Context(), []string{a}, step))
	require.Equal(t, 1, n)
	require.Equal(t, 1, count(t, db, a))

	step = &pgx.Batch{}
	step.Queue(insert, a)
	step.Queue(insert, b)
	require.ErrorContains(t, db.InBatch(t.Context(), []string{a}, step), "row-level security")
	require.Equal(t, 1, count(t, db, a, b), "all or nothing")
	require.ErrorContains(t, db.InBatch(t.Context(), []string{"'; drop table things; --"}, &pgx.Batch{}), "not a UUID")
	require.Zero(t, db.Pool().Stat().AcquiredConns())
}

// TestWake: who works on a kind of row hears of each commit that left one, once, and of
// no other; keys of different types are different kinds.
func TestWake(t *testing.T) {
	t.Parallel()
	type rows struct{}
	type others struct{}
	db, a := open(t), uuid.NewString()
	var heard []string
	db.OnWake(rows{}, func() { heard = append(heard, "rows") })
	db.OnWake(rows{}, func() { heard = append(heard, "rows too") })
	db.OnWake(others{}, func() { heard = append(heard, "others") })
	wake := func(err error, keys ...any) error {
		return db.InTx(t.Context(), []string{a}, func(tx *pg.Tx) error {
			for _, k := range keys {
				tx.Wake(k)
			}
			require.Empty(t, heard, "before the commit there is nothing to see")
			return err
		})
	}
	boom := errors.New("boom")
	require.ErrorIs(t, wake(boom, rows{}), boom)
	require.NoError(t, wake(nil))
	require.NoError(t, wake(nil, rows{}, rows{}))
	require.Equal(t, []string{"rows", "rows too"}, heard)
	heard = nil
	require.NoError(t, wake(nil, others{}))
	require.Equal(t, []string{"others"}, heard)
	(&pg.Tx{}).Wake(rows{}) // of no database
}

func TestZeroBytesAreTheCallersFault(t *testing.T) {
	t.Parallel()
	db := open(t)
	for sql, value := range map[string]string{"SELECT $1::text": "a\x00b", "SELECT $1::jsonb": `{"a\u0000b": 1}`} {
		err := db.InTx(t.Context(), nil, func(tx *pg.Tx) error {
			_, err := tx.Exec(t.Context(), sql, value)
			return err
		})
		require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_VALIDATION_FAILED), "%s: %v", sql, err)
	}
}

func TestRollback(t *testing.T) {
	t.Parallel()
	db, a := open(t), uuid.NewString()
	boom := errors.New("boom")
	ctx, cancel := context.WithCancel(t.Context())
	err := db.InTx(ctx, []string{a}, func(tx *pg.Tx) error {
		require.NoError(t, insert(ctx, tx, a, 1))
		cancel()
		return boom
	})
	require.ErrorIs(t, err, boom)
	require.Equal(t, 0, count(t, db, a))
	require.Zero(t, db.Pool().Stat().AcquiredConns(), "the connection is free although the request was cancelled")
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	db, a := open(t), uuid.NewString()
	create := func(ctx context.Context, answer string) error {
		return db.InTx(ctx, []string{a}, func(tx *pg.Tx) error {
			if err := tx.Idempotent(ctx, a); err != nil {
				return err
			}
			if err := insert(ctx, tx, a, 1); err != nil {
				return err
			}
			return tx.Respond(ctx, wrapperspb.String(answer))
		})
	}
	with := func(hash string) context.Context {
		return idempotency.With(t.Context(), &idempotency.Request{Method: "/s/Create", Key: "k", Hash: []byte(hash)})
	}
	require.NoError(t, create(with("one"), "first"))
	err := create(with("one"), "second")
	var replay *pg.ReplayError
	require.ErrorAs(t, err, &replay)
	m, err := replay.ReplayResponse().UnmarshalNew()
	require.NoError(t, err)
	require.True(t, proto.Equal(wrapperspb.String("first"), m))
	require.True(t, apierr.HasReason(create(with("two"), "third"), errorv1.Reason_REASON_IDEMPOTENCY_KEY_REUSED))
	require.NoError(t, create(t.Context(), "no key, no memory"))
	require.Equal(t, 2, count(t, db, a))
}

// TestIdempotencyRivals: of many at once with one key exactly one creates, and
// every other gets its answer.
func TestIdempotencyRivals(t *testing.T) {
	t.Parallel()
	db, a := open(t), uuid.NewString()
	ctx := idempotency.With(t.Context(), &idempotency.Request{Method: "/s/Create", Key: "k", Hash: []byte("h")})
	results := make(chan error, 20)
	for range cap(results) {
		go func() {
			results <- db.InTx(ctx, []string{a}, func(tx *pg.Tx) error {
				if err := tx.Idempotent(ctx, a); err != nil {
					return err
				}
				if err := insert(ctx, tx, a, 1); err != nil {
					return err
				}
				return tx.Respond(ctx, wrapperspb.String("x"))
			})
		}()
	}
	created := 0
	for range cap(results) {
		err := <-results
		var replay *pg.ReplayError
		if err == nil {
			created++
		} else {
			require.ErrorAs(t, err, &replay)
		}
	}
	require.Equal(t, 1, created)
	require.Equal(t, 1, count(t, db, a))
}

// TestIdempotencyNeedsAResponse: a claimed key without a response would answer
// nothing for a day, so it does not commit.
func TestIdempotencyNeedsAResponse(t *testing.T) {
	t.Parallel()
	db := open(t)
	claim := func(owner, hint string) error {
		ctx := idempotency.With(t.Context(), &idempotency.Request{Method: "/s/Create", Key: "k", Hash: []byte("h"), OwnerHint: hint})
		return db.InTx(ctx, nil, func(tx *pg.Tx) error { return tx.Idempotent(ctx, owner) })
	}
	for range 2 { // the first left nothing behind
		require.ErrorContains(t, claim("owner", ""), "no response stored")
	}
	require.ErrorContains(t, claim("", "user"), "no response stored", "the hint stands in for the owner")
	require.ErrorContains(t, claim("", ""), "nobody owns it")
}

// TestIdempotencyKeysEnd: after a day a key is free, purged or not.
func TestIdempotencyKeysEnd(t *testing.T) {
	t.Parallel()
	now := clock.NewFake(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	d := pgtest.New(t, pg.IdempotencyMigrations())
	db := d.OpenAt(t, pg.RoleAPI, now)
	create := func(key string) error {
		ctx := idempotency.With(t.Context(), &idempotency.Request{Method: "/s/Create", Key: key, Hash: []byte("h")})
		return db.InTx(ctx, nil, func(tx *pg.Tx) error {
			if err := tx.Idempotent(ctx, "owner"); err != nil {
				return err
			}
			return tx.Respond(ctx, wrapperspb.String("x"))
		})
	}
	require.NoError(t, create("a"))
	require.NoError(t, create("b"))
	now.Advance(24 * time.Hour)
	require.Error(t, create("a"), "kept for the whole day")
	now.Advance(time.Second)
	require.NoError(t, create("a"))
	purged, err := db.PurgeIdempotencyKeys(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, purged, "b; a is young again")
}

// TestSession: every session has limits, the product's time zone and its role.
func TestSession(t *testing.T) {
	t.Parallel()
	var role, statement, lock, idle, zone string
	require.NoError(t, open(t).Pool().QueryRow(t.Context(), `
		SELECT current_user, current_setting('statement_timeout'), current_setting('lock_timeout'),
		       current_setting('idle_in_transaction_session_timeout'), current_setting('timezone')`).
		Scan(&role, &statement, &lock, &idle, &zone))
	require.Equal(t, []string{"turumba_api", "30s", "10s", "1min", "UTC"}, []string{role, statement, lock, idle, zone})
}

func TestMigrateRefusesNewer(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, things)
	older := pg.MigrationSet{Name: "things", FS: fstest.MapFS{"00001_things.sql": things.FS.(fstest.MapFS)["00001_things.sql"]}}
	newer := pg.MigrationSet{Name: "things", FS: fstest.MapFS{
		"00001_things.sql": things.FS.(fstest.MapFS)["00001_things.sql"],
		"00002_more.sql":   {Data: []byte("-- +goose Up\nCREATE TABLE more (id int);\n")},
	}}
	require.NoError(t, pg.Migrate(t.Context(), d.URL, newer))
	require.NoError(t, pg.Migrate(t.Context(), d.URL, newer), "again changes nothing")
	require.ErrorContains(t, pg.Migrate(t.Context(), d.URL, older), "run a newer program")
}

func TestOpenTellsPlainly(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{
		"no URL":     "hello world",
		"nobody":     "postgres://u:secretpw@127.0.0.1:1/db",
		"no such db": pgtest.New(t).URL + "&dbname=nowhere",
	} {
		_, err := pg.Open(t.Context(), pg.Config{URL: url, Clock: clock.System()})
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "\n", name)
		require.NotContains(t, err.Error(), "secretpw", name)
		require.Contains(t, err.Error(), "DATABASE_URL", name)
	}
}
