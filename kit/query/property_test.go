package query_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/query"
)

// checkStatement checks what must hold for every statement: only the texts of
// the contract, digits and placeholders; each placeholder bound; the tenant
// named.
func checkStatement(t require.TestingT, sql string, args []any) {
	checkTexts(t, sql, args)
	require.Regexp(t, `account_id = (\$1::uuid|scope\.account|ANY\(\$1::uuid\[\]\))`, sql)
}

// known are the names that the contract and the table of the tests give, and those
// that statements are made of.
var known = func() map[string]bool {
	names := map[string]bool{}
	for _, f := range things() {
		names[f.name] = true
	}
	for _, name := range strings.Fields(`rank_no things members thing_id group_id
		page page_key sort_0 sort_1 sort_2 sort_3 sort_4 sort_5 scope account matching count unnest
		uuid text bigint boolean timestamptz double precision jsonb json true s`) {
		names[name] = true
	}
	return names
}()

var identifier = regexp.MustCompile(`\b[a-z_][a-z_0-9]*`)

func checkTexts(t require.TestingT, sql string, args []any) {
	for _, name := range identifier.FindAllString(sql, -1) {
		require.True(t, known[name], "%q is no name of ours in %s", name, sql)
	}
	for i := range args {
		require.Regexp(t, `\$`+strconv.Itoa(i+1)+`::`, sql)
	}
	require.NotContains(t, sql, "$"+strconv.Itoa(len(args)+1))
	for _, c := range []string{"'", `"`, ";", "--", "\\", "zq"} {
		require.NotContains(t, sql, c, "a value slipped into the text")
	}
}

// drawFilter draws a filter, mostly a valid one, whose text values hold quotes
// and the marker "zq".
func drawFilter(t *rapid.T) string {
	text := rapid.SampledFrom([]string{"zq'; DROP TABLE x --", `zq"\`, "zq$1", "zq%_", "zq"}).Draw(t, "text")
	number := strconv.Itoa(rapid.IntRange(-9, 9).Draw(t, "number"))
	operator := func(names string) string { return rapid.SampledFrom(strings.Fields(names)).Draw(t, "op") }
	switch rapid.IntRange(0, 9).Draw(t, "field") {
	case 0:
		return "name:" + operator("eq ne lt ge in contains icontains like startswith endswith") + ":" + text
	case 1:
		return "rank:" + operator("eq ne lt le gt ge in") + ":" + number
	case 2:
		return "score:range:-1," + number
	case 3:
		return "state:" + operator("eq ne in") + ":half_shut"
	case 4:
		return "tags:" + operator("eq ne in") + ":" + text
	case 5:
		return "labels:" + operator("eq ne in") + ":" + text
	case 6:
		return "metadata." + text + ":" + operator("eq ne in icontains") + ":" + text
	case 7:
		return "account_id:" + operator("eq in") + ":" + rapid.SampledFrom([]string{accountA, accountB, accountC}).Draw(t, "account")
	case 8:
		return "created_at:range:2026-01-01,2026-01-0" + strconv.Itoa(rapid.IntRange(1, 9).Draw(t, "day"))
	default:
		return text + ":eq:" + text
	}
}

func drawRequest(t *rapid.T) query.Request {
	return query.Request{
		Filters: rapid.SliceOfN(rapid.Custom(drawFilter), 0, 6).Draw(t, "filters"),
		Sorts: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"name:asc", "rank:desc", "score", "created_at:desc", "state:asc"}),
			0, 5, rapid.ID[string]).Draw(t, "sorts"),
		Skip:  rapid.Int32Range(0, 100).Draw(t, "skip"),
		Limit: rapid.Int32Range(0, 100).Draw(t, "limit"),
	}
}

func TestOnlyPlaceholdersAndAlwaysTheTenant(t *testing.T) {
	t.Parallel()
	s := spec(t)
	rapid.Check(t, func(rt *rapid.T) {
		scope := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{accountA, accountB, accountC}), 1, 3, rapid.ID[string]).Draw(rt, "scope")
		request := drawRequest(rt)
		got, err := query.Compile(s, request, scope)
		if err != nil {
			require.Equal(rt, errorv1.Reason_REASON_INVALID_FILTER, apierr.From(err).Reason, "%v", err)
			return
		}
		require.Subset(rt, scope, got.Scope)
		checkStatement(rt, got.SQL, got.Args)
		checkStatement(rt, got.Count.SQL, got.Count.Args)
		if got.Probe != nil {
			checkStatement(rt, got.Probe.SQL, got.Probe.Args)
		}
		checkTexts(rt, got.Estimate.SQL, got.Estimate.Args) // explained under the database's own tenant condition
	})
}

// TestWhatCompilesRuns lists by random requests: PostgreSQL understands each, and
// shows rows of the scope only.
func TestWhatCompilesRuns(t *testing.T) {
	t.Parallel()
	pool := database(t)
	own := map[string]bool{}
	for _, account := range []string{accountA, accountB, accountC} {
		fill(t, pool, account, 20)
	}
	rows, err := pool.Query(t.Context(), "SELECT id::text FROM things WHERE account_id = ANY ($1::uuid[])", []string{accountA, accountB})
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	for _, id := range all {
		own[id] = true
	}
	specs := []*query.Spec{spec(t), spec(t, func(tab *query.Table) { tab.Search = true })}
	rapid.Check(t, func(rt *rapid.T) {
		scope := []string{accountA, accountB}[:rapid.IntRange(1, 2).Draw(rt, "accounts")]
		c, err := query.Compile(rapid.SampledFrom(specs).Draw(rt, "spec"), drawRequest(rt), scope)
		if err != nil {
			return
		}
		page, err := query.List(t.Context(), pool, c, pgx.RowToStructByName[thing])
		require.NoError(rt, err, c.SQL)
		for _, row := range page.Data {
			require.True(rt, own[row.ID], "a row of another account")
		}
		_, err = pool.Exec(t.Context(), c.Estimate.SQL, c.Estimate.Args...)
		require.NoError(rt, err, c.Estimate.SQL)
	})
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{"name:eq:x", "metadata.a:in:1,true", "created_at:range:2026-01-01,2026-01-02", "phone:is_null", "::", "id:eq:" + someID} {
		f.Add(seed, "name:desc")
	}
	f.Add(`name:like:\`, "rank")
	s := spec(f)
	f.Fuzz(func(t *testing.T, filter, sort string) {
		got, err := query.Compile(s, query.Request{Filters: []string{filter}, Sorts: []string{sort}}, []string{accountA, accountB})
		if err != nil {
			require.Equal(t, 400, apierr.HTTPStatus(apierr.From(err).Reason))
			require.Less(t, len(err.Error()), 600)
			return
		}
		for i := range got.Args {
			require.Contains(t, got.SQL, fmt.Sprintf("$%d::", i+1))
		}
		require.NotContains(t, got.SQL, "'")
		require.NotContains(t, got.SQL, ";")
	})
}

func FuzzPageToken(f *testing.F) {
	f.Add("")
	f.Add("eA")
	f.Add(strings.Repeat("A", 60))
	s := spec(f)
	f.Fuzz(func(t *testing.T, token string) {
		_, err := query.Compile(s, query.Request{PageToken: token}, []string{accountA})
		if token == "" {
			require.NoError(t, err)
			return
		}
		require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_PAGE), "a token that we did not make was accepted")
	})
}
