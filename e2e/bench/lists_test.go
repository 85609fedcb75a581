package bench_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

// The contacts of the list table: of one tenant among three of the same size.
const (
	listTenants  = 3
	listDefault  = 100_000 // per tenant; LIST_CONTACTS asks for others
	listPage     = 50
	listRepeats  = 40
	tenantPrefix = "0190a5c8-0000-7000-8000-00000000000"
)

// listFilters are the lists that are measured, besides the one without filters.
func listFilters(n int) map[string][]string {
	return map[string][]string{
		"no filter":            nil,
		"tags:in + created_at": {"tags:in:vip,rare", "created_at:range:2026-01-01,2026-06-01"},
		"name:icontains":       {"name:icontains:liam 77"},
		"email:eq":             {fmt.Sprintf("email:eq:c%d@tenant1.example", n/3)},
		"metadata.k:eq":        {"metadata.k:eq:v123"},
	}
}

// BenchmarkContactLists measures lists of 50 as users see them: with their total,
// by two orders, from the first page and from the middle.
func BenchmarkContactLists(b *testing.B) {
	n := sizeOf(b, "LIST_CONTACTS", listDefault)
	s := server(b)
	url := s.URL("lists")
	require.NoError(b, pg.EnsureDatabase(b.Context(), url))
	require.NoError(b, pg.Migrate(b.Context(), url, postgres.Migrations()...))
	fillContacts(b, url, n, listAccounts()...)
	db, err := pg.Open(b.Context(), pg.Config{URL: url, Role: pg.RoleAPI, Clock: clock.System(), Name: "bench"})
	require.NoError(b, err)
	b.Cleanup(db.Close)
	store, err := postgres.New(db, make([]byte, 32), "http://bench", account.Quotas{})
	require.NoError(b, err)
	contacts := func(r query.Request) (int, *optionsv1.ListMeta, error) {
		page, err := store.Contacts(b.Context(), []string{tenantPrefix + "1"}, r)
		if err != nil {
			return 0, nil, err
		}
		return len(page.Data), page.Meta, nil
	}
	for b.Loop() {
		t := newListTable(b, fmt.Sprintf("lists of %d of %d contacts of one tenant among %d", listPage, n, n*listTenants), n/2)
		for _, order := range []string{"created_at:desc", "name:asc"} {
			for _, name := range slices.Sorted(maps.Keys(listFilters(n))) {
				t.measure(order+" "+name, query.Request{Filters: listFilters(n)[name], Sorts: []string{order}}, contacts, contacts)
			}
		}
		t.end()
	}
	b.ReportMetric(0, "ns/op")
}

func listAccounts() (ids []string) {
	for i := range listTenants {
		ids = append(ids, tenantPrefix+strconv.Itoa(i+1))
	}
	return ids
}

// sizeOf is a number that the environment may change.
func sizeOf(b *testing.B, name string, n int) int {
	b.Helper()
	if text := os.Getenv(name); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(b, err, name)
	}
	return n
}

// fillContacts writes n contacts for each of the accounts. Indexes are made
// afterwards, as a restore would.
func fillContacts(b *testing.B, url string, n int, accounts ...string) {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), url)
	require.NoError(b, err)
	defer func() { require.NoError(b, conn.Close(context.WithoutCancel(b.Context()))) }()
	exec := func(sql string, args ...any) {
		_, err := conn.Exec(b.Context(), sql, args...)
		require.NoError(b, err, sql)
	}
	rows, err := conn.Query(b.Context(), `
		SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index i
		WHERE indrelid = 'contact_documents'::regclass AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)`)
	require.NoError(b, err)
	indexes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Definition string }])
	require.NoError(b, err)
	for _, i := range indexes {
		exec("DROP INDEX " + i.Name)
	}
	exec("SET maintenance_work_mem = '1GB'")
	for i, account := range accounts {
		exec(`
			INSERT INTO contact_documents (id, account_id, doc, created_at, updated_at)
			SELECT ('0190a5c8-' || lpad(to_hex($2::int), 4, '0') || '-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, $1, jsonb_build_object(
					'first_name', f.name, 'last_name', 'Family ' || i % 5003, 'display', f.name || ' ' || (i * 7919::bigint) % 1000003,
					'email', 'c' || i || '@tenant' || $2 || '.example', 'phone', '+2519' || lpad(i::text, 8, '0'),
					'tags', CASE WHEN i % 1000 = 0 THEN '["rare", "vip"]' WHEN i % 10 = 0 THEN '["vip"]' ELSE '["all"]' END::jsonb,
					'metadata', jsonb_build_object('k', 'v' || i % 1000, 'city', 'City ' || i % 50)),
				timestamptz '2025-01-01Z' + i * (interval '600 days' / $3::int), timestamptz '2025-01-01Z' + (i % 977) * interval '1 day'
			FROM generate_series(1, $3::int) AS i
			CROSS JOIN LATERAL (SELECT (ARRAY['Abebe', 'Liam', 'Selam', 'Noor', 'Ana', 'Kofi', 'Mary', 'Chen'])[1 + i % 8] AS name) AS f`,
			account, i+1, n)
	}
	for _, i := range indexes {
		exec(i.Definition)
	}
	exec("VACUUM ANALYZE contact_documents")
}

// lister reads a page of a list and tells how many rows it has.
type lister func(r query.Request) (rows int, meta *optionsv1.ListMeta, err error)

// listTable prints how long lists take, from their first page and from a depth.
type listTable struct {
	b     *testing.B
	out   *tabwriter.Writer
	depth int
	worst float64 // p95 in milliseconds
}

func newListTable(b *testing.B, title string, depth int) *listTable {
	b.Helper()
	t := &listTable{b: b, out: tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight|tabwriter.Debug), depth: depth}
	t.print("\n%s\nlist\tpage\trows\ttotal\tp50 ms\tp95 ms\t\n", title)
	return t
}

func (t *listTable) print(format string, args ...any) {
	_, err := fmt.Fprintf(t.out, format, args...)
	require.NoError(t.b, err)
}

func (t *listTable) end() {
	require.NoError(t.b, t.out.Flush())
	t.b.ReportMetric(t.worst, "worst_p95_ms")
}

// measure times a list; walk finds its depth.
func (t *listTable) measure(name string, r query.Request, list, walk lister) {
	t.b.Helper()
	for _, page := range []string{"first", "deep"} {
		if page == "deep" {
			r.PageToken = middle(t.b, walk, r, t.depth)
			if r.PageToken == "" {
				continue // it has one row
			}
		}
		r.Limit = listPage
		p50, p95, rows, total := times(t.b, list, r)
		t.worst = max(t.worst, p95)
		t.print("%s\t%s\t%d\t%s\t%.1f\t%.1f\t\n", name, page, rows, total, p50, p95)
	}
}

// middle is the token of the page at the depth, or in the middle of a list that
// has fewer rows.
func middle(b *testing.B, list lister, r query.Request, depth int) string {
	b.Helper()
	var tokens []string
	for _, r.Limit = range []int32{1000, listPage, 1} {
		for r.PageToken, tokens = "", nil; len(tokens) < depth/int(r.Limit); tokens = append(tokens, r.PageToken) {
			_, meta, err := list(r)
			require.NoError(b, err, strings.Join(r.Filters, " "))
			if r.PageToken = meta.GetNextPageToken(); r.PageToken == "" {
				break
			}
		}
		if len(tokens) > 1 {
			break
		}
	}
	switch {
	case len(tokens) == 0:
		return ""
	case r.PageToken != "":
		return tokens[len(tokens)-1]
	}
	return tokens[len(tokens)/2]
}

func times(b *testing.B, list lister, r query.Request) (p50, p95 float64, rows int, total string) {
	b.Helper()
	c := clock.System()
	var took []time.Duration
	for range listRepeats {
		began := c.Now()
		n, meta, err := list(r)
		took = append(took, c.Now().Sub(began))
		require.NoError(b, err, strings.Join(r.Filters, " "))
		rows, total = n, fmt.Sprint(meta.GetTotal())
		if meta.GetTotalIsEstimate() {
			total = "~" + total
		}
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return ms(took[len(took)/2]), ms(took[len(took)*95/100]), rows, total
}
