package messaging_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging"
)

func TestMembersAreCountedAsFarAsItMatters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ messages, recipients, want int64 }{
		{0, 0, 0},
		{100, 0, 101},
		{0, 50, 51},
		{100, 50, 51},
		{50, 100, 51},
	} {
		q := messaging.Quotas{messaging.QuotaMessages: c.messages, messaging.QuotaRecipients: c.recipients}
		require.Equal(t, c.want, q.CountMembers(), "%+v", c)
	}
	require.Zero(t, messaging.Quotas(nil).CountMembers())
}
