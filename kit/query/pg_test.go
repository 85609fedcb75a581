package query_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/query"
)

const schema = `
CREATE TABLE things (
	id uuid PRIMARY KEY,
	account_id uuid NOT NULL,
	name text,
	state text NOT NULL,
	enabled boolean NOT NULL,
	rank_no int,
	score double precision,
	address text NOT NULL,
	tags text[] NOT NULL,
	labels jsonb,
	metadata jsonb NOT NULL,
	created_at timestamptz NOT NULL,
	deleted_at timestamptz
);
CREATE INDEX ON things (account_id, created_at, id);
CREATE TABLE members (thing_id uuid, group_id uuid);`

// thing is one row as the tests read it.
type thing struct {
	ID   string
	Name *string
}

// database returns a fresh database with rows of three accounts.
func database(t *testing.T) *pg.DB {
	t.Helper()
	pool := pgtest.New(t).Open(t, "")
	_, err := pool.Exec(t.Context(), schema)
	require.NoError(t, err)
	return pool
}

// fill adds n rows to the account, with many equal and many NULL sort values.
func fill(t *testing.T, pool *pg.DB, account string, n int) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `
		INSERT INTO things
		SELECT gen_random_uuid(), $1, CASE WHEN i % 4 > 0 THEN 'name ' || i % 5 END, CASE WHEN i % 2 = 0 THEN 'open' ELSE 'half_shut' END,
			i % 3 = 0, CASE WHEN i % 7 > 2 THEN i % 5 END, CASE WHEN i % 5 > 1 THEN (i % 4) / 3.0 END, 'a@b',
			ARRAY['vip', (i % 3)::text], '["vip"]', jsonb_build_object('n', i % 4, 'city', 'Ulm', 'ok', i % 2 = 0),
			timestamptz '2026-01-01' + (i % 3) * interval '1 day' + (i % 2) * interval '1 microsecond'
		FROM generate_series(1, $2) AS i`, account, n)
	require.NoError(t, err)
}

func list(t *testing.T, pool *pg.DB, s *query.Spec, r query.Request, scope ...string) *query.Page[thing] {
	t.Helper()
	c, err := query.Compile(s, r, scope)
	require.NoError(t, err)
	page, err := query.List(t.Context(), pool, c, pgx.RowToStructByName[thing])
	require.NoError(t, err)
	return page
}

func ids(rows []thing) []string {
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = r.ID
	}
	return out
}

func TestPagesAddUp(t *testing.T) {
	t.Parallel()
	pool := database(t)
	fill(t, pool, accountA, 60)
	fill(t, pool, accountB, 45)
	fill(t, pool, accountC, 30)
	_, err := pool.Exec(t.Context(), "ANALYZE things") // or totals of many would be expected
	require.NoError(t, err)
	s := spec(t)
	for _, scope := range [][]string{{accountA}, {accountA, accountB}} {
		for _, sorts := range [][]string{
			nil,
			{"name"},
			{"name:desc"},
			{"rank", "name:desc"},
			{"rank:desc", "score"},
			{"state", "rank", "score:desc", "created_at"},
			{"score:desc", "name"},
			{"created_at", "state:desc"},
		} {
			t.Run(fmt.Sprint(len(scope), sorts), func(t *testing.T) {
				t.Parallel()
				whole := list(t, pool, s, query.Request{Sorts: sorts, Limit: 1000}, scope...)
				require.Len(t, whole.Data, map[int]int{1: 60, 2: 105}[len(scope)])
				require.Empty(t, whole.Meta.GetNextPageToken())

				var paged, skipped []string
				request := query.Request{Sorts: sorts, Limit: 7}
				for {
					page := list(t, pool, s, request, scope...)
					require.EqualValues(t, len(whole.Data), page.Meta.GetTotal())
					paged = append(paged, ids(page.Data)...)
					if request.PageToken = page.Meta.GetNextPageToken(); request.PageToken == "" {
						break
					}
				}
				require.Equal(t, ids(whole.Data), paged)
				for skip := int32(0); int(skip) < len(whole.Data)+7; skip += 7 {
					page := list(t, pool, s, query.Request{Sorts: sorts, Limit: 7, Skip: skip}, scope...)
					require.EqualValues(t, len(whole.Data), page.Meta.GetTotal())
					skipped = append(skipped, ids(page.Data)...)
				}
				require.Equal(t, ids(whole.Data), skipped)
			})
		}
	}
}

func TestTokenBelongsToItsList(t *testing.T) {
	t.Parallel()
	pool := database(t)
	fill(t, pool, accountA, 20)
	fill(t, pool, accountB, 20)
	s := spec(t)
	request := query.Request{Filters: []string{"enabled:eq:true", "state:eq:open"}, Sorts: []string{"name"}, Limit: 1}
	token := list(t, pool, s, request, accountA).Meta.GetNextPageToken()
	require.NotEmpty(t, token)
	tampered := []byte(token)
	tampered[30] ^= 1

	cases := []struct {
		name   string
		change func(r *query.Request) []string
		ok     bool
	}{
		{"same", func(*query.Request) []string { return []string{accountA} }, true},
		{"filters in another order", func(r *query.Request) []string { slices.Reverse(r.Filters); return []string{accountA} }, true},
		{"another limit", func(r *query.Request) []string { r.Limit = 5; return []string{accountA} }, true},
		{"another filter", func(r *query.Request) []string { r.Filters = r.Filters[:1]; return []string{accountA} }, false},
		{"another sort", func(r *query.Request) []string { r.Sorts = []string{"name:desc"}; return []string{accountA} }, false},
		{"another account", func(*query.Request) []string { return []string{accountB} }, false},
		{"more accounts", func(*query.Request) []string { return []string{accountA, accountB} }, false},
		{"tampered", func(r *query.Request) []string { r.PageToken = string(tampered); return []string{accountA} }, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := request
			r.Filters, r.PageToken = slices.Clone(request.Filters), token
			scope := c.change(&r)
			_, err := query.Compile(s, r, scope)
			if c.ok {
				require.NoError(t, err)
				return
			}
			require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_PAGE), "%v", err)
		})
	}
	other := spec(t, func(tab *query.Table) { tab.TokenKey = []byte("another-key-0123") })
	request.PageToken = token
	_, err := query.Compile(other, request, []string{accountA})
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_PAGE), "%v", err)
}

func TestFiltersSelect(t *testing.T) {
	t.Parallel()
	pool := database(t)
	fill(t, pool, accountA, 60)
	fill(t, pool, accountB, 60)
	_, err := pool.Exec(t.Context(), `UPDATE things SET name = '100%_\x' WHERE id = (SELECT min(id::text)::uuid FROM things WHERE account_id = $1)`, accountA)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), `INSERT INTO members SELECT id, $1 FROM things WHERE rank_no = 1`, someID)
	require.NoError(t, err)
	s := spec(t)
	searched := spec(t, func(tab *query.Table) { tab.Search = true })
	for filter, condition := range map[string]string{
		"name:eq:name 1":                         "name = 'name 1'",
		"name:ne:name 1":                         "name <> 'name 1'",
		"name:in:name 1,x":                       "name = 'name 1'",
		"name:range:a,name 2":                    "name BETWEEN 'a' AND 'name 2'",
		"name:is_null":                           "name IS NULL",
		"name:is_not_null":                       "name IS NOT NULL",
		`name:contains:0%_\`:                     `name = '100%_\x'`,
		"name:contains:NAME":                     "false",
		"name:icontains:NAME":                    "name LIKE 'name%'",
		"name:like:n_me 1":                       "name = 'name 1'",
		"name:ilike:N%1":                         "name = 'name 1'",
		"name:startswith:name":                   "name LIKE 'name%'",
		"name:startswith:n_me":                   "false",
		"name:endswith:1":                        "name = 'name 1'",
		"name:lt:name 2":                         "name < 'name 2'",
		"state:eq:open":                          "state = 'open'",
		"state:in:open,half_shut":                "true",
		"state:ne:open":                          "state <> 'open'",
		"enabled:eq:true":                        "enabled",
		"rank:ge:2":                              "rank_no >= 2",
		"rank:in:1,2":                            "rank_no IN (1, 2)",
		"rank:range:1,2":                         "rank_no IN (1, 2)",
		"rank:is_null":                           "rank_no IS NULL",
		"score:gt:0.5":                           "score > 0.5",
		"score:in:0,1":                           "score IN (0, 1)",
		"created_at:gt:2026-01-02T00:00:00Z":     "created_at > '2026-01-02Z'",
		"created_at:range:2026-01-02,2026-01-03": "created_at BETWEEN '2026-01-02Z' AND '2026-01-03Z'",
		"tags:eq:1":                              "'1' = ANY(tags)",
		"tags:ne:1":                              "'1' <> ALL(tags)",
		"tags:in:1,2":                            "'0' <> ALL(tags)",
		"labels:in:vip,x":                        "true",
		"labels:eq:x":                            "false",
		"labels:is_null":                         "false",
		"metadata.n:eq:2":                        "metadata ->> 'n' = '2'",
		"metadata.n:ne:2":                        "metadata ->> 'n' <> '2'",
		"metadata.n:in:1,2":                      "metadata ->> 'n' IN ('1', '2')",
		"metadata.ok:eq:true":                    "(metadata ->> 'ok')::boolean",
		"metadata.city:icontains:uL":             "true",
		"metadata.city:is_null":                  "false",
		"metadata.no:is_null":                    "true",
		"metadata.it's:eq:'":                     "false",
		"group_id:in:" + someID:                  "rank_no = 1",
	} {
		t.Run(filter, func(t *testing.T) {
			t.Parallel()
			for i, scope := range [][]string{{accountA}, {accountA, accountB}, {accountA}, {accountA, accountB}} {
				s := s
				if i >= 2 {
					s = searched
				}
				var want int32
				err := pool.QueryRow(t.Context(), "SELECT count(*) FROM things WHERE account_id = ANY($1::uuid[]) AND "+condition, scope).Scan(&want)
				require.NoError(t, err)
				for _, limit := range []int32{1000, 1} {
					page := list(t, pool, s, query.Request{Filters: []string{filter}, Limit: limit}, scope...)
					require.Len(t, page.Data, int(min(want, limit)))
					if !page.Meta.GetTotalIsEstimate() { // counting has little time, which a busy machine uses up
						require.Equal(t, want, page.Meta.GetTotal())
					}
				}
			}
		})
	}
}

func TestNothingForeign(t *testing.T) {
	t.Parallel()
	pool := database(t)
	fill(t, pool, accountA, 5)
	fill(t, pool, accountB, 5)
	s := spec(t)
	page := list(t, pool, s, query.Request{Filters: []string{"account_id:eq:" + accountB}}, accountA)
	require.Empty(t, page.Data)
	require.Zero(t, page.Meta.GetTotal())
	require.Len(t, list(t, pool, s, query.Request{Filters: []string{"account_id:in:" + accountA + "," + accountB}}, accountA).Data, 5)
}

func TestTotalOfManyRowsIsAnEstimate(t *testing.T) {
	t.Parallel()
	pool := database(t)
	fill(t, pool, accountA, query.MaxExactTotal)
	s := spec(t)
	request := query.Request{Limit: 3}
	_, err := pool.Exec(t.Context(), "ANALYZE things")
	require.NoError(t, err)
	page := list(t, pool, s, request, accountA)
	require.EqualValues(t, query.MaxExactTotal, page.Meta.GetTotal())
	require.False(t, page.Meta.GetTotalIsEstimate())

	fill(t, pool, accountA, 10)
	page = list(t, pool, s, request, accountA)
	require.Greater(t, page.Meta.GetTotal(), int32(query.MaxExactTotal))
	require.True(t, page.Meta.GetTotalIsEstimate())

	slow := spec(t, func(tab *query.Table) { tab.Where = "pg_sleep(0.01) IS NOT NULL" })
	page = list(t, pool, slow, request, accountA)
	require.Len(t, page.Data, 3)
	require.True(t, page.Meta.GetTotalIsEstimate(), "counting takes longer than its budget")
	require.GreaterOrEqual(t, page.Meta.GetTotal(), int32(3))
}

func TestListReportsFailures(t *testing.T) {
	t.Parallel()
	pool := database(t)
	broken := spec(t, func(tab *query.Table) { tab.From = "nowhere" })
	c, err := query.Compile(broken, query.Request{}, []string{accountA})
	require.NoError(t, err)
	_, err = query.List(t.Context(), pool, c, pgx.RowToStructByName[thing])
	require.ErrorContains(t, err, "list Thing: ")

	fill(t, pool, accountA, 1)
	c, err = query.Compile(spec(t), query.Request{}, []string{accountA})
	require.NoError(t, err)
	_, err = query.List(t.Context(), pool, c, func(pgx.CollectableRow) (thing, error) { return thing{}, nil })
	require.ErrorContains(t, err, "must read the row with Scan")
}

func TestOneTextMayListSeveralColumns(t *testing.T) {
	t.Parallel()
	pool := database(t)
	fill(t, pool, accountA, 5)
	fill(t, pool, accountB, 5)
	s := spec(t, func(tab *query.Table) { tab.Select = []string{"id, coalesce(things.name, 'none') AS name"} })
	for _, row := range list(t, pool, s, query.Request{}, accountA, accountB).Data {
		require.NotEmpty(t, row.ID)
		require.NotNil(t, row.Name)
	}
}

// TestManyFoundAreWalked is a probe that finds more than it counts: the page comes
// along the order, and its pages add up all the same.
func TestManyFoundAreWalked(t *testing.T) {
	t.Parallel()
	pool := database(t)
	fill(t, pool, accountA, 8000)
	s := spec(t, func(tab *query.Table) { tab.Search = true })
	for filter, want := range map[string]int{"name:icontains:name": 6000, "name:endswith:name 1": 1200, "tags:eq:vip": 8000} {
		for _, sort := range []string{"name:asc", "created_at:desc"} {
			seen := map[string]bool{}
			request := query.Request{Filters: []string{filter}, Sorts: []string{sort}, Limit: 1000}
			for {
				page := list(t, pool, s, request, accountA)
				if !page.Meta.GetTotalIsEstimate() { // the machine may be slow
					require.EqualValues(t, want, page.Meta.GetTotal())
				}
				for _, id := range ids(page.Data) {
					require.False(t, seen[id])
					seen[id] = true
				}
				if request.PageToken = page.Meta.GetNextPageToken(); request.PageToken == "" {
					break
				}
			}
			require.Len(t, seen, want, filter)
		}
	}
}

// TestEscapes: commas, colons and backslashes of names and values can be said.
func TestEscapes(t *testing.T) {
	t.Parallel()
	pool := database(t)
	fill(t, pool, accountA, 7)
	_, err := pool.Exec(t.Context(), `
		WITH n AS (SELECT row_number() OVER (ORDER BY id) AS i, id FROM things)
		UPDATE things SET name = (ARRAY['Smith, John', 'Smith', 'a\,b', 'C:\dir', 'x:y', '\\server', 'plain'])[i],
			metadata = (ARRAY['{"a:b": "1,5"}', '{"a:b": "1"}', '{"a\\b": "z"}', '{"a": "b:eq:z"}', '{"a,b": "z"}', '{"a\\:b": "z"}', '{}']::jsonb[])[i]
		FROM n WHERE n.id = things.id`)
	require.NoError(t, err)
	s := spec(t)
	for filter, want := range map[string][]string{
		`name:in:Smith\, John,x`:     {"Smith, John"},
		`name:in:Smith\, John,Smith`: {"Smith", "Smith, John"},
		`name:in:Smith, John`:        {"Smith"},
		`name:eq:Smith, John`:        {"Smith, John"},
		`name:eq:Smith\, John`:       {"Smith, John"},
		`name:in:a\\\,b,plain`:       {`a\,b`, "plain"},
		`name:eq:a\\\,b`:             {`a\,b`},
		`name:eq:C:\dir`:             {`C:\dir`},
		`name:in:C\:\dir,x\:y`:       {`C:\dir`, "x:y"},
		`name:eq:C:\\dir`:            {`C:\dir`},
		`name:eq:x\:y`:               {"x:y"},
		`name:eq:\\\\server`:         {`\\server`},
		`name:startswith:C\:`:        {`C:\dir`},
		`name:contains:\,`:           {"Smith, John", `a\,b`},
		`name:contains:\`:            {`C:\dir`, `\\server`, `a\,b`},
		`name:like:%\, John`:         {"Smith, John"},
		`name:like:C\:\\%`:           {`C:\dir`},
		`name:range:x\:a,x\:z`:       {"x:y"},
		`metadata.a\:b:eq:1,5`:       {"Smith, John"},
		`metadata.a\:b:in:1\,5,1`:    {"Smith", "Smith, John"},
		`metadata.a\:b:is_not_null`:  {"Smith", "Smith, John"},
		`metadata.a:eq:b:eq:z`:       {`C:\dir`},
		`metadata.a\,b:eq:z`:         {"x:y"},
		`metadata.a,b:eq:z`:          {"x:y"},
		`metadata.a\b:eq:z`:          {`a\,b`},
		`metadata.a\\b:eq:z`:         {`a\,b`},
		`metadata.a\\\:b:eq:z`:       {`\\server`},
	} {
		page := list(t, pool, s, query.Request{Filters: []string{filter}, Limit: 10}, accountA)
		got := make([]string, len(page.Data))
		for i, row := range page.Data {
			got[i] = *row.Name
		}
		require.ElementsMatch(t, want, got, filter)
	}
	_, err = query.Compile(s, query.Request{Filters: []string{`name\:eq:x`}}, []string{accountA})
	require.ErrorContains(t, err, `filter "name:eq"`)
}
