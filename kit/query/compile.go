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
	among   func(ids [][16]byte) Statement
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
	c := &Compiled{Scope: q.scope, Skip: q.skip, Limit: q.limit, spec: spec, keys: q.keys, digest: digest, deep: r.PageToken != "", noTotal: r.NoTotal, among: q.among}
	c.SQL, c.Args = q.list()
	c.Probe, c.Count, c.Estimate = q.probe(), q.count(), q.estimate()
	return c, nil
}

// narrow intersects the scope with the filters on the tenant column and keeps
// the other filters. A filter can never widen the scope.
func (q *query) narrow(scope []string, clauses []clause) error {
	q.scope = slices.Compact(slices.Sorted(slices.Values(scope)))
	for _, c := range clauses {
		if !c.field.tenant {
			q.clauses = append(q.clauses, c)
			continue
		}
		q.scope = slices.DeleteFunc(q.scope, func(id string) bool { return !slices.Contains(c.values, any(id)) })
	}
	if len(q.scope) > MaxAccounts && !q.keyed() {
		return invalidFilter("the list would read %d accounts, at most %d are allowed; name some with filter=account_id:in:<ids>",
			len(q.scope), MaxAccounts)
	}
	return nil
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
		sql := "SELECT " + strings.Join(q.spec.table.Select, ", ") + ", " + q.pageKey() +
			" FROM " + q.spec.table.From + " WHERE " + tenant + q.where(b, true) +
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
	inner := "SELECT " + strings.Join(t.Select, ", ") + ", " + q.pageKey()
	for i, k := range q.keys {
		inner += fmt.Sprintf(", %s AS sort_%d", k.field.expr, i)
	}
	inner += " FROM " + t.From + " WHERE " + t.Tenant + " = scope.account" + q.where(b, true) +
		" ORDER BY " + q.order(func(i int) string { return q.keys[i].field.expr }) +
		" LIMIT " + b.arg(int64(q.skip)+int64(q.limit)+1, "bigint")
	names := make([]string, 0, len(t.Select)+1)
	for _, column := range append(slices.Clone(t.Select), "page_key") {
		names = append(names, "page."+outputName(column))
	}
	return "SELECT " + strings.Join(names, ", ") + " FROM unnest(" + scope + ") AS scope(account) CROSS JOIN LATERAL (" + inner +
		") AS page ORDER BY " + q.order(func(i int) string { return fmt.Sprintf("page.sort_%d", i) }) +
		" LIMIT " + b.arg(int64(q.limit)+1, "bigint") + q.offset(b)
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
		rows := "SELECT 1 FROM " + t.From + " WHERE " + q.tenant(b) + q.where(b, false) + most
		return Statement{"SELECT count(*) FROM (" + rows + ") AS matching", b.args}
	}
	scope := b.arg(q.scope, "uuid[]")
	rows := "SELECT 1 FROM unnest(" + scope + ") AS scope(account) CROSS JOIN LATERAL (SELECT 1 FROM " + t.From +
		" WHERE " + t.Tenant + " = scope.account" + q.where(b, false) + most + ") AS page" + most
	return Statement{"SELECT count(*) FROM (" + rows + ") AS matching", b.args}
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
