package mongodb

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"pgregory.net/rapid"

	eventv1 "github.com/turumba/turumba/gen/turumba/event/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/query"
)

const account = "0190a5c8-0000-7000-8000-000000000001"

// everything is a spec with every kind of field and every operator of it.
func everything(t testing.TB) *query.Spec {
	t.Helper()
	text := []optionsv1.Operator{
		optionsv1.Operator_OPERATOR_EQ, optionsv1.Operator_OPERATOR_NE, optionsv1.Operator_OPERATOR_IN, optionsv1.Operator_OPERATOR_CONTAINS,
		optionsv1.Operator_OPERATOR_ICONTAINS, optionsv1.Operator_OPERATOR_STARTSWITH, optionsv1.Operator_OPERATOR_ENDSWITH,
		optionsv1.Operator_OPERATOR_LIKE, optionsv1.Operator_OPERATOR_ILIKE, optionsv1.Operator_OPERATOR_IS_NULL, optionsv1.Operator_OPERATOR_IS_NOT_NULL,
	}
	ordered := []optionsv1.Operator{
		optionsv1.Operator_OPERATOR_LT, optionsv1.Operator_OPERATOR_LE, optionsv1.Operator_OPERATOR_GT, optionsv1.Operator_OPERATOR_GE, optionsv1.Operator_OPERATOR_RANGE,
	}
	s, err := query.SpecFor((&eventv1.Event{}).ProtoReflect().Descriptor(), query.Table{
		From: "c", Select: []string{"c"}, ID: "_id", TokenKey: make([]byte, 32),
		Columns: map[string]query.Column{
			"name":     {Expr: "name", Kind: query.KindText, Operators: append(slices.Clone(ordered), text...)},
			"rank":     {Expr: "rank", Kind: query.KindInt, Operators: ordered},
			"at":       {Expr: "at", Kind: query.KindTime, Operators: ordered},
			"tags":     {Expr: "tags", Kind: query.KindTextArray, Operators: text[:3]},
			"metadata": {Expr: "attributes", Kind: query.KindJSON, Operators: []optionsv1.Operator{text[0], text[1], text[2], text[9], text[10]}},
		},
	})
	require.NoError(t, err)
	return s
}

// known are all keys that a filter may hold: our paths and operators.
var known = []string{
	"name", "rank", "at", "tags", "attributes", "_id", "$and", "$or", "$eq", "$ne", "$nin", "$in", "$lt", "$lte", "$gt", "$gte", "$regex", "$options",
}

// checkKeys holds every key of a filter to the known ones.
func checkKeys(t require.TestingT, v any) {
	switch v := v.(type) {
	case bson.D:
		for _, e := range v {
			require.Contains(t, known, e.Key, "what a caller wrote became a key")
			checkKeys(t, e.Value)
		}
	case bson.A:
		for _, e := range v {
			checkKeys(t, e)
		}
	}
}

func TestOnlyOurKeys(t *testing.T) {
	t.Parallel()
	s := everything(t)
	rapid.Check(t, func(rt *rapid.T) {
		hostile := rapid.SampledFrom([]string{`{"$gt":""}`, "$where", "a.$b", "__proto__", "(a+)+$", "%_\\", "zq'", "1", "true", "\u0000"}).Draw(rt, "text")
		filter := rapid.SampledFrom([]string{
			"name:eq:" + hostile, "name:ne:" + hostile, "name:in:a," + hostile, "name:contains:" + hostile, "name:icontains:" + hostile, "name:like:" + hostile,
			"name:ilike:" + hostile, "name:startswith:" + hostile, "name:endswith:" + hostile, "name:gt:" + hostile, "name:range:a," + hostile, "name:is_null",
			"tags:eq:" + hostile, "tags:in:" + hostile, "metadata." + hostile + ":eq:" + hostile, "metadata." + hostile + ":in:" + hostile + ",x",
			"metadata." + hostile + ":ne:" + hostile, "metadata." + hostile + ":is_null", "rank:range:1,2", "at:ge:2026-01-01", hostile + ":eq:1",
		}).Draw(rt, "filter")
		q, err := query.Check(s, query.Request{Filters: []string{filter}}, []string{account})
		if err != nil {
			return
		}
		require.Equal(rt, []string{account}, q.Scope)
		m := matching(q)
		checkKeys(rt, m)
		_, err = bson.Marshal(m)
		if strings.ContainsRune(filter, 0) {
			return
		}
		require.NoError(rt, err)
	})
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{"name:eq:x", "metadata.$where:eq:1", `name:like:%\%_`, "name:icontains:(a+)+$", "tags:in:a,b", "at:range:2026-01-01,2026-01-02"} {
		f.Add(seed)
	}
	s := everything(f)
	f.Fuzz(func(t *testing.T, filter string) {
		q, err := query.Check(s, query.Request{Filters: []string{filter}}, []string{account})
		if err != nil {
			return
		}
		m := matching(q)
		checkKeys(t, m)
		if _, err := bson.Marshal(m); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzAttributes(f *testing.F) {
	f.Add(`{"a":"b","n":1.50,"t":true,"x":null,"$where":{"y":1}}`)
	f.Add(`{"":1e999,"a":-0}`)
	f.Fuzz(func(t *testing.T, object string) {
		out, err := Attributes(json.RawMessage(object))
		if err != nil {
			return
		}
		require.True(t, slices.IsSorted(out))
		for _, a := range out {
			var n int
			_, err := fmt.Sscanf(a, "%d:", &n)
			require.NoError(t, err)
		}
	})
}

func TestAttributes(t *testing.T) {
	t.Parallel()
	got, err := Attributes(json.RawMessage(`{"city":"Addis","n":7.0,"ok":true,"none":null,"list":[1],"long":"` + strings.Repeat("x", query.MaxValueLength+1) + `"}`))
	require.NoError(t, err)
	require.Equal(t, []string{"1:n", "1:n=j7", "2:ok", "2:ok=jtrue", "4:city", "4:city=sAddis", "4:list", "4:long"}, got)
	for _, bad := range []string{"[]", "1", "{"} {
		_, err := Attributes(json.RawMessage(bad))
		require.Error(t, err, bad)
	}
}

func TestLikePattern(t *testing.T) {
	t.Parallel()
	for like, want := range map[string]string{
		"a%": "a.*", "a%%%b": "a.*b", "_": ".", `\%\_`: `%_`, "a.b*": `a\.b\*`, `\\`: `\\`, "%(a+)+$": `.*\(a\+\)\+\$`,
	} {
		require.Equal(t, want, likePattern(like), like)
	}
}
