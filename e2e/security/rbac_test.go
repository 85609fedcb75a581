package security_test

import (
	"bytes"
	"encoding/csv"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	account "github.com/turumba/turumba/services/account"
)

var update = flag.Bool("update", false, "write testdata/permissions.csv anew")

// presets are the roles of every new account, and nobody's.
var presets = []string{account.RoleOwner, account.RoleAdmin, account.RoleAgent, account.RoleViewer, "none"}

// roleMatrix holds the contract's rules against the golden file, and then what
// the mesh does against both: each RPC as each preset, as a role of each single
// permission, and as nobody. Ids are random, so that what is allowed finds
// nothing to change.
func roleMatrix(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("role matrix")
	table := permissionTable(w)
	if *update {
		require.NoError(t, os.WriteFile("testdata/permissions.csv", table, 0o600))
	}
	golden, err := os.ReadFile("testdata/permissions.csv")
	require.NoError(t, err)
	s.check(t, string(golden) == string(table), "the access rules changed; look at them, then run go test ./security -run TestSecurity -update\n%s", table)

	roles := map[string][]string{}
	for _, r := range account.DefaultRoles("", w.Instance.Now()) {
		roles[r.Name] = r.Permissions
	}
	roles["none"] = nil
	for _, p := range account.Permissions() {
		roles[p] = []string{p}
	}
	fixtures := loadFixtures(t)
	// Who creates an account owns it, and could do everything there: that is last.
	own := slices.IndexFunc(fixtures, func(f fixture) bool { return strings.HasSuffix(f.RPC, "/CreateAccount") })
	fixtures = append(slices.Delete(slices.Clone(fixtures), own, own+1), fixtures[own])
	for role, holds := range roles {
		name := "role_matrix_" + strings.ToLower(strings.ReplaceAll(role, ".", "_"))
		w.Person(t, name, world.Hold{AccountID: w.Vars["account_id"], Permissions: append([]string{}, holds...)})
		for _, f := range fixtures {
			for _, over := range f.wires() {
				got, err := f.call(t, w, over, name, f.random(numbered(w, 9000)))
				require.NoError(t, err)
				denied := got.Reason == "PERMISSION_DENIED" || got.Reason == "UNAUTHENTICATED"
				s.check(t, denied != allows(f.method, holds) && got.Reason != internal, "%s as %s over %s: %q", f.RPC, role, over, got.Reason)
			}
		}
	}
	s.coverage = fmt.Sprintf("%d of %d RPCs, %d presets, %d single permissions, 2 wires", len(fixtures), len(wire.Methods()), len(presets), len(account.Permissions()))
}

// allows tells by the contract whether a role with these permissions may call.
func allows(md protoreflect.MethodDescriptor, holds []string) bool {
	switch rule := wire.AuthOf(md).GetRule().(type) {
	case *optionsv1.Auth_Public, *optionsv1.Auth_Authenticated:
		return true
	case *optionsv1.Auth_Permission:
		return slices.Contains(holds, rule.Permission)
	}
	return false
}

// permissionTable is who may call what, one line per RPC.
func permissionTable(w *world.World) []byte {
	var b bytes.Buffer
	out := csv.NewWriter(&b)
	write := func(record ...string) { _ = out.Write(record) } // a buffer takes everything
	write(append([]string{"rpc", "rule"}, presets...)...)
	roles := map[string][]string{}
	for _, r := range account.DefaultRoles("", w.Instance.Now()) {
		roles[r.Name] = r.Permissions
	}
	for _, md := range wire.Methods() {
		record := []string{wire.Name(md), ruleName(wire.AuthOf(md))}
		for _, preset := range presets {
			word := "deny"
			if allows(md, roles[preset]) {
				word = "allow"
			}
			record = append(record, word)
		}
		write(record...)
	}
	out.Flush()
	return b.Bytes()
}

func ruleName(auth *optionsv1.Auth) string {
	switch rule := auth.GetRule().(type) {
	case *optionsv1.Auth_Permission:
		return rule.Permission
	case *optionsv1.Auth_Public:
		return "(public)"
	case *optionsv1.Auth_Authenticated:
		return "(any user)"
	case *optionsv1.Auth_Internal:
		return "(internal: " + strings.Join(rule.Internal.GetCallers(), " ") + ")"
	case *optionsv1.Auth_OperatorGroup:
		return "(operators: " + rule.OperatorGroup + ")"
	}
	return "(none)"
}
