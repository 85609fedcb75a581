package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/query"
)

// planContacts is how many contacts each of three tenants has, and planRows how
// many rows a filter that nobody fits may look at to find that out.
const (
	planContacts = 5000
	planRows     = 500
	planTenant   = "0190a5c8-0000-7000-8000-000000000001"
)

// TestEveryContactFilterHasAnIndex explains and runs a list for every filter and
// sort key that the contract declares of contacts. A filter that finds nothing is
// the worst: without an index it reads all the tenant's rows.
func TestEveryContactFilterHasAnIndex(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, Migrations()...)
	db := d.Open(t, pg.RoleAPI)
	store, err := New(db, make([]byte, 32), "http://test")
	require.NoError(t, err)
	admin, err := pgx.Connect(t.Context(), d.URL)
	require.NoError(t, err)
	fillForPlans(t, admin)
	fields := (&accountv1.Contact{}).ProtoReflect().Descriptor().Fields()
	tried := 0
	for i := range fields.Len() {
		fd := fields.Get(i)
		q, _ := proto.GetExtension(fd.Options(), optionsv1.E_Query).(*optionsv1.Query)
		for _, op := range q.GetOperators() {
			if fd.Name() == "account_id" {
				continue // it chooses the tenant
			}
			for _, sort := range []string{"", "created_at:desc", "updated_at:asc", "name:asc", "email:desc"} {
				request := query.Request{Filters: []string{nobodyFits(fd, op)}, Limit: 50}
				if strings.Contains(request.Filters[0], "is_null") && fd.Name() == "metadata" {
					request.Filters = append(request.Filters, "created_at:range:2026-01-01,2026-01-02")
				}
				if sort != "" {
					request.Sorts = []string{sort}
				}
				c, err := query.Compile(store.contacts, request, []string{planTenant})
				require.NoError(t, err)
				read := rowsRead(t, admin, c)
				require.LessOrEqual(t, read, planRows, "%v by %q reads %d rows of %d", request.Filters, sort, read, planContacts)
				tried++
			}
		}
	}
	require.Greater(t, tried, 150)
	require.NoError(t, admin.Close(t.Context()))
}

// nobodyFits is a filter that no row of the test fits.
func nobodyFits(fd protoreflect.FieldDescriptor, op optionsv1.Operator) string {
	name := strings.ToLower(strings.TrimPrefix(op.String(), "OPERATOR_"))
	field, value := string(fd.Name()), "qqzqq nobody"
	switch {
	case fd.Name() == "metadata":
		field += ".k"
	case fd.Name() == "id":
		value = "0190a5c8-0000-7000-8000-00000000dead"
	case fd.Message() != nil && op == optionsv1.Operator_OPERATOR_LE:
		value = "2001-01-01"
	case fd.Message() != nil && op == optionsv1.Operator_OPERATOR_RANGE:
		value = "2001-01-01,2001-01-02"
	case fd.Message() != nil:
		value = "2101-01-01"
	}
	if op == optionsv1.Operator_OPERATOR_IS_NULL || op == optionsv1.Operator_OPERATOR_IS_NOT_NULL {
		return field + ":" + name
	}
	return field + ":" + name + ":" + value
}

func fillForPlans(t *testing.T, admin *pgx.Conn) {
	t.Helper()
	for tenant := 1; tenant <= 3; tenant++ {
		_, err := admin.Exec(t.Context(), `
			INSERT INTO contact_documents (id, account_id, doc, created_at, updated_at)
			SELECT gen_random_uuid(), $1, jsonb_build_object('first_name', 'First ' || i % 97, 'last_name', 'Last ' || i % 89, 'display', 'First ' || i,
					'email', 'c' || i || '@example.org', 'phone', '+2519' || lpad(i::text, 8, '0'), 'external_id', 'x' || i,
					'tags', '["all"]'::jsonb, 'metadata', jsonb_build_object('k', 'v' || i % 100)),
				timestamptz '2025-01-01Z' + i * interval '1 hour', timestamptz '2025-06-01Z' + (i % 977) * interval '1 hour'
			FROM generate_series(1, $2::int) AS i`, fmt.Sprintf("0190a5c8-0000-7000-8000-00000000000%d", tenant), planContacts)
		require.NoError(t, err)
	}
	_, err := admin.Exec(t.Context(), "VACUUM ANALYZE contact_documents")
	require.NoError(t, err)
}

// rowsRead runs a list as the api role and counts the rows that its scans looked at.
func rowsRead(t *testing.T, admin *pgx.Conn, c *query.Compiled) int {
	t.Helper()
	tx, err := admin.Begin(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(t.Context())) }()
	_, err = tx.Exec(t.Context(), "SELECT set_config('app.accounts', $1, true)", planTenant)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SET LOCAL ROLE turumba_api")
	require.NoError(t, err)
	if c.Probe != nil { // it finds nobody, and the list is empty
		c.SQL, c.Args = c.Probe.SQL, c.Probe.Args
		_, err = tx.Exec(t.Context(), "SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_seqscan = off")
		require.NoError(t, err)
	}
	var raw []byte
	require.NoError(t, tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) "+c.SQL, c.Args...).Scan(&raw), c.SQL)
	var plans []struct{ Plan map[string]any }
	require.NoError(t, json.Unmarshal(raw, &plans))
	return scanned(plans[0].Plan)
}

// scanned adds up what the scans below a node returned and threw away.
func scanned(node map[string]any) (rows int) {
	kind, _ := node["Node Type"].(string)
	number := func(key string) int {
		v, _ := node[key].(float64)
		return int(v)
	}
	if strings.Contains(kind, "Scan") && kind != "Subquery Scan" && kind != "Bitmap Heap Scan" {
		rows += number("Actual Rows")
	}
	rows += number("Rows Removed by Filter") + number("Rows Removed by Index Recheck")
	children, _ := node["Plans"].([]any)
	for _, child := range children {
		if c, ok := child.(map[string]any); ok {
			rows += scanned(c)
		}
	}
	return rows
}
