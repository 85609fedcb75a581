package security_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
)

// uniqueness is S-53: what is unique in an account is free in every other, so that
// nobody learns from a conflict what others have.
func uniqueness(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("uniqueness")
	for rpc, body := range map[string]map[string]string{
		"turumba.account.v1.ContactService/CreateContact":           {"first_name": "Same", "email": "same-#@people.example", "phone": "+2519117700#", "external_id": "same-#"},
		"turumba.account.v1.ContactGroupService/CreateContactGroup": {"name": "Same #"},
		"turumba.account.v1.RoleService/CreateRole":                 {"name": "Same #"},
		"turumba.messaging.v1.TemplateService/CreateTemplate":       {"name": "Same #", "body": "x"},
	} {
		md, err := wire.FindMethod(rpc)
		require.NoError(t, err)
		for i, over := range wire.All() {
			create := func(as, account string) wire.Answer {
				request := map[string]any{"account_id": account}
				for field, text := range body {
					request[field] = strings.ReplaceAll(text, "#", fmt.Sprintf("%02d", i))
				}
				got, err := w.Do(t.Context(), over, wire.Call{Method: md, Token: w.Token(as), Body: request})
				require.NoError(t, err)
				return got
			}
			s.check(t, create("owner", w.Vars["account_id"]).Reason == "", "S-53 %s over %s", rpc, over)
			theirs := create("outsider", w.Vars["foreign_account_id"])
			s.check(t, theirs.Reason == "", "S-53 %s over %s: another account has it already: %s %s", rpc, over, theirs.Reason, theirs.Detail)
			again := create("outsider", w.Vars["foreign_account_id"])
			found := leaked(again, ids(w.Vars, foreign, map[string]any{}))
			s.check(t, again.Reason != "" && again.Reason != internal, "S-53 %s over %s: twice in one account", rpc, over)
			s.check(t, len(found) == 0, "S-53 %s over %s: the conflict names %v", rpc, over, found)
		}
	}
	s.coverage = "S-53, contacts, groups, roles, templates, 2 wires"
}
