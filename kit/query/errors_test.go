package query_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/query"
)

func TestBadRequests(t *testing.T) {
	t.Parallel()
	s := spec(t)
	filter := func(f ...string) query.Request { return query.Request{Filters: f} }
	sort := func(f ...string) query.Request { return query.Request{Sorts: f} }
	badFilter, badSort, badPage := errorv1.Reason_REASON_INVALID_FILTER, errorv1.Reason_REASON_INVALID_SORT, errorv1.Reason_REASON_INVALID_PAGE
	cases := []struct {
		name    string
		request query.Request
		reason  errorv1.Reason
		text    string
	}{
		{"no operator", filter("name"), badFilter, `filter "name": must be field:op:value`},
		{"no field", filter(":eq:x"), badFilter, "must be field:op:value"},
		{"no value", filter("name:eq"), badFilter, `operator eq needs a value`},
		{"unknown operator", filter("name:equals:x"), badFilter, `filter "name": operator "equals" is unknown`},
		{"upper-case operator", filter("name:EQ:x"), badFilter, "is unknown"},
		{"unspecified operator", filter("name:unspecified:x"), badFilter, "is unknown"},
		{"value for a null check", filter("name:is_null:x"), badFilter, "operator is_null takes no value"},
		{"unknown field", filter("nope:eq:x"), badFilter, `filter "nope": no such filter field; it can be account_id, address, created_at`},
		{"field without option", filter("hidden:eq:x"), badFilter, `filter "hidden": no such filter field`},
		{"operator not allowed", filter("enabled:ne:true"), badFilter, `filter "enabled": operator ne is not allowed; it can be eq`},
		{"uuid", filter("id:eq:7"), badFilter, `filter "id": expected a UUID, got "7"`},
		{"uuid in braces", filter("id:eq:{" + someID + "}"), badFilter, "expected a UUID"},
		{"bool", filter("enabled:eq:1"), badFilter, `expected true or false, got "1"`},
		{"int", filter("rank:eq:1.0"), badFilter, "expected an integer"},
		{"int too large", filter("rank:eq:9223372036854775808"), badFilter, "expected an integer"},
		{"float", filter("score:eq:NaN"), badFilter, "expected a number"},
		{"time", filter("created_at:ge:yesterday"), badFilter, "expected an RFC 3339 time or a date YYYY-MM-DD"},
		{"enum", filter("state:eq:OPEN"), badFilter, `filter "state": expected one of open, half_shut, got "OPEN"`},
		{"enum zero", filter("state:eq:STATE_UNSPECIFIED"), badFilter, "expected one of"},
		{"one bound", filter("rank:range:1"), badFilter, "takes two values"},
		{"bounds swapped", filter("rank:range:2,1"), badFilter, "must not be above"},
		{"float bounds swapped", filter("score:range:2,1"), badFilter, "must not be above"},
		{"time bounds swapped", filter("created_at:range:2026-01-02,2026-01-01"), badFilter, "must not be above"},
		{"empty item", filter("name:in:a,,b"), badFilter, "not empty"},
		{"empty contains", filter("name:contains:"), badFilter, "not empty"},
		{"backslash", filter(`name:like:a\\\`), badFilter, "backslash"},
		{"zero byte", filter("name:eq:a\x00b"), badFilter, "UTF-8"},
		{"not UTF-8", filter("name:eq:\xff"), badFilter, "UTF-8"},
		{"too long", filter("name:eq:" + strings.Repeat("x", query.MaxValueLength+1)), badFilter, "at most 1000 bytes"},
		{"too many items", filter("name:in:" + strings.Repeat("x,", query.MaxListItems) + "x"), badFilter, "at most 100 values"},
		{"too many", filter(strings.Split(strings.Repeat("name:eq:x ", 21), " ")[:21]...), badFilter, "at most 20 filters"},
		{"json without key", filter("metadata:eq:x"), badFilter, "as in metadata.key"},
		{"json with empty key", filter("metadata.:eq:x"), badFilter, "as in metadata.key"},
		{"dot elsewhere", filter("name.x:eq:x"), badFilter, "no such filter field"},
		{"unbounded", filter("address:icontains:x"), badFilter, `filter "address": operator icontains needs a range of at most 31 days on created_at`},
		{"half bounded", filter("address:icontains:x", "created_at:ge:2026-01-01"), badFilter, "needs a range"},
		{"bounded too widely", filter("address:icontains:x", "created_at:range:2026-01-01,2026-02-02"), badFilter, "needs a range"},

		{"unknown sort", sort("nope:asc"), badSort, `sort "nope": no such sort field; it can be created_at, name, rank, score, state`},
		{"not sortable", sort("enabled"), badSort, "no such sort field"},
		{"direction", sort("name:up"), badSort, "must be asc or desc"},
		{"empty sort", sort(""), badSort, "must be field:asc"},
		{"sort twice", sort("name", "name:desc"), badSort, "given twice"},
		{"too many sorts", sort("a", "b", "c", "d", "e", "f"), badSort, "at most 5"},

		{"negative skip", query.Request{Skip: -1}, badPage, "negative"},
		{"deep skip", query.Request{Skip: 10001}, badPage, "use page_token"},
		{"negative limit", query.Request{Limit: -1}, badPage, "1 to 1000"},
		{"large limit", query.Request{Limit: 1001}, badPage, "1 to 1000"},
		{"token and skip", query.Request{Skip: 1, PageToken: "x"}, badPage, "exclude"},
		{"token", query.Request{PageToken: "!"}, badPage, "not valid"},
		{"short token", query.Request{PageToken: "eA"}, badPage, "not valid"},
		{"forged token", query.Request{PageToken: strings.Repeat("A", 60)}, badPage, "not valid"},
		{"long token", query.Request{PageToken: strings.Repeat("A", 2049)}, badPage, "not valid"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := query.Compile(s, c.request, []string{accountA})
			require.ErrorContains(t, err, c.text)
			require.Equal(t, c.reason, apierr.From(err).Reason)
			require.Equal(t, 400, apierr.HTTPStatus(apierr.From(err).Reason))
		})
	}
}

func TestBoundedOperators(t *testing.T) {
	t.Parallel()
	s := spec(t)
	for _, filters := range [][]string{
		{"address:eq:x"},
		{"address:icontains:x", "created_at:range:2026-01-01,2026-02-01"},
		{"created_at:gt:2026-01-01", "address:icontains:x", "created_at:le:2026-01-15"},
		{"address:icontains:x", "created_at:eq:2026-01-01"},
		{"address:icontains:x", "created_at:range:2020-01-01,2026-02-01", "created_at:ge:2026-01-20"},
	} {
		_, err := query.Compile(s, query.Request{Filters: filters}, []string{accountA})
		require.NoError(t, err, "%v", filters)
	}
}

func TestManyAccounts(t *testing.T) {
	t.Parallel()
	scope := make([]string, query.MaxAccounts+1)
	for i := range scope {
		scope[i] = fmt.Sprintf("0197a000-0000-7000-8000-%012x", i)
	}
	slices.Reverse(scope) // the order of the scope counts, not that of the ids
	c, err := query.Compile(spec(t), query.Request{}, scope)
	require.NoError(t, err)
	require.ElementsMatch(t, scope[:query.MaxAccounts], c.Scope, "those joined first")
	last := scope[query.MaxAccounts]
	c, err = query.Compile(spec(t), query.Request{Filters: []string{"account_id:eq:" + last}}, scope)
	require.NoError(t, err)
	require.Equal(t, []string{last}, c.Scope, "a filter reaches the others")
	c, err = query.Compile(spec(t, func(tab *query.Table) { tab.Tenant = "id" }), query.Request{}, scope)
	require.NoError(t, err)
	require.Len(t, c.Scope, len(scope), "a look-up by key has no such limit")
}

func TestSpecForRefuses(t *testing.T) {
	t.Parallel()
	with := func(c column) []column { return append(things(), c) }
	cases := []struct {
		name    string
		columns []column
		change  func(*query.Table)
		want    string
	}{
		{"no table", things(), func(t *query.Table) { t.From = "" }, "needs From"},
		{"short key", things(), func(t *query.Table) { t.TokenKey = nil }, "TokenKey"},
		{"unknown column", things(), func(t *query.Table) { t.Columns["nope"] = query.Column{} }, "column nope"},
		{"operators twice", things(), func(t *query.Table) { t.Columns["name"] = query.Column{Operators: ops("eq")} }, "column name"},
		{"wrapper", things(), func(t *query.Table) { t.Columns["enabled"] = query.Column{Within: "x"} }, "exactly once"},
		{"default sort", things(), func(t *query.Table) { t.DefaultSort = []string{"enabled"} }, "no such sort field"},
		{"type", with(column{name: "x", kind: bytesType, query: &optionsv1.Query{Operators: ops("eq")}}), nil, "cannot be queried"},
		{"list type", with(column{name: "x", kind: intType, repeated: true, query: &optionsv1.Query{Operators: ops("eq")}}), nil, "cannot be queried"},
		{"operator", with(column{name: "x", kind: boolType, query: &optionsv1.Query{Operators: ops("like")}}), nil, "do not suit"},
		{"any key", with(column{name: "x", kind: textType, query: &optionsv1.Query{AnyKey: true}}), nil, "any_key"},
		{"json sort", with(column{name: "x", kind: messageType, typeName: object, query: &optionsv1.Query{AnyKey: true, Sortable: true}}), nil, "cannot be sorted"},
		{"bounded by nothing", with(column{name: "x", kind: textType, query: &optionsv1.Query{Operators: ops("eq"), BoundedOperators: ops("eq")}}), nil, "bounded_by"},
		{"bounded but no operator", with(column{name: "x", kind: textType, query: &optionsv1.Query{
			Operators: ops("ne"), BoundedOperators: ops("eq"), BoundedBy: "created_at", BoundedDays: 1,
		}}), nil, "must be operators"},
		{"tenant operators", with(column{name: "owner", kind: textType, uuid: true, query: &optionsv1.Query{Operators: ops("ne"), Column: "account_id"}}), nil, "tenant"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tab := table()
			if c.change != nil {
				c.change(&tab)
			}
			_, err := query.SpecFor(describe(t, c.columns), tab)
			require.ErrorContains(t, err, c.want)
		})
	}
}

type listRequest struct{ token string }

func (listRequest) GetFilter() []string    { return []string{"a:eq:b"} }
func (listRequest) GetSort() []string      { return []string{"c"} }
func (listRequest) GetSkip() int32         { return 1 }
func (listRequest) GetLimit() int32        { return 2 }
func (r listRequest) GetPageToken() string { return r.token }

func TestRequestOf(t *testing.T) {
	t.Parallel()
	want := query.Request{Filters: []string{"a:eq:b"}, Sorts: []string{"c"}, Skip: 1, Limit: 2, PageToken: "t"}
	require.Equal(t, want, query.RequestOf(listRequest{token: "t"}))
	want.PageToken = ""
	require.Equal(t, want, query.RequestOf(struct{ query.ListRequest }{listRequest{}}))
}
