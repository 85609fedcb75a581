package storetest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

var noQuery = query.Request{}

const zeroID = "00000000-0000-0000-0000-000000000000"

// crowd stores contacts that the filters tell apart.
func crowd(f *fixture) map[string]*account.Contact {
	list := []*account.Contact{
		{Name: "Abebe", FirstName: "Abebe", LastName: "Bikila", Email: "abebe@x.example", Phone: "+251911000001", Tags: []string{"runner", "vip"}, ExternalID: "E1", Metadata: object(map[string]any{"city": "Addis", "n": 7, "ok": true})},
		{Name: "Bekele", FirstName: "Kenenisa", LastName: "Bekele", Email: "ken@y.example", Tags: []string{"runner"}, ExternalID: "E2", Metadata: object(map[string]any{"city": "Bekoji", "n": "7"})},
		{Name: "Chala", Phone: "+251911000003", Tags: []string{"vip,old"}, Metadata: object(map[string]any{"city": nil, "n": 7.0, "ok": "true"})},
		{FirstName: "Derartu", LastName: "Tulu", Email: "D_T%@x.example", Phone: "+254711000004"},
		{Name: "ጥሩነሽ", Email: "tirunesh@x.example", Metadata: object(map[string]any{"city": "Bekoji", "n": 8})},
	}
	f.create(f.mine, list...)
	f.create(f.other, &account.Contact{Name: "Abebe", FirstName: "Abebe", Email: "abebe@x.example", Tags: []string{"runner"}, Metadata: object(map[string]any{"city": "Addis"})})
	out := map[string]*account.Contact{}
	for _, c := range list {
		out[c.DisplayName()] = c
	}
	return out
}

func filters(f *fixture) {
	all := crowd(f)
	a, b := all["Abebe"], all["Bekele"]
	g := f.group(f.mine, "Group")
	_, err := f.Contacts.AddContacts(f.ctx, []string{f.mine}, g.ID, []string{a.ID, all["Chala"].ID})
	require.NoError(f.t, err)
	at := a.CreatedAt.UTC().Format("2006-01-02T15:04:05.999999Z")
	const A, B, C, D, T = "Abebe", "Bekele", "Chala", "Derartu Tulu", "ጥሩነሽ"
	for filter, want := range map[string][]string{
		"id:eq:" + a.ID:                           {A},
		"id:in:" + a.ID + "," + b.ID:              {A, B},
		"account_id:eq:" + f.mine:                 {A, B, C, D, T},
		"account_id:in:" + f.mine + "," + f.other: {A, B, C, D, T},
		"account_id:eq:" + f.other:                {},
		"name:eq:Abebe":                           {A},
		"name:eq:abebe":                           {},
		"name:eq:Derartu Tulu":                    {D},
		"name:contains:ek":                        {B},
		"name:contains:EK":                        {},
		"name:icontains:EK":                       {B},
		"name:icontains:ሩነ":                       {T},
		"name:startswith:Ch":                      {C},
		"name:startswith:ch":                      {},
		"name:endswith:ele":                       {B},
		"name:endswith:el":                        {},
		"first_name:eq:Kenenisa":                  {B},
		"first_name:contains:ene":                 {B},
		"first_name:icontains:DERARTU":            {D},
		"first_name:startswith:Ab":                {A},
		"first_name:endswith:tu":                  {D},
		"last_name:eq:Tulu":                       {D},
		"last_name:contains:kil":                  {A},
		"last_name:icontains:BEK":                 {B},
		"last_name:startswith:B":                  {A, B},
		"last_name:endswith:ulu":                  {D},
		"email:eq:abebe@x.example":                {A},
		"email:eq: ABEBE@X.Example":               {A},
		"email:contains:@x.":                      {A, D, T},
		"email:icontains:@X.":                     {A, D, T},
		"email:startswith:ken":                    {B},
		"email:endswith:y.example":                {B},
		"email:is_null":                           {C},
		"email:is_not_null":                       {A, B, D, T},
		"phone:eq:+251911000001":                  {A},
		"phone:eq:00251 911-000 001":              {A},
		"phone:contains:11000":                    {A, C, D},
		"phone:icontains:00003":                   {C},
		"phone:startswith:+254":                   {D},
		"phone:endswith:3":                        {C},
		"phone:is_null":                           {B, T},
		"phone:is_not_null":                       {A, C, D},
		"duplicate_of_id:is_not_null":             {},
		"duplicate_of_id:eq:" + a.ID:              {},
		"tags:eq:runner":                          {A, B},
		"tags:eq:run":                             {},
		"tags:in:vip,nothing":                     {A},
		"external_id:eq:E2":                       {B},
		"external_id:in:E1,E2,E3":                 {A, B},
		"group_id:eq:" + g.ID:                     {A, C},
		"group_id:in:" + g.ID + "," + zeroID:      {A, C},
		"created_at:ge:" + at:                     {A, B, C, D, T},
		"created_at:le:2001-01-01":                {},
		"created_at:range:2001-01-01,2200-01-01":  {A, B, C, D, T},
		"updated_at:ge:2200-01-01":                {},
		"updated_at:le:2200-01-01":                {A, B, C, D, T},
		"updated_at:range:2001-01-01,2001-01-02":  {},
		"metadata.city:eq:Bekoji":                 {B, T},
		"metadata.city:in:Addis,Adama":            {A},
		"metadata.n:eq:7":                         {A, B, C},
		"metadata.n:eq:7.0":                       {A, C},
		"metadata.n:in:8,9":                       {T},
		"metadata.ok:eq:true":                     {A, C},
		"metadata.nothing:eq:x":                   {},
	} {
		got := f.list(f.mine, filter)
		require.ElementsMatch(f.t, want, got, filter)
	}
	// Several must all hold.
	require.Equal(f.t, []string{A}, f.list(f.mine, "tags:eq:runner", "metadata.city:eq:Addis", "email:is_not_null"))
	require.Empty(f.t, f.list(f.mine, "tags:eq:runner", "email:is_null"))
}

func attributes(f *fixture) {
	crowd(f)
	// A null value is as good as none; the bound is the contract's.
	today := f.names(query.Request{}, f.mine)
	require.Len(f.t, today, 5)
	page, err := f.Contacts.Contacts(f.ctx, []string{f.mine}, query.Request{Limit: 1})
	require.NoError(f.t, err)
	at := page.Data[0].CreatedAt
	bound := fmt.Sprintf("created_at:range:%s,%s", at.AddDate(0, 0, -15).Format("2006-01-02"), at.AddDate(0, 0, 15).Format("2006-01-02"))
	require.Equal(f.t, []string{"Chala", "Derartu Tulu"}, f.list(f.mine, "metadata.city:is_null", bound))
	require.Equal(f.t, []string{"Bekele", "Derartu Tulu", "ጥሩነሽ"}, f.list(f.mine, "metadata.ok:is_null", bound))
}

func literalText(f *fixture) {
	crowd(f)
	f.create(f.mine, &account.Contact{Name: `100% (a+)+$ [x] \d _ .*`, Email: "literal@z.example"})
	for filter, want := range map[string]int{
		"name:contains:%": 1, "name:contains:_": 1, "name:contains:.": 1, "name:contains:(a+)+$": 1, "name:contains:[x]": 1, `name:contains:\d`: 1,
		"name:icontains:(A+)+$": 1, "name:startswith:100%": 1, "name:endswith:.*": 1, "name:startswith:.*": 0, "email:contains:_t%": 1, "email:contains:_T%": 0,
		"email:icontains:_t%": 1, "name:contains:^": 0, "name:endswith:$": 0, "name:contains:a|b": 0,
	} {
		require.Len(f.t, f.list(f.mine, filter), want, filter)
	}
}

func refusedFilters(f *fixture) {
	crowd(f)
	for _, filter := range []string{
		"nothing:eq:1", "name:between:1", "name:eq", "tags:contains:x", "metadata:eq:x", "metadata.:eq:x", "id:eq:1", "created_at:ge:yesterday",
		"email:is_null:x", "metadata.k:is_null", "account_id:ne:" + f.other, "$where:eq:1", "name.first:eq:x", "name:eq:\x00", "_id:eq:x", "group_ids:eq:" + zeroID,
	} {
		_, err := f.Contacts.Contacts(f.ctx, []string{f.mine}, query.Request{Filters: []string{filter}})
		f.reason(errorv1.Reason_REASON_INVALID_FILTER, err)
	}
	for _, sort := range []string{"phone:asc", "metadata.k:asc", "name:up", "$natural:asc", "version:asc"} {
		_, err := f.Contacts.Contacts(f.ctx, []string{f.mine}, query.Request{Sorts: []string{sort}})
		f.reason(errorv1.Reason_REASON_INVALID_SORT, err)
	}
}

// heavyPages: a page ends where it weighs as much as it may. All of the list comes by tokens,
// and by skip where the next page begins at skip + meta.limit; recipients come likewise.
func heavyPages(f *fixture) {
	g, list := f.group(f.mine, "All"), make([]*account.Contact, 60)
	for i := range list {
		list[i] = &account.Contact{Name: fmt.Sprintf("C%03d", i), Metadata: object(map[string]any{"a": strings.Repeat("x", 60_000)})}
		if i >= 40 {
			list[i].Metadata = object(map[string]any{"a": make([]int, 4000)})
		}
	}
	for part := range slices.Chunk(list, 10) {
		f.create(f.mine, part...)
		_, err := f.Contacts.AddContacts(f.ctx, []string{f.mine}, g.ID, contactIDs(part))
		require.NoError(f.t, err)
	}
	want := contactIDs(list)
	slices.Sort(want)
	for _, bySkip := range []bool{false, true} {
		var got []string
		r := query.Request{Limit: 1000}
		for more := true; more; {
			page, err := f.Contacts.Contacts(f.ctx, []string{f.mine}, r)
			require.NoError(f.t, err)
			require.Less(f.t, len(page.Data), 50)
			if !page.Meta.GetTotalIsEstimate() {
				require.EqualValues(f.t, len(want), page.Meta.GetTotal())
			}
			got = append(got, contactIDs(page.Data)...)
			if more = page.Meta.GetNextPageToken() != ""; more {
				require.EqualValues(f.t, len(page.Data), page.Meta.GetLimit())
			}
			if r.PageToken = page.Meta.GetNextPageToken(); bySkip {
				r.PageToken, r.Skip = "", r.Skip+page.Meta.GetLimit()
			}
		}
		slices.Sort(got)
		require.Equal(f.t, want, got, "each once")
	}
	got := []string{zeroID}
	for {
		page, err := f.Contacts.Recipients(f.ctx, f.mine, []string{g.ID}, got[len(got)-1], 500)
		require.NoError(f.t, err)
		require.Less(f.t, len(page), 50)
		if len(page) == 0 {
			break
		}
		got = append(got, contactIDs(page)...)
	}
	require.Equal(f.t, want, got[1:])
}

func contactIDs(list []*account.Contact) (ids []string) {
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids
}

func orders(f *fixture) {
	crowd(f)
	f.create(f.mine, &account.Contact{Name: "abebe", Phone: "+251911000009"}, &account.Contact{Name: "Abebe", Email: "zz@x.example"})
	for sorts, want := range map[string][]string{
		"name:asc":             {"Abebe", "Abebe", "Bekele", "Chala", "Derartu Tulu", "abebe", "ጥሩነሽ"},
		"email:asc,name:asc":   {"Abebe", "Derartu Tulu", "Bekele", "ጥሩነሽ", "Abebe", "Chala", "abebe"},
		"email:desc,name:desc": {"abebe", "Chala", "Abebe", "ጥሩነሽ", "Bekele", "Derartu Tulu", "Abebe"},
		"name:desc":            {"ጥሩነሽ", "abebe", "Derartu Tulu", "Chala", "Bekele", "Abebe", "Abebe"},
	} {
		keys := splitSorts(sorts)
		require.Equal(f.t, want, f.names(query.Request{Sorts: keys}, f.mine), sorts)
		for _, size := range []int32{1, 2, 3, 7} {
			require.Equal(f.t, want, f.pages(query.Request{Sorts: keys, Limit: size}, f.mine), "%s by %d", sorts, size)
		}
	}
	for _, sorts := range []string{"created_at:asc", "created_at:desc", "updated_at:asc", "updated_at:desc,name:asc", ""} {
		keys := splitSorts(sorts)
		require.Equal(f.t, f.names(query.Request{Sorts: keys}, f.mine), f.pages(query.Request{Sorts: keys, Limit: 2}, f.mine), sorts)
	}
	require.Equal(f.t, []string{"Bekele", "Chala"}, f.names(query.Request{Sorts: []string{"name:asc"}, Skip: 2, Limit: 2}, f.mine))
}

func splitSorts(sorts string) (keys []string) {
	start := 0
	for i := 0; i <= len(sorts); i++ {
		if i == len(sorts) || sorts[i] == ',' {
			if i > start {
				keys = append(keys, sorts[start:i])
			}
			start = i + 1
		}
	}
	return keys
}

// pages is the names on all pages.
func (f *fixture) pages(r query.Request, scope ...string) []string {
	f.t.Helper()
	var names []string
	for range 100 {
		page, err := f.Contacts.Contacts(f.ctx, scope, r)
		require.NoError(f.t, err)
		for _, c := range page.Data {
			names = append(names, c.DisplayName())
		}
		if r.PageToken = page.Meta.GetNextPageToken(); r.PageToken == "" {
			break
		}
	}
	return names
}

func tokens(f *fixture) {
	crowd(f)
	first, err := f.Contacts.Contacts(f.ctx, []string{f.mine}, query.Request{Sorts: []string{"name:asc"}, Limit: 2})
	require.NoError(f.t, err)
	token := first.Meta.GetNextPageToken()
	require.NotEmpty(f.t, token)
	for name, r := range map[string]query.Request{
		"another order":   {Sorts: []string{"name:desc"}, PageToken: token},
		"another filter":  {Sorts: []string{"name:asc"}, Filters: []string{"tags:eq:vip"}, PageToken: token},
		"changed":         {Sorts: []string{"name:asc"}, PageToken: token[:len(token)-1] + "A"},
		"with a skip too": {Sorts: []string{"name:asc"}, PageToken: token, Skip: 1},
	} {
		if r.PageToken == token && name == "changed" {
			continue
		}
		_, err := f.Contacts.Contacts(f.ctx, []string{f.mine}, r)
		require.Error(f.t, err, name)
		f.reason(errorv1.Reason_REASON_INVALID_PAGE, err)
	}
	_, err = f.Contacts.Contacts(f.ctx, []string{f.other}, query.Request{Sorts: []string{"name:asc"}, PageToken: token})
	f.reason(errorv1.Reason_REASON_INVALID_PAGE, err)
}

func severalAccounts(f *fixture) {
	crowd(f)
	both := []string{f.mine, f.other}
	want := []string{"Abebe", "Abebe", "Bekele", "Chala", "Derartu Tulu", "ጥሩነሽ"}
	require.Equal(f.t, want, f.names(query.Request{Sorts: []string{"name:asc"}}, both...))
	for _, size := range []int32{1, 2, 4} {
		require.Equal(f.t, want, f.pages(query.Request{Sorts: []string{"name:asc"}, Limit: size}, both...))
	}
	require.Equal(f.t, []string{"Abebe"}, f.names(query.Request{Filters: []string{"account_id:eq:" + f.other}}, both...))
	require.Equal(f.t, []string{"Abebe", "Abebe"}, f.names(query.Request{Filters: []string{"metadata.city:eq:Addis"}}, both...))
	third := account.NewID()
	f.create(third, &account.Contact{Name: "Nobody"})
	require.NotContains(f.t, f.names(query.Request{}, both...), "Nobody")
}

func totals(f *fixture) {
	crowd(f)
	for _, r := range []query.Request{{}, {Limit: 2}, {Limit: 2, Skip: 4}, {Limit: 2, Skip: 9}} {
		page, err := f.Contacts.Contacts(f.ctx, []string{f.mine}, r)
		require.NoError(f.t, err)
		if !page.Meta.GetTotalIsEstimate() {
			require.EqualValues(f.t, 5, page.Meta.GetTotal(), "%+v", r)
		}
	}
	page, err := f.Contacts.Contacts(f.ctx, []string{f.mine}, query.Request{Limit: 1, Filters: []string{"tags:eq:runner"}})
	require.NoError(f.t, err)
	require.True(f.t, page.Meta.GetTotalIsEstimate() || page.Meta.GetTotal() == 2)
	page, err = f.Contacts.Contacts(f.ctx, []string{f.mine}, query.Request{Limit: 1, NoTotal: true})
	require.NoError(f.t, err)
	require.Zero(f.t, page.Meta.GetTotal())
}

func beyondTheEnd(f *fixture) {
	crowd(f)
	require.Empty(f.t, f.names(query.Request{Skip: 5}, f.mine))
	require.Empty(f.t, f.names(query.Request{}, account.NewID()))
	names := f.names(query.Request{Sorts: []string{"name:asc"}, Skip: 4}, f.mine)
	require.True(f.t, slices.Equal([]string{"ጥሩነሽ"}, names))
}
