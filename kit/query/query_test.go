package query_test

import (
	"strings"
	"testing"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/query"
)

const (
	accountA = "0197a000-0000-7000-8000-00000000000a"
	accountB = "0197a000-0000-7000-8000-00000000000b"
	accountC = "0197a000-0000-7000-8000-00000000000c"
	someID   = "0197a111-1111-7111-8111-111111111111"
)

// column describes one field of the test resource.
type column struct {
	name     string
	kind     descriptorpb.FieldDescriptorProto_Type
	typeName string
	repeated bool
	uuid     bool
	query    *optionsv1.Query
}

func ops(names string) []optionsv1.Operator {
	var all []optionsv1.Operator
	for _, name := range strings.Fields(names) {
		all = append(all, optionsv1.Operator(optionsv1.Operator_value["OPERATOR_"+strings.ToUpper(name)]))
	}
	return all
}

const (
	textType    = descriptorpb.FieldDescriptorProto_TYPE_STRING
	boolType    = descriptorpb.FieldDescriptorProto_TYPE_BOOL
	intType     = descriptorpb.FieldDescriptorProto_TYPE_INT32
	floatType   = descriptorpb.FieldDescriptorProto_TYPE_DOUBLE
	enumType    = descriptorpb.FieldDescriptorProto_TYPE_ENUM
	messageType = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	bytesType   = descriptorpb.FieldDescriptorProto_TYPE_BYTES
)

const (
	timestamp = ".google.protobuf.Timestamp"
	object    = ".google.protobuf.Struct"
	state     = ".test.State"
)

// things are the fields of the test resource, one of each kind.
func things() []column {
	order := "eq ne lt le gt ge in range is_null is_not_null"
	return []column{
		{name: "id", kind: textType, uuid: true, query: &optionsv1.Query{Operators: ops("eq in")}},
		{name: "account_id", kind: textType, uuid: true, query: &optionsv1.Query{Operators: ops("eq in")}},
		{name: "name", kind: textType, query: &optionsv1.Query{
			Operators: ops(order + " contains icontains like ilike startswith endswith"), Sortable: true,
		}},
		{name: "state", kind: enumType, typeName: state, query: &optionsv1.Query{Operators: ops("eq ne in"), Sortable: true}},
		{name: "enabled", kind: boolType, query: &optionsv1.Query{Operators: ops("eq")}},
		{name: "rank", kind: intType, query: &optionsv1.Query{Operators: ops(order), Sortable: true, Column: "rank_no"}},
		{name: "score", kind: floatType, query: &optionsv1.Query{Operators: ops(order), Sortable: true}},
		{name: "address", kind: textType, query: &optionsv1.Query{
			Operators: ops("eq icontains"), BoundedOperators: ops("icontains"), BoundedBy: "created_at", BoundedDays: 31,
		}},
		{name: "tags", kind: textType, repeated: true, query: &optionsv1.Query{Operators: ops("eq ne in")}},
		{name: "labels", kind: textType, repeated: true, query: &optionsv1.Query{Operators: ops("eq ne in is_null")}},
		{name: "metadata", kind: messageType, typeName: object, query: &optionsv1.Query{
			Operators: ops("eq ne in is_null is_not_null icontains"), AnyKey: true,
		}},
		{name: "created_at", kind: messageType, typeName: timestamp, query: &optionsv1.Query{
			Operators: ops("eq ge gt le lt range"), Sortable: true,
		}},
		{name: "hidden", kind: textType},
	}
}

// describe builds the descriptor of a message test.Thing with the fields.
func describe(t testing.TB, columns []column) protoreflect.MessageDescriptor {
	t.Helper()
	message := &descriptorpb.DescriptorProto{Name: proto.String("Thing")}
	for i, c := range columns {
		options := &descriptorpb.FieldOptions{}
		if c.query != nil {
			proto.SetExtension(options, optionsv1.E_Query, c.query)
		}
		if c.uuid {
			rules := &validate.FieldRules{Type: &validate.FieldRules_String_{
				String_: &validate.StringRules{WellKnown: &validate.StringRules_Uuid{Uuid: true}},
			}}
			proto.SetExtension(options, validate.E_Field, rules)
		}
		label := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
		if c.repeated {
			label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
		}
		f := &descriptorpb.FieldDescriptorProto{
			Name: proto.String(c.name), Number: proto.Int32(int32(i + 1)), Type: c.kind.Enum(), Label: label.Enum(), Options: options,
		}
		if c.typeName != "" {
			f.TypeName = proto.String(c.typeName)
		}
		message.Field = append(message.Field, f)
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("thing.proto"), Package: proto.String("test"), Syntax: proto.String("proto3"),
		Dependency:  []string{"google/protobuf/struct.proto", "google/protobuf/timestamp.proto"},
		MessageType: []*descriptorpb.DescriptorProto{message},
		EnumType: []*descriptorpb.EnumDescriptorProto{{Name: proto.String("State"), Value: []*descriptorpb.EnumValueDescriptorProto{
			{Name: proto.String("STATE_UNSPECIFIED"), Number: proto.Int32(0)},
			{Name: proto.String("STATE_OPEN"), Number: proto.Int32(1)},
			{Name: proto.String("STATE_HALF_SHUT"), Number: proto.Int32(2)},
		}}},
	}, protoregistry.GlobalFiles)
	require.NoError(t, err)
	return file.Messages().Get(0)
}

func table() query.Table {
	return query.Table{
		From: "things", Select: []string{"id", "name"}, TokenKey: []byte("0123456789abcdef"),
		Columns: map[string]query.Column{
			"labels":   {Kind: query.KindJSONArray},
			"state":    {NotNull: true},
			"group_id": {Kind: query.KindUUID, Operators: ops("eq in"), Within: "EXISTS (SELECT 1 FROM members WHERE thing_id = id AND %s)"},
		},
	}
}

func spec(t testing.TB, change ...func(*query.Table)) *query.Spec {
	t.Helper()
	tab := table()
	for _, c := range change {
		c(&tab)
	}
	s, err := query.SpecFor(describe(t, things()), tab)
	require.NoError(t, err)
	return s
}

func TestFilterSQL(t *testing.T) {
	t.Parallel()
	s := spec(t)
	day := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	cases := []struct {
		filter, sql string
		args        []any
	}{
		{"name:eq:a:b", "name = $2::text", []any{"a:b"}},
		{"name:eq:", "name = $2::text", []any{""}},
		{"name:ne:x", "name <> $2::text", []any{"x"}},
		{"name:in:a,b", "name = ANY($2::text[])", []any{[]string{"a", "b"}}},
		{"name:range:a,b", "name BETWEEN $2::text AND $3::text", []any{"a", "b"}},
		{"name:is_null", "name IS NULL", nil},
		{"name:is_not_null", "name IS NOT NULL", nil},
		{`name:contains:5%_\`, "name LIKE $2::text", []any{`%5\%\_\\%`}},
		{"name:icontains:x", "name ILIKE $2::text", []any{"%x%"}},
		{"name:startswith:x", "name LIKE $2::text", []any{"x%"}},
		{"name:endswith:x", "name LIKE $2::text", []any{"%x"}},
		{"name:like:a%b_", "name LIKE $2::text", []any{"a%b_"}},
		{`name:ilike:a\\`, "name ILIKE $2::text", []any{`a\\`}},
		{"state:eq:half_shut", "state = $2::text", []any{"half_shut"}},
		{"state:in:open,STATE_HALF_SHUT", "state = ANY($2::text[])", []any{[]string{"open", "half_shut"}}},
		{"enabled:eq:false", "enabled = $2::boolean", []any{false}},
		{"rank:le:-3", "rank_no <= $2::bigint", []any{int64(-3)}},
		{"rank:in:1,2", "rank_no = ANY($2::bigint[])", []any{[]int64{1, 2}}},
		{"score:gt:1.5", "score > $2::double precision", []any{1.5}},
		{"score:in:1,2.5", "score = ANY($2::double precision[])", []any{[]float64{1, 2.5}}},
		{"created_at:ge:2026-01-02", "created_at >= $2::timestamptz", []any{day}},
		{"created_at:lt:2026-01-02T03:00:00+03:00", "created_at < $2::timestamptz", []any{day}},
		{"created_at:lt:2026-01-02T03:00:00 03:00", "created_at < $2::timestamptz", []any{day}},
		{"id:eq:" + strings.ToUpper(someID), "id = $2::uuid", []any{someID}},
		{"tags:eq:vip", "tags @> $2::text[]", []any{[]string{"vip"}}},
		{"tags:ne:vip", "NOT (tags @> $2::text[])", []any{[]string{"vip"}}},
		{"tags:in:vip,new", "tags && $2::text[]", []any{[]string{"vip", "new"}}},
		{"labels:eq:vip", "(labels @> $2::jsonb)", []any{`["vip"]`}},
		{"labels:in:a,b", "(labels @> $2::jsonb OR labels @> $3::jsonb)", []any{`["a"]`, `["b"]`}},
		{"labels:is_null", "labels IS NULL", nil},
		{"metadata.city:eq:Ulm", "(metadata @> $2::jsonb)", []any{`{"city":"Ulm"}`}},
		{"metadata.a.b:ne:7", "NOT (metadata @> $2::jsonb OR metadata @> $3::jsonb)", []any{`{"a.b":"7"}`, `{"a.b":7}`}},
		{"metadata.x:is_null", "(metadata ->> $2::text) IS NULL", []any{"x"}},
		{"metadata.x:icontains:y", "(metadata ->> $2::text) ILIKE $3::text", []any{"x", "%y%"}},
		{"group_id:eq:" + someID, "EXISTS (SELECT 1 FROM members WHERE thing_id = id AND group_id = $2::uuid)", []any{someID}},
	}
	for _, c := range cases {
		t.Run(c.filter, func(t *testing.T) {
			t.Parallel()
			got, err := query.Compile(s, query.Request{Filters: []string{c.filter}}, []string{accountA})
			require.NoError(t, err)
			args := append([]any{accountA}, c.args...)
			require.Equal(t, "SELECT count(*) FROM (SELECT 1 FROM things WHERE account_id = $1::uuid AND "+c.sql+" LIMIT 10001) AS matching", got.Count.SQL)
			require.Equal(t, args, got.Count.Args)
			require.Equal(t, append(args, int64(101)), got.Args)
		})
	}
}

func TestShapes(t *testing.T) {
	t.Parallel()
	request := query.Request{Filters: []string{"enabled:eq:true"}, Sorts: []string{"name", "rank:desc"}, Skip: 20, Limit: 10}
	live := func(tab *query.Table) { tab.Where = "deleted_at IS NULL" }

	one, err := query.Compile(spec(t, live), request, []string{accountA})
	require.NoError(t, err)
	require.Equal(t, "SELECT id, name, ARRAY[(name)::text, (rank_no)::text, (id)::text] AS page_key FROM things"+
		" WHERE account_id = $1::uuid AND (deleted_at IS NULL) AND enabled = $2::boolean"+
		" ORDER BY name ASC, rank_no DESC, id DESC LIMIT $3::bigint OFFSET $4::bigint", one.SQL)
	require.Equal(t, []any{accountA, true, int64(11), int64(20)}, one.Args)

	many, err := query.Compile(spec(t), request, []string{accountB, accountA, accountB})
	require.NoError(t, err)
	require.Equal(t, "SELECT page.id, page.name, page.page_key FROM unnest($1::uuid[]) AS scope(account) CROSS JOIN LATERAL ("+
		"SELECT id, name, ARRAY[(name)::text, (rank_no)::text, (id)::text] AS page_key, name AS sort_0, rank_no AS sort_1, id AS sort_2"+
		" FROM things WHERE account_id = scope.account AND enabled = $2::boolean"+
		" ORDER BY name ASC, rank_no DESC, id DESC LIMIT $3::bigint) AS page"+
		" ORDER BY page.sort_0 ASC, page.sort_1 DESC, page.sort_2 DESC LIMIT $4::bigint OFFSET $5::bigint", many.SQL)
	require.Equal(t, []any{[]string{accountA, accountB}, true, int64(31), int64(11), int64(20)}, many.Args)
	require.Equal(t, "SELECT count(*) FROM (SELECT 1 FROM unnest($1::uuid[]) AS scope(account) CROSS JOIN LATERAL (SELECT 1 FROM things"+
		" WHERE account_id = scope.account AND enabled = $2::boolean LIMIT 10001) AS page LIMIT 10001) AS matching", many.Count.SQL)
	require.Equal(t, "EXPLAIN (FORMAT JSON) SELECT 1 FROM things WHERE true AND enabled = $1::boolean", many.Estimate.SQL)

	keyed, err := query.Compile(spec(t, func(tab *query.Table) {
		tab.Tenant = "id"
		tab.Select = []string{"t.id", "lower(name) AS name"}
	}), query.Request{}, []string{accountA, accountB})
	require.NoError(t, err)
	require.Equal(t, "SELECT t.id, lower(name) AS name, ARRAY[(created_at)::text, (id)::text] AS page_key FROM things"+
		" WHERE id = ANY($1::uuid[]) ORDER BY created_at DESC, id DESC LIMIT $2::bigint", keyed.SQL)
}

func TestScopeIsOnlyNarrowed(t *testing.T) {
	t.Parallel()
	s := spec(t)
	cases := []struct {
		name    string
		filters []string
		want    []string
	}{
		{"none", nil, []string{accountA, accountB}},
		{"eq", []string{"account_id:eq:" + accountA}, []string{accountA}},
		{"in, one of them foreign", []string{"account_id:in:" + accountB + "," + accountC}, []string{accountB}},
		{"foreign", []string{"account_id:eq:" + accountC}, nil},
		{"both", []string{"account_id:eq:" + accountA, "account_id:eq:" + accountB}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := query.Compile(s, query.Request{Filters: c.filters}, []string{accountB, accountA})
			require.NoError(t, err)
			require.ElementsMatch(t, c.want, got.Scope)
			require.Contains(t, got.SQL, "account_id = ")
		})
	}
	_, err := query.Compile(s, query.Request{}, nil)
	require.Error(t, err)
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INTERNAL))
}

func TestTimeInID(t *testing.T) {
	t.Parallel()
	s := spec(t, func(tab *query.Table) { tab.TimeInID = "created_at" })
	at := time.UnixMilli(0x0197a1111111).UTC()
	got, err := query.Compile(s, query.Request{Filters: []string{"id:eq:" + someID}}, []string{accountA})
	require.NoError(t, err)
	require.Contains(t, got.SQL, "id = $2::uuid AND created_at = $3::timestamptz")
	require.Equal(t, []any{accountA, someID, at, int64(101)}, got.Args)
	got, err = query.Compile(s, query.Request{Filters: []string{"id:in:" + someID + "," + accountA}}, []string{accountA})
	require.NoError(t, err)
	require.Contains(t, got.SQL, "id = ANY($2::uuid[]) AND created_at BETWEEN $3::timestamptz AND $4::timestamptz")
	require.Equal(t, time.UnixMilli(0x0197a0000000).UTC(), got.Args[2])
	got, err = query.Compile(s, query.Request{Filters: []string{"id:eq:" + strings.Replace(someID, "-7", "-4", 1)}}, []string{accountA})
	require.NoError(t, err)
	require.NotContains(t, got.SQL, "created_at =")
}

func TestImplied(t *testing.T) {
	t.Parallel()
	s := spec(t, func(tab *query.Table) {
		tab.Columns["name"] = query.Column{Implied: "born = (SELECT born FROM names WHERE text = $value)"}
		tab.Columns["enabled"] = query.Column{Implied: "(seen OR dead)"}
	})
	got, err := query.Compile(s, query.Request{Filters: []string{"name:eq:x", "enabled:eq:true"}}, []string{accountA})
	require.NoError(t, err)
	require.Contains(t, got.SQL, "name = $2::text AND born = (SELECT born FROM names WHERE text = $3::text) AND enabled = $4::boolean AND (seen OR dead)")
	require.Equal(t, []any{accountA, "x", "x", true, int64(101)}, got.Args)
	require.Equal(t, "EXPLAIN (FORMAT JSON) SELECT 1 FROM things WHERE true AND name = $1::text AND enabled = $2::boolean", got.Estimate.SQL)
	got, err = query.Compile(s, query.Request{Filters: []string{"name:in:x,y"}}, []string{accountA})
	require.NoError(t, err)
	require.NotContains(t, got.SQL, "born")
}
