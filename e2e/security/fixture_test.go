package security_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"gopkg.in/yaml.v3"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
)

// foreign is the prefix of the variables that belong to the other organisation.
const foreign = "foreign_"

// fixture is a good request of one RPC.
type fixture struct {
	RPC     string         `yaml:"rpc"`
	Request map[string]any `yaml:"request"`
	Refused string         `yaml:"refused"`

	method protoreflect.MethodDescriptor
}

// loadFixtures reads the fixtures and holds them against the contract: one per
// RPC, and in each every id field of its request.
func loadFixtures(t *testing.T) []fixture {
	t.Helper()
	data, err := os.ReadFile("testdata/fixtures.yaml")
	require.NoError(t, err)
	var all []fixture
	require.NoError(t, yaml.Unmarshal(data, &all))
	byRPC := map[string]fixture{}
	for i := range all {
		require.NotContains(t, byRPC, all[i].RPC, "two fixtures")
		all[i].method, err = wire.FindMethod(all[i].RPC)
		require.NoError(t, err)
		byRPC[all[i].RPC] = all[i]
	}
	for _, md := range wire.Methods() {
		f, ok := byRPC[wire.Name(md)]
		require.True(t, ok, "%s has no fixture: say in testdata/fixtures.yaml how to fill its ids", wire.Name(md))
		for _, field := range idFields(md) {
			require.Contains(t, f.leaves(), field, "the fixture of %s leaves an id out", f.RPC)
		}
	}
	require.Len(t, all, len(wire.Methods()))
	return all
}

// idFields are the fields of a request that hold a UUID, as in the fixtures:
// flat, as REST has them.
func idFields(md protoreflect.MethodDescriptor) (out []string) {
	body := bodyField(md)
	fields := wire.Input(md).Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if string(fd.Name()) == body && fd.Message() != nil {
			inner := fd.Message().Fields()
			for j := range inner.Len() {
				if isID(inner.Get(j)) {
					out = append(out, string(inner.Get(j).Name()))
				}
			}
		}
		if isID(fd) {
			out = append(out, string(fd.Name()))
		}
	}
	return out
}

func isID(fd protoreflect.FieldDescriptor) bool {
	rules, _ := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	return rules.GetString().GetUuid() || rules.GetRepeated().GetItems().GetString().GetUuid()
}

var idVariable = regexp.MustCompile(`^\$\{([a-z_]+)\}$`)

// leaves are the id variables of a fixture by the field that they stand in.
func (f fixture) leaves() map[string]string {
	out := map[string]string{}
	for field, v := range f.Request {
		if list, ok := v.([]any); ok && len(list) == 1 {
			v = list[0]
		}
		if s, ok := v.(string); ok && (idVariable.MatchString(s) || strings.HasPrefix(s, "00000000-")) {
			out[field] = strings.Trim(s, "${}")
		}
	}
	return out
}

// has reports whether a request of the RPC has the field, flat as in the fixtures.
func (f fixture) has(field string) bool {
	fields := wire.Input(f.method).Fields()
	if fd := fields.ByName(protoreflect.Name(bodyField(f.method))); fd != nil && fd.Message() != nil && fd.Message().Fields().ByName(protoreflect.Name(field)) != nil {
		return true
	}
	return fields.ByName(protoreflect.Name(field)) != nil
}

// body is the request with vars, and with one field's id replaced.
func (f fixture) body(vars map[string]string, field, id string) map[string]any {
	out, _ := wire.Expand(any(f.Request), vars).(map[string]any)
	out = maps.Clone(out)
	if out == nil {
		out = map[string]any{}
	}
	if field == "" {
		return out
	}
	if _, list := out[field].([]any); list {
		out[field] = []any{id}
	} else {
		out[field] = id
	}
	return out
}

// random is the request with a random id in every field.
func (f fixture) random(vars map[string]string) map[string]any {
	vars = maps.Clone(vars)
	for _, name := range f.leaves() {
		vars[name] = vars["nobody"]
	}
	return f.body(vars, "", "")
}

// numbered gives every expansion names of its own.
func numbered(w *world.World, n int) map[string]string {
	vars := maps.Clone(w.Vars)
	vars["unique"] = fmt.Sprint("s", n)
	return vars
}

// fixturesHold sends every fixture as it is: a matrix over requests that are
// refused anyway would prove nothing. It runs last because it deletes.
func fixturesHold(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("fixtures")
	fixtures := loadFixtures(t)
	s.coverage = fmt.Sprintf("%d of %d RPCs", len(fixtures), len(wire.Methods()))
	w.ForgetAttempts(t)
	for i, f := range fixtures {
		over := wire.REST
		if f.internal() {
			over = wire.GRPC
		}
		got, err := f.call(t, w, over, "owner", f.body(numbered(w, i), "", ""))
		require.NoError(t, err, f.RPC)
		s.check(t, got.Reason == f.Refused, "%s: want %q, got %q (%s %v)", f.RPC, f.Refused, got.Reason, got.Detail, got.Fields)
	}
}

func (f fixture) internal() bool { return wire.AuthOf(f.method).GetInternal() != nil }

func bodyField(md protoreflect.MethodDescriptor) string {
	name, _ := wire.Body(md)
	return name
}

// wires are those that the RPC has.
func (f fixture) wires() []string {
	if f.internal() {
		return []string{wire.GRPC}
	}
	return wire.All()
}

// ids are the values that only the other organisation knows, but for those sent.
func ids(vars map[string]string, home string, sent map[string]any) (out []string) {
	text := wire.Canonical(sent)
	for name, v := range vars {
		theirs := strings.HasPrefix(name, foreign)
		if theirs == (home == foreign) || !strings.HasSuffix(name, "_id") || strings.Contains(text, v) {
			continue
		}
		if _, twin := vars[foreign+name]; theirs || twin {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}
