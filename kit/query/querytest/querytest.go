// Package querytest shows that the database serves every filter and every order
// that the contract declares of a list: each is compiled, explained and run over
// rows of several tenants, and the rows that its plan looks at are counted.
//
// The worst filter is one that none of the caller's rows fits: without an index
// it reads until nothing is left. So the values tried are those that nobody has,
// and those that only other tenants have.
package querytest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
)

const (
	// Nobody is a text that no row may hold.
	Nobody = "qqzqq nobody"
	// NobodysPhone is a number that no row has.
	NobodysPhone = "+15550109999"
	// NobodyID is an id that no row may hold.
	NobodyID = "0190a5c8-0000-7000-8000-00000000dead"
	// Theirs is a text that rows of other tenants hold in all their texts, and those
	// of the caller nowhere.
	Theirs = "theirs"
)

// List is a list, and how much of the database a page of it may look at.
type List struct {
	// Name names it in the report.
	Name string
	// Spec is what can be asked of it.
	Spec *query.Spec
	// Most is the number of rows that a page may look at in each account of the scope.
	Most int
	// Always are filters that the service itself adds.
	Always []string
	// Narrow is the filter that goes with the operators that need a range.
	Narrow string
}

// Complete fails unless every list of the store, a pointer to a struct that holds
// their specs, is among lists.
func Complete(t *testing.T, store any, lists ...List) {
	t.Helper()
	of := reflect.ValueOf(store).Elem()
	for i := range of.NumField() {
		if of.Field(i).Type() != reflect.TypeFor[*query.Spec]() {
			continue
		}
		at := of.Field(i).Pointer()
		require.True(t, slices.ContainsFunc(lists, func(l List) bool { return reflect.ValueOf(l.Spec).Pointer() == at }),
			"the list %s of the store is not tried", of.Type().Field(i).Name)
	}
}

// Check explains and runs the first page of each list for every declared filter
// with every order, and a page in the middle for every order that an index can be
// entered in: no index answers "greater or NULL", so ascending pages by a field
// that may be NULL walk from the start. db works as the API does.
func Check(t *testing.T, db *pg.DB, scope []string, lists ...List) {
	t.Helper()
	for _, l := range lists {
		t.Run(l.Name, func(t *testing.T) {
			c := checker{List: l, db: db, scope: scope}
			filters := append(c.filters(), nil)
			for _, sorts := range c.orders() {
				for _, filter := range filters {
					c.page(t, query.Request{Filters: append(slices.Clone(l.Always), filter...), Sorts: sorts, Limit: 50})
				}
				if c.enters(sorts) {
					c.middle(t, sorts)
				}
			}
			require.Positive(t, c.tried)
			t.Logf("%d plans over %d filters, at most %d of %d rows read, by %s", c.tried, len(filters)-1, c.worst, l.Most*len(scope), c.worstBy)
		})
	}
}

type checker struct {
	List
	db           *pg.DB
	scope        []string
	tried, worst int
	worstBy      string
}

// orders are the default and every sortable field both ways.
func (c *checker) orders() [][]string {
	orders := [][]string{nil}
	for _, d := range c.Spec.Declared() {
		if d.Sortable {
			orders = append(orders, []string{d.Name + ":asc"}, []string{d.Name + ":desc"})
		}
	}
	return orders
}

// enters reports whether an index can be entered at any place of the order.
func (c *checker) enters(sorts []string) bool {
	return !slices.ContainsFunc(c.Spec.Declared(), func(d query.Declared) bool {
		return !d.NotNull && slices.Contains(sorts, d.Name+":asc")
	})
}

// filters are the hard values of every operator of every field.
func (c *checker) filters() (all [][]string) {
	for _, d := range c.Spec.Declared() {
		if d.Tenant {
			continue // it only narrows the scope
		}
		for _, op := range d.Operators {
			for _, text := range hard(d, op) {
				filter := []string{text}
				if slices.Contains(d.Bounded, op) {
					filter = append(filter, c.Narrow)
				}
				all = append(all, filter)
			}
		}
	}
	return all
}

// hard are filters by an operator that are hard to serve.
func hard(d query.Declared, op optionsv1.Operator) []string {
	prefix := d.Name
	if d.Kind == query.KindJSON {
		prefix += ".k"
	}
	prefix += ":" + strings.ToLower(strings.TrimPrefix(op.String(), "OPERATOR_"))
	switch op {
	case optionsv1.Operator_OPERATOR_IS_NULL, optionsv1.Operator_OPERATOR_IS_NOT_NULL:
		return []string{prefix}
	}
	values := hardValues(d, op)
	if d.Normalise == optionsv1.Normalise_NORMALISE_PHONE && op == optionsv1.Operator_OPERATOR_EQ {
		values = []string{NobodysPhone}
	}
	if op == optionsv1.Operator_OPERATOR_IN {
		values = append(values, strings.Join(values, ","))
	}
	for i, v := range values {
		values[i] = prefix + ":" + v
	}
	return values
}

func hardValues(d query.Declared, op optionsv1.Operator) []string {
	low := op == optionsv1.Operator_OPERATOR_LE || op == optionsv1.Operator_OPERATOR_LT
	between := op == optionsv1.Operator_OPERATOR_RANGE
	switch d.Kind {
	case query.KindUUID:
		return []string{NobodyID}
	case query.KindBool:
		return []string{"true", "false"}
	case query.KindEnum:
		return slices.Clone(d.Words)
	case query.KindTime:
		switch {
		case between:
			return []string{"2001-01-01,2001-01-02"}
		case low:
			return []string{"2001-01-01"}
		}
		return []string{"2101-01-01"}
	case query.KindInt, query.KindFloat:
		switch {
		case between:
			return []string{"987654321,987654322"}
		case low:
			return []string{"-987654321"}
		}
		return []string{"987654321"}
	}
	return []string{Nobody, Theirs}
}

// page explains a page and holds its plan to the bound.
func (c *checker) page(t *testing.T, r query.Request) {
	t.Helper()
	compiled, err := query.Compile(c.Spec, r, c.scope)
	require.NoError(t, err, "%v", r.Filters)
	read, plan := c.explain(t, compiled)
	c.tried++
	if read > c.worst {
		c.worst, c.worstBy = read, fmt.Sprintf("%q by %q", r.Filters, r.Sorts)
	}
	if most := c.Most * len(c.scope); read > most {
		t.Errorf("%q by %q, with a token %t: looks at %d rows, may at %d%s", r.Filters, r.Sorts, r.PageToken != "", read, most, plan)
	}
}

// middle explains the page after the middle of the list.
func (c *checker) middle(t *testing.T, sorts []string) {
	t.Helper()
	r := query.Request{Filters: c.Always, Sorts: sorts, Limit: 1}
	compiled, err := query.Compile(c.Spec, r, c.scope)
	require.NoError(t, err)
	var total int32
	if page := c.list(t, compiled); page.Meta.NextPageToken != "" {
		total = page.Meta.Total
	}
	require.Greater(t, total, int32(1), "the list of the test has too few rows")
	r.Skip = total / 2
	compiled, err = query.Compile(c.Spec, r, c.scope)
	require.NoError(t, err)
	page := c.list(t, compiled)
	c.page(t, query.Request{Filters: c.Always, Sorts: sorts, Limit: 50, PageToken: page.Meta.NextPageToken})
}

// list runs a list and drops its rows.
func (c *checker) list(t *testing.T, compiled *query.Compiled) *query.Page[int] {
	t.Helper()
	page, err := query.List(t.Context(), c.db, compiled, func(row pgx.CollectableRow) (int, error) {
		columns := make([]any, len(row.FieldDescriptions()))
		for i := range columns {
			columns[i] = new(any)
		}
		return 0, row.Scan(columns...)
	})
	require.NoError(t, err)
	return page
}

// explain runs a statement as List does and counts the rows that its scans look
// at. When a probe comes first, it is what is run: it finds nobody.
func (c *checker) explain(t *testing.T, compiled *query.Compiled) (read int, plan string) {
	t.Helper()
	ctx := t.Context()
	sql, args := compiled.SQL, compiled.Args
	settings := append([]string{"SET LOCAL plan_cache_mode = force_custom_plan"}, compiled.Settings...)
	if compiled.Probe != nil {
		sql, args = compiled.Probe.SQL, compiled.Probe.Args
		settings = append(settings[:1], compiled.ProbeSettings...)
	}
	var raw []byte
	err := c.db.InTx(ctx, compiled.Scope, func(tx *pg.Tx) error {
		if _, err := tx.Exec(ctx, strings.Join(settings, "; ")); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) "+sql, args...).Scan(&raw)
	})
	require.NoError(t, err, sql)
	var plans []struct{ Plan node }
	require.NoError(t, json.Unmarshal(raw, &plans), "%s", raw)
	require.Len(t, plans, 1)
	return plans[0].Plan.read(), plans[0].Plan.String()
}

// node is a step of a plan; its rows are the mean of its loops.
type node struct {
	Kind     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Rows     float64 `json:"Actual Rows"`
	Loops    float64 `json:"Actual Loops"`
	Filtered float64 `json:"Rows Removed by Filter"`
	Recheck  float64 `json:"Rows Removed by Index Recheck"`
	Plans    []node  `json:"Plans"`
}

// read is how many rows the scans of a step and below it looked at. What a bitmap
// heap scan returns was counted by the index scan below it.
func (n node) read() int {
	rows := n.Recheck
	if n.Kind == "Bitmap Index Scan" || n.Relation != "" && n.Kind != "Bitmap Heap Scan" {
		rows += n.Rows + n.Filtered
	}
	read := int(rows * max(n.Loops, 1))
	for _, child := range n.Plans {
		read += child.read()
	}
	return read
}

// String is the plan in short.
func (n node) String() string {
	var b strings.Builder
	n.write(&b, 0)
	return b.String()
}

func (n node) write(b *strings.Builder, depth int) {
	fmt.Fprintf(b, "\n%s%s %s %s rows=%.0f loops=%.0f filtered=%.0f", strings.Repeat("  ", depth), n.Kind, n.Relation, n.Index, n.Rows, n.Loops, n.Filtered)
	for _, child := range n.Plans {
		child.write(b, depth+1)
	}
}
