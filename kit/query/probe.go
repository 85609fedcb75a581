package query

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

// A list over many rows can be read in two ways: through the index of a filter,
// and then sorted, or along the index of the order, with the filter applied on
// the way. The planner chooses by estimates that are far off for parts of text,
// and a wrong choice costs a hundred times the right one: names that contain
// "liam" are not spread over the names by order. So such a list probes first,
// through the filter's index and not far: when few rows fit, they are the list;
// when many do, the order's index soon meets enough of them.

// maxProbe is how many rows a probe finds at most.
const maxProbe = 5000

// minPattern is the fewest characters that a trigram index can find.
const minPattern = 3

const (
	// probeSQL leaves only inverted and other bitmap scans.
	probeSQL = "SELECT set_config('enable_indexscan', 'off', true), set_config('enable_indexonlyscan', 'off', true), set_config('enable_seqscan', 'off', true)"
	// walkSQL leaves only scans along an order.
	walkSQL = "SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_seqscan', 'off', true)"
)

// probes reports whether the query is one that has to look first.
func (q *query) probes() bool {
	if !q.spec.table.Search {
		return false
	}
	for _, c := range q.clauses {
		if isPattern(c.op) && c.field.within == "" && len([]rune(fmt.Sprint(c.values[0]))) >= minPattern {
			return true
		}
	}
	return false
}

func isPattern(op optionsv1.Operator) bool {
	switch op {
	case optionsv1.Operator_OPERATOR_CONTAINS, optionsv1.Operator_OPERATOR_ICONTAINS, optionsv1.Operator_OPERATOR_LIKE,
		optionsv1.Operator_OPERATOR_ILIKE, optionsv1.Operator_OPERATOR_STARTSWITH, optionsv1.Operator_OPERATOR_ENDSWITH:
		return true
	}
	return false
}

// probe returns the statement that finds the ids of up to maxProbe + 1 rows.
func (q *query) probe() *Statement {
	if !q.probes() && !q.paged() {
		return nil
	}
	b := &builder{}
	t, most := q.spec.table, fmt.Sprintf(" LIMIT %d", maxProbe+1)
	if q.single() {
		return &Statement{q.ids(b, q.tenant(b), most), b.args}
	}
	scope := b.arg(q.scope, "uuid[]")
	sql := "SELECT page.id FROM unnest(" + scope + ") AS scope(account) CROSS JOIN LATERAL (" + q.ids(b, t.Tenant+" = scope.account", most) + ") AS page" + most
	return &Statement{sql, b.args}
}

// ids returns the ids of the rows that fit, at most as many as most says.
func (q *query) ids(b *builder, tenant, most string) string {
	t := q.spec.table
	if q.paged() {
		return "SELECT half.id FROM (" + q.anywhere(b, t.Stretches.Pages, q.pages(b), tenant, t.ID+" AS id", most) + ") AS half" + most
	}
	return "SELECT " + t.ID + " AS id FROM " + t.From + " WHERE " + tenant + q.where(b, false) + most
}

// among returns the SQL of the page when the rows that fit are known.
func (q *query) among(ids [][16]byte) Statement {
	few := *q
	few.clauses = nil
	b := &builder{}
	tenant := q.spec.table.Tenant + " = ANY(" + b.arg(q.scope, "uuid[]") + ")"
	sql := "SELECT " + strings.Join(q.spec.table.Select, ", ") + ", " + q.pageKey() + " FROM " + q.spec.table.From +
		" WHERE " + tenant + " AND " + q.spec.table.ID + " = ANY(" + b.arg(ids, "uuid[]") + ")" + q.timeOf(b, ids) + few.where(b, true) +
		" ORDER BY " + q.order(func(i int) string { return q.keys[i].field.expr }) +
		" LIMIT " + b.arg(int64(q.limit)+1, "bigint") + q.offset(b)
	return Statement{sql, b.args}
}

// timeOf bounds the time column by the times inside the ids.
func (q *query) timeOf(b *builder, ids [][16]byte) string {
	if q.spec.table.TimeInID == "" || len(ids) == 0 {
		return ""
	}
	order := func(x, y [16]byte) int { return bytes.Compare(x[:], y[:]) }
	low, high := slices.MinFunc(ids, order), slices.MaxFunc(ids, order)
	return " AND " + q.spec.table.TimeInID + " BETWEEN " + b.arg(timeIn(low), "timestamptz") + " AND " + b.arg(timeIn(high), "timestamptz")
}

// found is what a probe came to.
type found struct {
	// statement reads the page, after settings.
	statement Statement
	settings  []string
	// total is how many rows fit; -1 when nobody counted them.
	total int
	// counting goes before Count; least is how many fit at least.
	counting []string
	least    int64
	// rows is how many the page had, took how long it was read.
	rows int
	took time.Duration
}

// look probes and chooses how the page is read.
func (c *Compiled) look(ctx context.Context, db Batcher) (found, error) {
	f := found{statement: Statement{c.SQL, c.Args}, settings: c.Settings, counting: c.Settings, total: -1}
	if c.Probe == nil {
		return f, nil
	}
	ids, err := all(ctx, db, c, *c.Probe, c.ProbeSettings, pgx.RowTo[[16]byte])
	switch {
	case err != nil:
		return f, err
	case len(ids) > maxProbe:
		f.settings, f.least = c.walking, int64(len(ids))
		if c.spec.table.Stretches != nil {
			f.counting = c.walking
		}
	default:
		f.statement, f.settings, f.total = c.among(ids), nil, len(ids)
	}
	return f, nil
}
