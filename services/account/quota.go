package account

import (
	"strconv"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/query"
)

// The names of the quotas.
const (
	QuotaMessages   = "messages_per_day"
	QuotaRecipients = "recipients_per_campaign"
	QuotaContacts   = "contacts"
	QuotaChannels   = "channels"
)

// Quotas are limits of an account: nil is the installation's default, 0 is no limit.
type Quotas struct {
	MessagesPerDay        *int32 `json:"messages_per_day,omitempty"`
	RecipientsPerCampaign *int32 `json:"recipients_per_campaign,omitempty"`
	Contacts              *int32 `json:"contacts,omitempty"`
	Channels              *int32 `json:"channels,omitempty"`
}

// The names of the limits of people, as errors tell them.
const (
	QuotaMemberships = "memberships_per_person"
	QuotaAccounts    = "accounts_per_person"
)

// MaxMemberships is how many accounts a person may be in: lists read as many at once.
const MaxMemberships = query.MaxAccounts

// CheckJoin refuses a membership that makes more than a person may have: of so many
// memberships and so many owned accounts, with it. owns says that it makes an owner;
// mostOwned is how many accounts a person may own, 0 is no limit.
func CheckJoin(joined, owned int64, owns bool, mostOwned int64) error {
	if joined > MaxMemberships {
		return tooMany(QuotaMemberships, MaxMemberships, "a person can be a member of at most %d accounts: leave one first")
	}
	if owns && mostOwned > 0 && owned > mostOwned {
		return tooMany(QuotaAccounts, mostOwned, "a person can own at most %d accounts, those that they made or are an Owner of")
	}
	return nil
}

func tooMany(quota string, most int64, text string) error {
	return apierr.New(errorv1.Reason_REASON_QUOTA_EXCEEDED, text, most).WithMeta("quota", quota).WithMeta("limit", strconv.FormatInt(most, 10))
}

// Room is how many contacts an account may still get.
type Room struct {
	// Most is the limit; 0 is none.
	Most int64
	// Left is what is free of it.
	Left int64
}

// refuse is the QUOTA_EXCEEDED of one contact more than n that are new.
func (r Room) refuse(n int) error {
	if r.Most == 0 || int64(n) < r.Left {
		return nil
	}
	return apierr.New(errorv1.Reason_REASON_QUOTA_EXCEEDED, "the account has no room for another contact: its quota of contacts is %d", r.Most)
}

// Or are the quotas with those of defaults where they have none.
func (q Quotas) Or(defaults Quotas) Quotas {
	or := func(own, fallback *int32) *int32 {
		if own == nil {
			return fallback
		}
		return own
	}
	return Quotas{
		MessagesPerDay: or(q.MessagesPerDay, defaults.MessagesPerDay), RecipientsPerCampaign: or(q.RecipientsPerCampaign, defaults.RecipientsPerCampaign),
		Contacts: or(q.Contacts, defaults.Contacts), Channels: or(q.Channels, defaults.Channels),
	}
}
