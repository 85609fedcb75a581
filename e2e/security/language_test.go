package security_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
)

// operatorsAreData is S-72: what another database would take for an operator, a
// path or code is stored, found and given back as it was written, or refused.
func operatorsAreData(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("operators as data")
	keys := []string{
		"$where", "$gt", "$ne", "$regex", "$expr", "$", "a.b", "a.$b", ".", "..", "__proto__", "constructor", "' OR 1=1--", "x'::text", `"`, `\`, "{}", "ключ", "a b",
	}
	values := []any{`{"$gt":""}`, `{"$where":"sleep(5000)"}`, "(a+)+$", "$1", "%", map[string]any{"$gt": ""}, map[string]any{"$ne": nil}, []any{map[string]any{"$where": "1"}}}
	create, err := wire.FindMethod("turumba.account.v1.ContactService/CreateContact")
	require.NoError(t, err)
	list, err := wire.FindMethod("turumba.account.v1.ContactService/ListContacts")
	require.NoError(t, err)
	for i, key := range keys {
		value := values[i%len(values)]
		for _, over := range wire.All() {
			made, err := w.Do(t.Context(), over, wire.Call{Method: create, Token: w.Token("owner"), Body: map[string]any{
				"account_id": w.Vars["account_id"], "first_name": "Operator", "metadata": map[string]any{key: value},
			}})
			require.NoError(t, err)
			id, _ := wire.Lookup(made.Body, "id")
			metadata, _ := wire.Lookup(made.Body, "metadata")
			stored, _ := metadata.(map[string]any)
			s.check(t, made.Reason == "" && fmt.Sprint(stored[key]) == fmt.Sprint(value), "S-72 key %q over %s: %s %v, stored %v", key, over, made.Reason, value, stored)
			text, isText := value.(string)
			if !isText || made.Reason != "" {
				continue
			}
			found, err := w.Do(t.Context(), over, wire.Call{Method: list, Token: w.Token("owner"), Body: map[string]any{
				"filter": []any{"metadata." + key + ":eq:" + text, "id:eq:" + fmt.Sprint(id)},
			}})
			require.NoError(t, err)
			total, _ := wire.Lookup(found.Body, "meta.total")
			s.check(t, total == 1.0, "S-72 metadata.%s:eq:%s over %s: %s, total %v", key, text, over, found.Reason, total)
		}
	}
	for _, over := range wire.All() {
		for field, value := range map[string]any{"metadata": map[string]any{"a\x00b": "c"}, "last_name": "a\x00b", "tags": []any{"\x00"}, "external_id": "\x00"} {
			got, err := w.Do(t.Context(), over, wire.Call{Method: create, Token: w.Token("owner"), Body: map[string]any{
				"account_id": w.Vars["account_id"], "first_name": "Operator", field: value,
			}})
			require.NoError(t, err)
			s.check(t, got.Reason == "VALIDATION_FAILED", "S-72 a zero byte in %s over %s: %q", field, over, got.Reason)
		}
	}
	s.coverage = fmt.Sprintf("S-72, %d keys, 2 wires", len(keys))
}

// goTest is a fuzz target or a property test of another package, which shows how
// many cases it tried.
type goTest struct {
	name, dir, coverage string
	args                []string
	// tried finds the number of cases in the output: the last match of a fuzz target,
	// which counts up, and the sum of others.
	tried *regexp.Regexp
	env   []string
}

var (
	executions = regexp.MustCompile(`execs: (\d+)`)
	properties = regexp.MustCompile(`\[rapid\] OK, passed (\d+) tests`)
	plans      = regexp.MustCompile(`(\d+) plans over`)
	// interleavings are what several things at once came to.
	interleavings = regexp.MustCompile(`(\d+) interleavings`)
)

func fuzz(target, dir, coverage string) goTest {
	return goTest{"fuzz " + strings.TrimPrefix(target, "Fuzz"), dir, coverage, []string{"-run", "^$", "-fuzz", "^" + target + "$", "-fuzztime", "10s", "-fuzzminimizetime", "10x"}, executions, nil}
}

func property(name, test, dir, coverage string) goTest {
	return goTest{name, dir, coverage, []string{"-run", "^" + test + "$", "-count", "1", "-v", "-rapid.checks", "1000"}, properties, nil}
}

func planned(service string) goTest {
	return goTest{"plans " + service, "services/" + service + "/postgres", "every filter and order of every list", []string{"-run", "^TestEveryDeclaredFilterAndOrderIsServed$", "-count", "1", "-v"}, plans, nil}
}

// TestLanguages runs the fuzz targets and property tests of what callers write,
// where they live (S-70, S-71, S-73, S-74 and J01–J30). `make test` runs them there
// with their seeds.
func TestLanguages(t *testing.T) {
	if !full {
		return
	}
	for _, g := range []goTest{
		property("filter properties", "TestOnlyPlaceholdersAndAlwaysTheTenant", "kit/query", "S-70: our names and placeholders only, always the tenant"),
		property("filters that run", "TestWhatCompilesRuns", "kit/query", "S-70: PostgreSQL understands each, rows of the scope only"),
		property("document filters", "TestOnlyOurKeys", "kit/mongodb", "S-72: no value and no key becomes an operator"),
		{
			"sessions", "services/account/identity/local", "S-107: logins, refreshes, changes, resets, disables at once: nothing on an old epoch works",
			[]string{"-run", "^TestNothingOutlivesItsEpoch$", "-count", "1", "-v", "-timeout", "25m"},
			interleavings,
			[]string{"SESSION_ROUNDS=10000"},
		},
		planned("account"),
		planned("messaging"),
		fuzz("FuzzCompile", "kit/query", "S-71, S-73: filters and sorts"),
		fuzz("FuzzFilter", "kit/mongodb", "S-71, S-72: filters of documents"),
		fuzz("FuzzPageToken", "kit/query", "S-52: page tokens"),
		fuzz("FuzzRender", "services/messaging", "S-74: templates"),
		fuzz("FuzzHeader", "services/messaging/channel/email", "S-74: header lines of mails"),
		fuzz("FuzzGuard", "services/account/contactcsv", "S-74: cells of exports"),
		fuzz("FuzzRead", "services/account/contactcsv", "S-74: files of imports"),
		fuzz("FuzzDecode", "gateway/rest", "JSON bodies"),
		fuzz("FuzzVerify", "kit/auth", "J01–J30: tokens"),
	} {
		g.run(t)
	}
}

func (g goTest) run(t *testing.T) {
	t.Helper()
	s := report.suite(g.name)
	s.coverage = g.coverage
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"test"}, append(g.args, ".")...)...)
	cmd.Dir = "../../" + g.dir
	cmd.Env = append(os.Environ(), g.env...)
	out, err := cmd.CombinedOutput()
	cases := g.cases(string(out))
	s.cases.Add(cases)
	if err != nil || cases == 0 {
		t.Errorf("%s: %v\n%s", g.name, err, out)
		return
	}
	s.passed.Add(cases)
}

func (g goTest) cases(out string) (n int64) {
	for _, m := range g.tried.FindAllStringSubmatch(out, -1) {
		count, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			continue // no number is that long
		}
		if g.tried == executions {
			n = 0
		}
		n += count
	}
	return n
}
