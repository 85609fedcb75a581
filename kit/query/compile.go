package query

import (
	"fmt"
	"slices"
	"strings"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

// Compiled is a list request as SQL. Run it with List.
type Compiled struct {
	// SQL selects the rows of the page and one more, which tells whether there is a
	// next page. Its columns are Table.Select and then page_key, a text[] that only
	// List reads.
	SQL string
	// Args are the parameters of SQL.
	Args []any
	// Probe, when it is not nil, finds the ids of the rows that match, at most
	// maxProbe + 1; it is run first, and its outcome decides how the page is read.
	Probe *Statement
	// Count counts the rows that match, at most MaxExactTotal + 1.
	Count Statement
	// Estimate explains (FORMAT JSON) a statement that would return every row that
	// matches; it is never executed itself.
	Estimate Statement
	// Settings are statements that go before SQL and before Count, ProbeSettings those before
	// Probe.
	Settings, ProbeSettings []string
	// Scope is the accounts that the list reads: the caller's, narrowed by filters
	// on the account. When it is empty the list is empty and nothing need be run.
	Scope []string
	// Skip and Limit are the page as it applies.
	Skip, Limit int32

	spec   *Spec
	keys   []sortKey
	digest []byte
	deep   bool
	// noTotal leaves the total out.
	noTotal bool
	// weight is the most that the page may weigh; 0 is the most of any.
	weight int64
	among  func(ids [][16]byte) Statement
	// walking goes before SQL when the probe found too much.
	walking []string
}

// Statement is SQL with its parameters.
type Statement struct {
	// SQL is the text; it holds no value of a caller.
	SQL string
	// Args are the parameters.
	Args []any
}

// query is a request while it is compiled.
type query struct {
	spec    *Spec
	scope   []string
	clauses []clause
	keys    []sortKey
	after   []*string
	skip    int32
	limit   int32
}

// Compile checks the request against the spec and returns its SQL for the
// accounts in scope. Errors are INVALID_FILTER, INVALID_SORT and INVALID_PAGE;
// an empty scope is an internal error, because the chain refuses it earlier.
func Compile(spec *Spec, r Request, scope []string) (*Compiled, error) {
	q, digest, err := spec.check(r, scope)
	if err != nil {
		return nil, err
	}
	c := &Compiled{Scope: q.scope, Skip: q.skip, Limit: q.limit, spec: spec, keys: q.keys, digest: digest, deep: r.PageToken != "", noTotal: r.NoTotal, weight: r.Weight, among: q.among}
	c.Settings, c.ProbeSettings, c.walking = q.settings(), []string{probeSQL}, []string{walkSQL}
	if q.paged() {
		c.ProbeSettings, c.walking = []string{walkSQL}, []string{stretchSQL}
	}
	c.SQL, c.Args = q.list()
	c.Probe, c.Count, c.Estimate = q.probe(), q.count(), q.estimate()
	return c, nil
}

// narrow intersects the scope with the filters on the tenant column and keeps
// the other filters. A filter can never widen the scope. Of more than MaxAccounts the
// first are read.
func (q *query) narrow(scope []string, clauses []clause) {
	q.scope = slices.Clone(scope)
	for _, c := range clauses {
		if !c.field.tenant {
			q.clauses = append(q.clauses, c)
			continue
		}
		q.scope = slices.DeleteFunc(q.scope, func(id string) bool { return !slices.Contains(c.values, any(id)) })
	}
	if len(q.scope) > MaxAccounts && !q.keyed() {
		q.scope = q.scope[:MaxAccounts]
	}
	slices.Sort(q.scope)
	q.scope = slices.Compact(q.scope)
}

// keyed reports whether the tenant column is the key of the table, as in the
// list of accounts itself.
func (q *query) keyed() bool { return q.spec.table.Tenant == q.spec.table.ID }

// single reports whether the plain shape serves: one account, or accounts by key.
func (q *query) single() bool { return len(q.scope) == 1 || q.keyed() }

// list returns the SQL of the page.
func (q *query) list() (string, []any) {
	b := &builder{}
	if q.single() {
		tenant := q.tenant(b)
		if q.led() {
			return "SELECT " + q.outputs() + " FROM " + q.halves(b, tenant, q.items()) + " AS page" + q.ofPage(b), b.args
		}
		sql := "SELECT " + q.items() + " FROM " + q.spec.table.From + " WHERE " + tenant + q.where(b, true) +
			" ORDER BY " + q.order(func(i int) string { return q.keys[i].field.expr }) +
			" LIMIT " + b.arg(int64(q.limit)+1, "bigint") + q.offset(b)
		return sql, b.args
	}
	return q.merge(b), b.args
}

// merge returns the SQL for several accounts: the first rows of each by its own
// index, merged.
func (q *query) merge(b *builder) string {
	t := q.spec.table
	scope := b.arg(q.scope, "uuid[]")
	var inner string
	if tenant := t.Tenant + " = scope.account"; q.led() {
		inner = "SELECT * FROM " + q.halves(b, tenant, q.items()) + " AS half ORDER BY " + q.order(func(i int) string { return fmt.Sprintf("half.sort_%d", i) })
	} else {
		inner = "SELECT " + q.items()
		for i, k := range q.keys {
			inner += fmt.Sprintf(", %s AS sort_%d", k.field.expr, i)
		}
		inner += " FROM " + t.From + " WHERE " + tenant + q.where(b, true) + " ORDER BY " + q.order(func(i int) string { return q.keys[i].field.expr })
	}
	return "SELECT " + q.outputs() + " FROM unnest(" + scope + ") AS scope(account) CROSS JOIN LATERAL (" + inner + " LIMIT " + b.arg(int64(q.skip)+int64(q.limit)+1, "bigint") + ") AS page" + q.ofPage(b)
}

// items are what is selected of a row, with its sort values as text.
func (q *query) items() string { return strings.Join(q.spec.table.Select, ", ") + ", " + q.pageKey() }

// outputs are the same of a subquery called page.
func (q *query) outputs() string {
	names := make([]string, 0, len(q.spec.table.Select)+1)
	for _, column := range append(slices.Clone(q.spec.table.Select), "page_key") {
		names = append(names, "page."+outputName(column))
	}
	return strings.Join(names, ", ")
}

// ofPage ends a statement over a subquery called page, which has the sort values.
func (q *query) ofPage(b *builder) string {
	return " ORDER BY " + q.order(func(i int) string { return fmt.Sprintf("page.sort_%d", i) }) + " LIMIT " + b.arg(int64(q.limit)+1, "bigint") + q.offset(b)
}

// outputName returns the name that a select item has outside.
func outputName(column string) string {
	if i := strings.LastIndex(strings.ToUpper(column), " AS "); i >= 0 {
		return column[i+len(" AS "):]
	}
	return column[strings.LastIndexByte(column, '.')+1:]
}

// tenant returns the tenant condition of the plain shape.
func (q *query) tenant(b *builder) string {
	if q.keyed() {
		return q.spec.table.Tenant + " = ANY(" + b.arg(q.scope, "uuid[]") + ")"
	}
	return q.spec.table.Tenant + " = " + b.arg(q.scope[0], "uuid")
}

// where returns the conditions besides the tenant's, each led by AND.
func (q *query) where(b *builder, paged bool) string {
	var sql strings.Builder
	if q.spec.table.Where != "" {
		sql.WriteString(" AND (" + q.spec.table.Where + ")")
	}
	for _, c := range q.clauses {
		sql.WriteString(" AND " + b.condition(c))
		sql.WriteString(q.timeInID(b, c))
		sql.WriteString(b.implied(c))
	}
	if paged && q.after != nil {
		sql.WriteString(" AND " + q.keyset(b))
	}
	return sql.String()
}

// timeInID returns the bounds that a filter on the id puts on the time column.
func (q *query) timeInID(b *builder, c clause) string {
	column := q.spec.table.TimeInID
	if column == "" || !c.field.id {
		return ""
	}
	low, high, ok := idTime(c)
	if !ok {
		return ""
	}
	if c.op == optionsv1.Operator_OPERATOR_EQ {
		return " AND " + column + " = " + b.arg(low, "timestamptz")
	}
	return " AND " + column + " BETWEEN " + b.arg(low, "timestamptz") + " AND " + b.arg(high, "timestamptz")
}

// pageKey returns the select item with the sort values of a row as text.
func (q *query) pageKey() string {
	parts := make([]string, len(q.keys))
	for i, k := range q.keys {
		parts[i] = "(" + k.field.expr + ")::text"
	}
	return "ARRAY[" + strings.Join(parts, ", ") + "] AS page_key"
}

// order returns the ORDER BY list over the expressions that expr names. NULLs
// stay where an index has them: last ascending, first descending.
func (q *query) order(expr func(i int) string) string {
	parts := make([]string, len(q.keys))
	for i, k := range q.keys {
		parts[i] = expr(i) + " ASC"
		if k.desc {
			parts[i] = expr(i) + " DESC"
		}
	}
	return strings.Join(parts, ", ")
}

func (q *query) offset(b *builder) string {
	if q.skip == 0 {
		return ""
	}
	return " OFFSET " + b.arg(int64(q.skip), "bigint")
}

// count returns the statement that counts up to MaxExactTotal + 1 rows.
func (q *query) count() Statement {
	b := &builder{}
	t := q.spec.table
	most := fmt.Sprintf(" LIMIT %d", MaxExactTotal+1)
	if q.single() {
		return Statement{"SELECT count(*) FROM (" + q.matching(b, q.tenant(b), most) + ") AS matching", b.args}
	}
	scope := b.arg(q.scope, "uuid[]")
	rows := "SELECT 1 FROM unnest(" + scope + ") AS scope(account) CROSS JOIN LATERAL (" + q.matching(b, t.Tenant+" = scope.account", most) + ") AS page" + most
	return Statement{"SELECT count(*) FROM (" + rows + ") AS matching", b.args}
}

// matching returns a row for each that matches, at most as many as most says.
func (q *query) matching(b *builder, tenant, most string) string {
	if q.led() {
		return "SELECT 1 FROM (" + q.anywhere(b, q.spec.table.Stretches.Leads, q.leads(b, false), tenant, "1", most) + ") AS half" + most
	}
	return "SELECT 1 FROM " + q.spec.table.From + " WHERE " + tenant + q.where(b, false) + most
}

// estimate returns the statement whose plan tells about how many rows match. It is
// only explained, and has no tenant condition of its own: with that of the policy
// or view, the planner would count the share of the tenants twice; with what filters
// imply, that of the filters.
func (q *query) estimate() Statement {
	b := &builder{bare: true}
	sql := "EXPLAIN (FORMAT JSON) SELECT 1 FROM " + q.spec.table.From + " WHERE true" + q.where(b, false)
	return Statement{sql, b.args}
}
