package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/bounds"
	"github.com/turumba/turumba/kit/clock"
)

const (
	// scopeSQL sets the tenants that row-level security lets the transaction see, how
	// long a statement may take, and that each is planned for its own values: a plan
	// for any tenant and any filter fits none.
	scopeSQL = "SELECT set_config('app.accounts', $1, true), set_config('statement_timeout', '5s', true), set_config('plan_cache_mode', 'force_custom_plan', true)"
	// budgetSQL bounds each following statement of the transaction, in milliseconds.
	budgetSQL = "SELECT set_config('statement_timeout', '%d', true)"
	// A total may take what the page left of pageAndTotal, within limits.
	pageAndTotal, leastBudget, mostBudget = 60 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond
	// hopeless is the estimate above which nothing is counted: it would have to be three
	// times too high for the count to end.
	hopeless = 3 * MaxExactTotal
	// few is the estimate up to which the page's time says nothing: a busy machine is slow too.
	few = 200
	// queryCanceled is the SQLSTATE of a statement that ran into its timeout.
	queryCanceled = "57014"
)

// Batcher sends several statements in one round trip and one implicit
// transaction; *pgxpool.Pool is one.
type Batcher interface {
	// SendBatch sends the batch.
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Page is one page of a list.
type Page[T any] struct {
	// Data holds the rows, at most Limit, fewer where they weigh as much as a page may
	// (bounds.MaxPage): Meta.Limit tells how many then.
	Data []T
	// Meta tells where the page stands.
	Meta *optionsv1.ListMeta
}

// List runs a compiled query. scan reads one row of Table.Select, for example
// pgx.RowToStructByName. The total costs a second round trip only when the rows
// themselves do not tell it, and at most 50 ms: then it is an estimate.
func List[T any](ctx context.Context, db Batcher, c *Compiled, scan pgx.RowToFunc[T]) (*Page[T], error) {
	page := &Page[T]{Data: []T{}, Meta: &optionsv1.ListMeta{Skip: c.Skip, Limit: c.Limit}}
	if len(c.Scope) == 0 {
		return page, nil
	}
	began := clock.System().Now()
	f, err := c.look(ctx, db)
	if err != nil {
		return nil, c.failed(err)
	}
	var rows []keyed[T]
	more, err := bounds.ReadPage(ctx, c.weight, c.Limit, func(page *bounds.Page) (err error) {
		rows, err = readRows(ctx, db, c, f, page, scan)
		return err
	})
	if err != nil {
		return nil, c.failed(err)
	}
	if more {
		page.Meta.Limit = int32(len(rows)) // fewer than asked for where the page is as large as it may be
		if page.Meta.NextPageToken, err = c.spec.sealToken(c.digest, rows[len(rows)-1].key); err != nil {
			return nil, err
		}
	}
	for _, r := range rows {
		page.Data = append(page.Data, r.value)
	}
	if c.noTotal {
		return page, nil
	}
	if f.total >= 0 {
		page.Meta.Total = int32(f.total)
		return page, nil
	}
	if seen := int(c.Skip) + len(rows); !more && !c.deep && (c.Skip == 0 || len(rows) > 0) {
		page.Meta.Total = int32(seen)
		return page, nil
	}
	f.rows, f.took = len(rows), clock.System().Now().Sub(began)
	page.Meta.Total, page.Meta.TotalIsEstimate, err = c.total(ctx, db, f)
	return page, err
}

// muchRest is what rows that nobody wants may weigh to be read to their end; of more, a new
// connection costs less.
const muchRest = 8 << 20

// readRows reads rows to the last that belongs to the page: then it fails with
// bounds.ErrFull if there are more.
func readRows[T any](ctx context.Context, db Batcher, c *Compiled, f found, page *bounds.Page, scan pgx.RowToFunc[T]) (out []keyed[T], err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stop error
	err = run(ctx, db, c, f.statement, f.settings, func(rows pgx.Rows) error {
		for rows.Next() {
			if stop = c.add(page, rows, len(out)); stop != nil {
				break
			}
			row, err := scanKeyed(rows, len(c.keys), scan)
			if err != nil {
				return err
			}
			out = append(out, row)
		}
		if stop != nil && page.Rest(int(c.Limit)-len(out)) > muchRest {
			cancel()
		}
		rows.Close()
		return rows.Err()
	})
	if stop != nil {
		return out, stop
	}
	return out, err
}

// add adds the current row to the page, which has n already.
func (c *Compiled) add(page *bounds.Page, rows pgx.Rows, n int) error {
	if n == int(c.Limit) {
		return bounds.ErrFull
	}
	return addRow(page, rows)
}

// Upto reads rows as pgx.CollectRows does, to the last that belongs to the page: for who
// reads page after page, each from the last row of the one before.
func Upto[T any](page *bounds.Page, scan pgx.RowToFunc[T]) func(pgx.Rows) ([]T, error) {
	return func(rows pgx.Rows) (out []T, err error) {
		defer rows.Close()
		for rows.Next() {
			if err := addRow(page, rows); errors.Is(err, bounds.ErrFull) {
				return out, nil
			} else if err != nil {
				return nil, err
			}
			row, err := scan(rows)
			if err != nil {
				return nil, err
			}
			out = append(out, row)
		}
		return out, rows.Err()
	}
}

// addRow adds the current row to the page.
func addRow(page *bounds.Page, rows pgx.Rows) error {
	size, values := 0, 0
	for i, raw := range rows.RawValues() {
		size += len(raw)
		if oid := rows.FieldDescriptions()[i].DataTypeOID; oid == pgtype.JSONBOID || oid == pgtype.JSONOID {
			values += bounds.JSONValues(raw)
		}
	}
	return page.Add(size, values)
}

// scanKeyed reads the current row and its sort values.
func scanKeyed[T any](row pgx.CollectableRow, keys int, scan pgx.RowToFunc[T]) (keyed[T], error) {
	k := keyRow{CollectableRow: row, key: new([]*string)}
	value, err := scan(k)
	if err == nil && len(*k.key) != keys {
		err = errors.New("the scan function must read the row with Scan")
	}
	return keyed[T]{value, *k.key}, err
}

// failed tells of a list that could not be read, or not in time.
func (c *Compiled) failed(err error) error {
	var own *apierr.Error
	if errors.As(err, &own) {
		return err
	}
	if timedOut(err) {
		return apierr.New(errorv1.Reason_REASON_DEADLINE_EXCEEDED, "the list takes longer than 5 s; narrow it with filters").Wrap(err)
	}
	return fmt.Errorf("list %s: %w", c.spec.resource, err)
}

// keyed is a row with its sort values.
type keyed[T any] struct {
	value T
	key   []*string
}

// keyRow hides the last column of a row from the scan function and reads it.
type keyRow struct {
	pgx.CollectableRow
	key *[]*string
}

// FieldDescriptions describes all columns but the last.
func (r keyRow) FieldDescriptions() []pgconn.FieldDescription {
	all := r.CollectableRow.FieldDescriptions()
	return all[:len(all)-1]
}

// Scan reads the columns into dest and the last one into the key.
func (r keyRow) Scan(dest ...any) error {
	return r.CollectableRow.Scan(append(append([]any(nil), dest...), r.key)...)
}

// all reads every row of a statement that is run.
func all[T any](ctx context.Context, db Batcher, c *Compiled, s Statement, settings []string, scan pgx.RowToFunc[T]) (out []T, err error) {
	err = run(ctx, db, c, s, settings, func(rows pgx.Rows) (err error) {
		out, err = pgx.CollectRows(rows, scan)
		return err
	})
	return out, err
}

// run sends one statement in the tenant scope, after statements that set it up.
func run(ctx context.Context, db Batcher, c *Compiled, s Statement, settings []string, read func(pgx.Rows) error) (err error) {
	batch := &pgx.Batch{}
	batch.Queue(scopeSQL, strings.Join(c.Scope, ","))
	for _, sql := range settings {
		batch.Queue(sql)
	}
	batch.Queue(s.SQL, s.Args...)
	results := db.SendBatch(ctx, batch)
	defer func() {
		if closeErr := results.Close(); err == nil {
			err = closeErr
		}
	}()
	for range batch.Len() - 1 {
		if _, err := results.Exec(); err != nil {
			return err
		}
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	return read(rows)
}

// budget is how long counting may take, given how many rows the planner expects; zero where
// it would end in no time: the planner expects far more than would be counted, or the rows
// of the page were so hard to find that all of them would take far too long.
func (f found) budget(expected int64) time.Duration {
	switch {
	case expected > hopeless:
		return 0
	case expected <= few:
		return mostBudget
	}
	if f.took > pageAndTotal-leastBudget && f.took*time.Duration(expected) > 4*mostBudget*time.Duration(f.rows) {
		return 0
	}
	return min(max(pageAndTotal-f.took, leastBudget), mostBudget)
}

// total counts the rows that match. Where nothing is counted, or counting takes longer than
// its budget, it returns the planner's estimate, which is never below what is known to fit.
func (c *Compiled) total(ctx context.Context, db Batcher, f found) (total int32, estimate bool, err error) {
	plans, err := all(ctx, db, c, c.Estimate, nil, pgx.RowTo[[]byte])
	if err != nil {
		return 0, false, fmt.Errorf("estimate %s: %w", c.spec.resource, err)
	}
	expected, least := planRows(plans), max(f.least, int64(c.Skip)+int64(f.rows))
	if budget := f.budget(expected); budget > 0 {
		settings := append([]string{fmt.Sprintf(budgetSQL, budget.Milliseconds())}, f.counting...)
		counts, err := all(ctx, db, c, c.Count, settings, pgx.RowTo[int64])
		if err != nil && !timedOut(err) {
			return 0, false, fmt.Errorf("count %s: %w", c.spec.resource, err)
		}
		if err == nil && len(counts) == 1 {
			if counts[0] <= MaxExactTotal {
				return int32(counts[0]), false, nil
			}
			least = max(least, counts[0])
		}
	}
	return int32(min(max(expected, least), math.MaxInt32)), true, nil
}

// timedOut reports whether a statement ran into its timeout.
func timedOut(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == queryCanceled
}

// planRows reads the number of rows that EXPLAIN (FORMAT JSON) expects.
func planRows(plans [][]byte) int64 {
	var explained []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
		} `json:"Plan"`
	}
	if len(plans) == 0 || json.Unmarshal(plans[0], &explained) != nil || len(explained) == 0 {
		return 0
	}
	return int64(min(explained[0].Plan.Rows, math.MaxInt32))
}
