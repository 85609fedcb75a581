package jobs_test

import (
	"context"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/telemetry"
)

var work = pg.MigrationSet{Name: "work", FS: fstest.MapFS{"00001_work.sql": {Data: []byte(`-- +goose Up
CREATE TABLE work (id int PRIMARY KEY, epoch int NOT NULL DEFAULT 0, lease_until timestamptz NOT NULL DEFAULT now(), done int NOT NULL DEFAULT 0);
GRANT SELECT, INSERT, UPDATE ON work TO turumba_worker;
`)}}}

// TestHalfOpenDatabase: connections go silent while the queue is idle, or in the middle
// of jobs; all jobs are done over new ones, each once.
func TestHalfOpenDatabase(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]int{"idle": 0, "in the middle": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := pgtest.New(t, work)
			direct := d.Open(t, pg.RoleWorker)
			proxy, url := pgtest.Silence(t, d.URL)
			db := (&pgtest.Database{URL: url}).Open(t, pg.RoleWorker)
			t.Cleanup(proxy.Cut) // before the pool is closed, which waits for silent ones
			loops, err := jobs.NewLoops(clock.System(), nil)
			require.NoError(t, err)
			q := workQueue(db, loops)
			ctx, stop := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- q.Run(ctx) }()
			add := func(from, to int) {
				_, err := direct.Exec(t.Context(), "INSERT INTO work (id) SELECT generate_series($1::int, $2::int)", from, to)
				require.NoError(t, err)
				q.Wake()
			}
			done := func(where string) (n int) {
				require.NoError(t, direct.QueryRow(t.Context(), "SELECT count(*) FROM work WHERE "+where).Scan(&n))
				return n
			}
			add(1, 40)
			require.Eventually(t, func() bool { return done("done > 0") > before }, time.Minute, time.Millisecond)
			if before == 0 {
				require.Eventually(t, func() bool { return done("done > 0") == 40 }, time.Minute, time.Millisecond)
			}
			require.NotZero(t, proxy.Freeze())
			add(41, 60)
			require.Eventually(t, func() bool { return done("done > 0") == 60 }, time.Minute, 10*time.Millisecond)
			require.Zero(t, done("done > 1"), "each once")
			require.NoError(t, loops.Ready(t.Context()))
			stop()
			require.NoError(t, <-ran)
		})
	}
}

// workQueue has small limits, which the test waits for.
func workQueue(db *pg.DB, loops *jobs.Loops) *jobs.Queue[claimed] {
	held := func(ctx context.Context, c *claimed, set string, args ...any) error {
		tag, err := db.Exec(ctx, "UPDATE work SET "+set+" WHERE id = $1 AND epoch = $2", append([]any{c.id, c.epoch}, args...)...)
		if err == nil && tag.RowsAffected() == 0 {
			return jobs.ErrFenced
		}
		return err
	}
	return &jobs.Queue[claimed]{
		Name: "work", Workers: 3, Lease: 3 * time.Second, Poll: 50 * time.Millisecond, Limit: 300 * time.Millisecond, Stall: 600 * time.Millisecond,
		Clock: clock.System(), Logger: telemetry.Discard(), Loops: loops,
		Claim: func(ctx context.Context, lease time.Duration) (*claimed, error) {
			c := &claimed{}
			err := db.QueryRow(ctx, `
				UPDATE work SET epoch = epoch + 1, lease_until = now() + $1
				WHERE id = (SELECT id FROM work WHERE done = 0 AND lease_until <= now() ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
				RETURNING id, epoch`, lease).Scan(&c.id, &c.epoch)
			if err != nil {
				return nil, pg.NoRows(err, nil)
			}
			return c, nil
		},
		Do: func(ctx context.Context, c *claimed) error {
			if err := held(ctx, c, "lease_until = now() + interval '3 seconds'"); err != nil {
				return err
			}
			jobs.Progress(ctx)
			return held(ctx, c, "done = done + 1")
		},
		Release: func(ctx context.Context, c *claimed, delay time.Duration) error {
			return held(ctx, c, "lease_until = now() + $3", delay)
		},
	}
}
