package account_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	account "github.com/turumba/turumba/services/account"
)

func TestWhatAPersonMayJoin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                     string
		joined, owned, mostOwned int64
		owns                     bool
		quota                    string
	}{
		{"the last that fits", account.MaxMemberships, 5, 5, true, ""},
		{"one more", account.MaxMemberships + 1, 1, 5, false, account.QuotaMemberships},
		{"one more to own", 6, 6, 5, true, account.QuotaAccounts},
		{"joining, although too many are owned", 7, 6, 5, false, ""},
		{"no limit of those owned", 50, 50, 0, true, ""},
		{"and yet of all", 51, 50, 0, true, account.QuotaMemberships},
	} {
		err := account.CheckJoin(c.joined, c.owned, c.owns, c.mostOwned)
		if c.quota == "" {
			require.NoError(t, err, c.name)
			continue
		}
		require.Equal(t, errorv1.Reason_REASON_QUOTA_EXCEEDED, apierr.From(err).Reason, c.name)
		require.Equal(t, c.quota, apierr.From(err).Meta["quota"], c.name)
	}
}

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
