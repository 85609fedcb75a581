package bench_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

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
	n := listDefault
	if text := os.Getenv("LIST_CONTACTS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(b, err)
	}
	s := server(b)
	url := s.URL("lists")
	require.NoError(b, pg.EnsureDatabase(b.Context(), url))
	require.NoError(b, pg.Migrate(b.Context(), url, postgres.Migrations()...))
	fillContacts(b, url, n)
	db, err := pg.Open(b.Context(), pg.Config{URL: url, Role: pg.RoleAPI, Clock: clock.System(), Name: "bench"})
	require.NoError(b, err)
	b.Cleanup(db.Close)
	store, err := postgres.New(db, make([]byte, 32), "http://bench", account.Quotas{})
	require.NoError(b, err)
	for b.Loop() {
		b.ReportMetric(listTable(b, store, n), "worst_p95_ms")
	}
	b.ReportMetric(0, "ns/op")
}

// fillContacts writes n contacts for each tenant. Indexes are made afterwards, as
// a restore would.
func fillContacts(b *testing.B, url string, n int) {
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
	for tenant := 1; tenant <= listTenants; tenant++ {
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
			tenantPrefix+strconv.Itoa(tenant), tenant, n)
	}
	for _, i := range indexes {
		exec(i.Definition)
	}
	exec("VACUUM ANALYZE contact_documents")
}

// listTable prints p50 and p95 of every list and returns the worst p95 in
// milliseconds.
func listTable(b *testing.B, store *postgres.Store, n int) (worst float64) {
	b.Helper()
	scope := []string{tenantPrefix + "1"}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight|tabwriter.Debug)
	defer func() { require.NoError(b, out.Flush()) }()
	_, err := fmt.Fprintf(out, "\nlists of %d of %d contacts of one tenant among %d\norder\tfilter\tpage\trows\ttotal\tp50 ms\tp95 ms\t\n", listPage, n, n*listTenants)
	require.NoError(b, err)
	for _, order := range []string{"created_at:desc", "name:asc"} {
		filters := listFilters(n)
		names := make([]string, 0, len(filters))
		for name := range filters {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			request := query.Request{Filters: filters[name], Sorts: []string{order}, Limit: listPage}
			for _, page := range []string{"first", "deep"} {
				if page == "deep" {
					request.PageToken = middle(b, store, scope, request, n/2)
					if request.PageToken == "" {
						continue // it has fewer rows
					}
				}
				p50, p95, rows, total := times(b, store, scope, request)
				worst = max(worst, p95)
				_, err := fmt.Fprintf(out, "%s\t%s\t%s\t%d\t%s\t%.1f\t%.1f\t\n", order, name, page, rows, total, p50, p95)
				require.NoError(b, err)
			}
		}
	}
	return worst
}

// middle is the token of the page at the depth, or in the middle of a list that
// has fewer rows.
func middle(b *testing.B, store *postgres.Store, scope []string, r query.Request, depth int) string {
	b.Helper()
	var tokens []string
	for _, r.Limit = range []int32{1000, listPage} {
		for r.PageToken, tokens = "", nil; len(tokens) < depth/int(r.Limit); tokens = append(tokens, r.PageToken) {
			page, err := store.Contacts(b.Context(), scope, r)
			require.NoError(b, err)
			if r.PageToken = page.Meta.GetNextPageToken(); r.PageToken == "" {
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

func times(b *testing.B, store *postgres.Store, scope []string, r query.Request) (p50, p95 float64, rows int, total string) {
	b.Helper()
	c := clock.System()
	var took []time.Duration
	for range listRepeats {
		began := c.Now()
		page, err := store.Contacts(b.Context(), scope, r)
		require.NoError(b, err, strings.Join(r.Filters, " "))
		took = append(took, c.Now().Sub(began))
		rows, total = len(page.Data), fmt.Sprint(page.Meta.GetTotal())
		if page.Meta.GetTotalIsEstimate() {
			total = "~" + total
		}
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return ms(took[len(took)/2]), ms(took[len(took)*95/100]), rows, total
}
