package account_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	account "github.com/turumba/turumba/services/account"
)

func TestOwnQuotasAndDefaults(t *testing.T) {
	t.Parallel()
	none, ten, twenty := int32(0), int32(10), int32(20)
	defaults := account.Quotas{MessagesPerDay: &twenty, RecipientsPerCampaign: &none, Contacts: &twenty, Channels: &twenty}
	for _, c := range []struct {
		name      string
		own, want account.Quotas
	}{
		{"nothing of its own", account.Quotas{}, defaults},
		{"less than the default", account.Quotas{Contacts: &ten}, account.Quotas{MessagesPerDay: &twenty, RecipientsPerCampaign: &none, Contacts: &ten, Channels: &twenty}},
		{"no limit although there is a default", account.Quotas{MessagesPerDay: &none}, account.Quotas{MessagesPerDay: &none, RecipientsPerCampaign: &none, Contacts: &twenty, Channels: &twenty}},
		{"a limit although the default is none", account.Quotas{RecipientsPerCampaign: &ten}, account.Quotas{MessagesPerDay: &twenty, RecipientsPerCampaign: &ten, Contacts: &twenty, Channels: &twenty}},
	} {
		require.Equal(t, c.want, c.own.Or(defaults), c.name)
	}
}
