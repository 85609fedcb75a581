package quota_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/quota"
)

const (
	alice = "0190a5c8-0000-7000-8000-00000000000a"
	bob   = "0190a5c8-0000-7000-8000-00000000000b"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, pgtest.Goleak()...) }

var start = time.Date(2026, 11, 25, 22, 30, 0, 0, time.UTC)

func setup(t testing.TB) (*pg.DB, *clock.Fake) {
	t.Helper()
	c := clock.NewFake(start)
	return pgtest.New(t, quota.Migrations()).OpenAt(t, pg.RoleAPI, c), c
}

func take(t testing.TB, db *pg.DB, q quota.Quota, accountID string, n int64) error {
	t.Helper()
	return db.InTx(t.Context(), []string{accountID}, func(tx *pg.Tx) error { return q.Take(t.Context(), tx, accountID, n) })
}

func used(t testing.TB, db *pg.DB, q quota.Quota, accountID string) int64 {
	t.Helper()
	n, err := q.Used(t.Context(), db, accountID)
	require.NoError(t, err)
	return n
}

func TestTakesUpToTheLimit(t *testing.T) {
	t.Parallel()
	db, c := setup(t)
	q := quota.Quota{Name: "messages_per_day", Most: 10, Daily: true}
	require.NoError(t, take(t, db, q, alice, 7))
	err := take(t, db, q, alice, 4)
	var e *apierr.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, errorv1.Reason_REASON_QUOTA_EXCEEDED, e.Reason)
	require.Equal(t, map[string]string{"quota": "messages_per_day", "limit": "10", "used": "7", "requested": "4", "resets_at": "2026-11-26T00:00:00Z"}, e.Meta)
	require.Equal(t, 90*time.Minute, e.RetryAfter)
	require.EqualValues(t, 3, quota.Left(err))
	require.EqualValues(t, 7, used(t, db, q, alice), "what is refused is not counted")

	require.NoError(t, take(t, db, q, bob, 10), "another account has its own")
	require.NoError(t, take(t, db, q, alice, 3))
	require.Error(t, take(t, db, q, alice, 1))

	c.Advance(90 * time.Minute)
	require.NoError(t, take(t, db, q, alice, 10), "a new day")
	require.EqualValues(t, 10, used(t, db, q, alice))
}

func TestWhatIsRolledBackWasNotCounted(t *testing.T) {
	t.Parallel()
	db, _ := setup(t)
	changed := errors.New("something else went wrong")
	for _, q := range []quota.Quota{{Name: "contacts"}, {Name: "contacts", Most: 5}, {Name: "contacts", Most: 1_000_000}} {
		err := db.InTx(t.Context(), []string{alice}, func(tx *pg.Tx) error {
			require.NoError(t, q.Take(t.Context(), tx, alice, 5))
			return changed
		})
		require.ErrorIs(t, err, changed)
		require.Zero(t, used(t, db, q, alice))
	}
}

func TestGivesBack(t *testing.T) {
	t.Parallel()
	db, c := setup(t)
	q := quota.Quota{Name: "messages_per_day", Most: 10, Daily: true}
	require.NoError(t, take(t, db, q, alice, 10))
	give := func(n int64, at time.Time) {
		require.NoError(t, db.InTx(t.Context(), []string{alice}, func(tx *pg.Tx) error { return q.Give(t.Context(), tx, alice, n, at) }))
	}
	give(4, start)
	require.EqualValues(t, 6, used(t, db, q, alice))
	require.NoError(t, take(t, db, q, alice, 4))
	require.Error(t, take(t, db, q, alice, 1))

	c.Advance(24 * time.Hour)
	give(4, start)
	require.Zero(t, used(t, db, q, alice), "what was counted yesterday is given back to yesterday")
}

func TestDaysThatAreOverGo(t *testing.T) {
	t.Parallel()
	db, c := setup(t)
	q := quota.Quota{Name: "messages_per_day", Most: 100_000, Daily: true}
	for range 6 {
		require.NoError(t, take(t, db, q, alice, 1))
		c.Advance(24 * time.Hour)
	}
	days, err := pg.Read(t.Context(), db, []string{alice}, pg.All[struct{ Period time.Time }], "SELECT DISTINCT period FROM quota_usage")
	require.NoError(t, err)
	require.Len(t, days, 3)
}

func TestOtherAccountsAreOutOfReach(t *testing.T) {
	t.Parallel()
	db, _ := setup(t)
	q := quota.Quota{Name: "contacts", Most: 10}
	err := db.InTx(t.Context(), []string{bob}, func(tx *pg.Tx) error { return q.Take(t.Context(), tx, alice, 1) })
	require.ErrorContains(t, err, "row-level security")
}

// TestExactUnderRivals: however many count at once, far from the limit and at it, what
// is accepted is never more than the limit, and what fits is accepted.
func TestExactUnderRivals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		most     int64
		biggest  int64
		rivals   int
		attempts int
	}{
		{"near the limit from the start", 40, 1, 8, 8},
		{"from far to near", 9_000, 500, 12, 8},
		{"with big ones among them", 30_000, 2_000, 12, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, _ := setup(t)
			q := quota.Quota{Name: "messages_per_day", Most: c.most, Daily: true}
			var accepted atomic.Int64
			var smallest atomic.Int64 // that was refused
			smallest.Store(c.most)
			var wg sync.WaitGroup
			for range c.rivals {
				wg.Go(func() {
					for range c.attempts {
						n := 1 + rand.Int64N(c.biggest)
						err := take(t, db, q, alice, n)
						switch {
						case err == nil:
							accepted.Add(n)
						case apierr.HasReason(err, errorv1.Reason_REASON_QUOTA_EXCEEDED):
							smallest.Store(min(smallest.Load(), n))
						default:
							t.Errorf("take: %v", err)
						}
					}
				})
			}
			wg.Wait()
			require.LessOrEqual(t, accepted.Load(), c.most)
			require.Equal(t, accepted.Load(), used(t, db, q, alice))
			left := c.most - accepted.Load()
			require.NoError(t, take(t, db, q, alice, left), "what is left can be used to the last")
			require.Error(t, take(t, db, q, alice, 1))
		})
	}
}

// BenchmarkTake is one transaction that counts one message, of one account by many at
// once, beside the same transaction without.
func BenchmarkTake(b *testing.B) {
	db, _ := setup(b)
	for _, c := range []struct {
		name string
		do   func(ctx context.Context, tx *pg.Tx) error
	}{
		{"nothing", func(ctx context.Context, tx *pg.Tx) error {
			_, err := tx.Exec(ctx, "SELECT txid_current()")
			return err
		}},
		{"unlimited", func(ctx context.Context, tx *pg.Tx) error { return quota.Quota{Name: "a"}.Take(ctx, tx, alice, 1) }},
		{"far from the limit", func(ctx context.Context, tx *pg.Tx) error {
			return quota.Quota{Name: "b", Most: 1 << 40}.Take(ctx, tx, alice, 1)
		}},
		{"near the limit", func(ctx context.Context, tx *pg.Tx) error {
			return quota.Quota{Name: "c", Most: 7_000}.Take(ctx, tx, alice, 1)
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetParallelism(16)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					err := db.InTx(b.Context(), []string{alice}, func(tx *pg.Tx) error { return c.do(b.Context(), tx) })
					if err != nil && !apierr.HasReason(err, errorv1.Reason_REASON_QUOTA_EXCEEDED) {
						b.Error(err)
					}
				}
			})
		})
	}
}
