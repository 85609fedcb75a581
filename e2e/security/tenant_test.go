package security_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
)

// tenantMatrix sends every RPC as every actor over both wires with another
// organisation's id in each id field: the answer must be that for an id that
// nobody has, to the byte, and hold nothing of the other organisation, whose
// rows stay as they are.
func tenantMatrix(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("tenant matrix")
	fixtures := loadFixtures(t)
	before := rowsOf(t, w, w.Vars["foreign_account_id"])
	fields := 0
	n := 1000
	for _, f := range fixtures {
		fields += len(f.leaves())
		for _, a := range actors {
			for _, over := range f.wires() {
				if a.service != "" && over == wire.REST {
					continue // a service has no REST
				}
				if a.name == "both" && strings.HasSuffix(f.RPC, "/LeaveAccount") {
					continue // a member of the other organisation may leave it
				}
				n++
				cell{s, f, a, over, n}.run(t, w)
			}
		}
	}
	after := rowsOf(t, w, w.Vars["foreign_account_id"])
	for table, rows := range before {
		s.check(t, rows == after[table], "rows of the other organisation changed in %s:\n%s\nnow\n%s", table, rows, after[table])
	}
	s.coverage = fmt.Sprintf("%d of %d RPCs, %d id fields, %d actors, 2 wires", len(fixtures), len(wire.Methods()), fields, len(actors))
}

// internal is the reason of an error that nobody foresaw; no request may cause it.
const internal = "INTERNAL"

// useInvitation is what adding anybody answers.
const useInvitation = "USE_INVITATION"

// cell is one RPC, actor and wire.
type cell struct {
	*suite
	f    fixture
	a    actor
	over string
	n    int
}

func (c cell) run(t *testing.T, w *world.World) {
	t.Helper()
	vars := numbered(w, c.n)
	theirs := foreign
	if c.a.home == foreign {
		theirs = ""
	}
	// The actor's own organisation is what the request speaks of.
	own := numbered(w, c.n)
	if c.a.home == foreign {
		for name, v := range vars {
			if strings.HasPrefix(name, foreign) {
				own[strings.TrimPrefix(name, foreign)] = v
			}
		}
	}
	leaves := c.f.leaves()
	tried := 0
	for _, field := range sorted(leaves) {
		name := leaves[field]
		if _, twin := vars[foreign+name]; !twin {
			continue
		}
		tried++
		c.probe(t, w, field, own, vars[theirs+name])
	}
	if tried == 0 && !c.destroys() {
		body := c.f.body(own, "", "")
		got, err := c.f.callAs(t, w, c.over, c.a, body)
		require.NoError(t, err)
		found := leaked(got, c.secrets(w, body))
		c.check(t, len(found) == 0 && got.Reason != internal, "%s as %s over %s: %s, the answer holds %v", c.f.RPC, c.a.name, c.over, got.Reason, found)
	}
}

// destroys reports whether the request as it is would take something away that
// later cells need.
func (c cell) destroys() bool { return strings.Contains(c.f.RPC, "/Delete") }

func sorted(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// secrets are the ids that the actor must never see.
func (c cell) secrets(w *world.World, sent map[string]any) []string {
	if c.a.name == "both" {
		return nil // a member of both organisations may see them
	}
	return ids(w.Vars, c.a.home, sent)
}

// probe compares the answer for the other organisation's id with that for an id
// that nobody has.
func (c cell) probe(t *testing.T, w *world.World, field string, own map[string]string, theirs string) {
	t.Helper()
	body := c.f.body(own, field, theirs)
	got, err := c.f.callAs(t, w, c.over, c.a, body)
	require.NoError(t, err)
	if got.Reason == "" && (c.a.name == "both" && c.reads() || c.a.service != "" && field == "account_id") {
		c.check(t, true, "") // a role in the other organisation allows it; a service serves every account
		return
	}
	random, err := c.f.callAs(t, w, c.over, c.a, c.f.body(own, field, w.Vars["nobody"]))
	require.NoError(t, err)
	where := fmt.Sprintf("%s.%s as %s over %s", c.f.RPC, field, c.a.name, c.over)
	c.check(t, got.Reason != internal, "%s: internal error", where)
	same := got.HTTP == random.HTTP && got.Code == random.Code && got.Raw == random.Raw
	if c.a.name == "both" && got.Reason == "PERMISSION_DENIED" && field == "account_id" && c.creates() {
		same = true // a member without the permission is told so (decision B3)
	}
	if c.a.name == "both" && got.Reason == "UNRESOLVED_REFERENCE" && c.reads() {
		same = true // it may read the other organisation's, with which its own at home does not go
	}
	c.check(t, same, "%s: another's id answers %v %q, a random one %v %q", where, got.Reason, got.Raw, random.Reason, random.Raw)
	found := leaked(got, c.secrets(w, body))
	c.check(t, len(found) == 0, "%s: the answer holds %v", where, found)
	if c.a.name == "owner" && !c.f.internal() && wire.AuthOf(c.f.method).GetPermission() != "" {
		c.check(t, got.Reason == "NOT_FOUND" || got.Reason == "UNRESOLVED_REFERENCE" || got.Reason == useInvitation, "%s: want NOT_FOUND, got %q", where, got.Reason)
	}
}

func (c cell) reads() bool {
	name := c.f.RPC[strings.IndexByte(c.f.RPC, '/')+1:]
	return strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List") || strings.HasPrefix(name, "Watch") || strings.HasPrefix(name, "Export") || strings.HasPrefix(name, "Preview")
}

func (c cell) creates() bool {
	return strings.Contains(c.f.RPC, "/Create") || strings.Contains(c.f.RPC, "/Import") || strings.Contains(c.f.RPC, "/BatchCreate") || strings.Contains(c.f.RPC, "/SendMessages") ||
		strings.Contains(c.f.RPC, "/Estimate") || strings.Contains(c.f.RPC, "/DryRun") // they name an account as a create does
}
