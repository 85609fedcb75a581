// Package quota counts what accounts use of their quotas and refuses what would be more,
// in the transaction that does the work: what is rolled back was never counted, and what
// is counted was done. Its SQL says how many can count at once without a limit being
// passed.
package quota

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations make the table of what is used; services put them before their own.
func Migrations() pg.MigrationSet {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return pg.MigrationSet{Name: "quota", FS: sub}
}

// Quota is how much an account may use of something.
type Quota struct {
	// Name is what callers know the quota by, as in "messages_per_day".
	Name string
	// Most is the limit; 0 is none.
	Most int64
	// Daily quotas begin anew at midnight, UTC. They are counted only where there is
	// a limit, since counting is a write more with each of very many.
	Daily bool
}

// period is the day of a time, or that which never ends.
func (q Quota) period(now time.Time) string {
	if !q.Daily {
		return "-infinity"
	}
	return now.UTC().Format(time.DateOnly)
}

// Resets is when a daily quota begins anew; zero for another.
func (q Quota) Resets(now time.Time) time.Time {
	if !q.Daily {
		return time.Time{}
	}
	return now.UTC().Truncate(24*time.Hour).AddDate(0, 0, 1)
}

// Take counts n more, or answers QUOTA_EXCEEDED and counts nothing. Others of the
// account may wait until the transaction ends, so it takes once, all that it needs.
func (q Quota) Take(ctx context.Context, tx *pg.Tx, accountID string, n int64) error {
	if n == 0 || q.Daily && q.Most == 0 {
		return nil
	}
	var used *int64
	err := tx.QueryRow(ctx, "SELECT quota_take($1, $2, $3, $4, $5)", accountID, q.Name, q.period(tx.Now), n, q.Most).Scan(&used)
	if err != nil {
		return fmt.Errorf("take %d of the quota %s: %w", n, q.Name, err)
	}
	if used != nil {
		return q.Exceeded(*used, n, tx.Now)
	}
	return nil
}

// Give takes back n that was counted at a time.
func (q Quota) Give(ctx context.Context, tx *pg.Tx, accountID string, n int64, counted time.Time) error {
	if n == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, "SELECT quota_take($1, $2, $3, $4, 0)", accountID, q.Name, q.period(counted), -n)
	if err != nil {
		return fmt.Errorf("give back %d of the quota %s: %w", n, q.Name, err)
	}
	return nil
}

// querier is a transaction; see Used.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

const usedSQL = "SELECT coalesce(sum(used), 0)::bigint FROM quota_usage WHERE account_id = $1 AND name = $2 AND period = $3"

// UsedIn is what is counted so far, as a transaction sees it.
func (q Quota) UsedIn(ctx context.Context, tx querier, accountID string, now time.Time) (int64, error) {
	var used int64
	if err := tx.QueryRow(ctx, usedSQL, accountID, q.Name, q.period(now)).Scan(&used); err != nil {
		return 0, fmt.Errorf("read the use of the quota %s: %w", q.Name, err)
	}
	return used, nil
}

// Used is what is counted so far.
func (q Quota) Used(ctx context.Context, db *pg.DB, accountID string) (int64, error) {
	return pg.Read(ctx, db, []string{accountID}, func(rows pgx.Rows) (int64, error) { return pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64]) },
		usedSQL, accountID, q.Name, q.period(db.Now()))
}

// Check answers QUOTA_EXCEEDED where used and n more pass the limit.
func (q Quota) Check(used, n int64, now time.Time) error {
	if q.Most == 0 || used+n <= q.Most {
		return nil
	}
	return q.Exceeded(used, n, now)
}

// The facts of an error of Exceeded.
const (
	MetaQuota     = "quota"
	MetaLimit     = "limit"
	MetaUsed      = "used"
	MetaRequested = "requested"
	MetaResetsAt  = "resets_at"
)

// Exceeded is the QUOTA_EXCEEDED of who asked for n more than used. Only a daily quota
// is worth trying again, the next day.
func (q Quota) Exceeded(used, n int64, now time.Time) *apierr.Error {
	err := apierr.New(errorv1.Reason_REASON_QUOTA_EXCEEDED, "the quota %s of the account is %d: %d are used, %d more were asked for", q.Name, q.Most, used, n).
		WithMeta(MetaQuota, q.Name).WithMeta(MetaLimit, text(q.Most)).WithMeta(MetaUsed, text(used)).WithMeta(MetaRequested, text(n))
	if at := q.Resets(now); !at.IsZero() {
		err = err.WithMeta(MetaResetsAt, at.Format(time.RFC3339)).WithRetryAfter(at.Sub(now))
	}
	return err
}

func text(n int64) string { return strconv.FormatInt(n, 10) }

// Left is how much an account may still use by an error of Exceeded.
func Left(err error) int64 {
	meta := apierr.From(err).Meta
	limit, _ := strconv.ParseInt(meta[MetaLimit], 10, 64) // of our own making
	used, _ := strconv.ParseInt(meta[MetaUsed], 10, 64)
	return max(limit-used, 0)
}
