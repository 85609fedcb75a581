package account_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	account "github.com/turumba/turumba/services/account"
)

// TestPermissionNames is S-61: what is not exactly a permission gives none.
func TestPermissionNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", "*", "contacts.*", "CONTACTS.READ", "contacts.read ", " contacts.read", "contacts.read\x00", "contacts", ".", "-contacts.read", "!contacts.read",
		"сontacts.read", "contacts．read", "contacts.read,contacts.write", "true", "null", "{}", "[]", strings.Repeat("a", 1<<20),
	} {
		_, err := account.CheckPermissions("permissions", []string{"contacts.read", name})
		require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_VALIDATION_FAILED), "%.40q", name)
		require.Less(t, len(apierr.From(err).Fields[0].Message), 2000)
	}
	for _, list := range [][]string{nil, {}} {
		got, err := account.CheckPermissions("permissions", list)
		require.NoError(t, err)
		require.Empty(t, got)
	}
	got, err := account.CheckPermissions("permissions", []string{"messages.send", "contacts.read", "messages.send", "can_send_messages"})
	require.NoError(t, err)
	require.Equal(t, []string{"contacts.read", "group_messages.send", "messages.send"}, got, "sorted, each once, aliases replaced")
}
