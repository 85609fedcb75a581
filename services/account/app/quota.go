package app

import (
	"errors"
	"fmt"

	account "github.com/turumba/turumba/services/account"
)

// QuotaSettings are the quotas of accounts that have none of their own, and of people; 0 is
// no limit.
type QuotaSettings struct {
	// MessagesPerDay is how many messages an account may send in a day, UTC.
	MessagesPerDay int32 `env:"TURUMBA_QUOTA_MESSAGES_PER_DAY" help:"most messages of an account in a day (UTC) that operators gave no other limit; 0: no limit"`
	// RecipientsPerCampaign is how many recipients a group message may have.
	RecipientsPerCampaign int32 `env:"TURUMBA_QUOTA_RECIPIENTS_PER_CAMPAIGN" help:"most recipients of a group message, likewise; 0: no limit"`
	// Contacts is how many contacts an account may have.
	Contacts int32 `env:"TURUMBA_QUOTA_CONTACTS" help:"most contacts of an account, likewise; 0: no limit"`
	// Channels is how many channels an account may have.
	Channels int32 `env:"TURUMBA_QUOTA_CHANNELS" help:"most channels of an account, likewise; 0: no limit"`
	// AccountsPerPerson is how many accounts a person may own.
	AccountsPerPerson int32 `env:"TURUMBA_QUOTA_ACCOUNTS_PER_PERSON" envDefault:"5" help:"most accounts that a person made or is an Owner of; 0: no limit"`
}

// Validate refuses limits below 0.
func (s QuotaSettings) Validate() error {
	var problems []error
	for _, q := range []struct {
		key  string
		most int32
	}{
		{"TURUMBA_QUOTA_MESSAGES_PER_DAY", s.MessagesPerDay},
		{"TURUMBA_QUOTA_RECIPIENTS_PER_CAMPAIGN", s.RecipientsPerCampaign},
		{"TURUMBA_QUOTA_CONTACTS", s.Contacts},
		{"TURUMBA_QUOTA_CHANNELS", s.Channels},
		{"TURUMBA_QUOTA_ACCOUNTS_PER_PERSON", s.AccountsPerPerson},
	} {
		if q.most < 0 {
			problems = append(problems, fmt.Errorf("%s: %d is below 0", q.key, q.most))
		}
	}
	return errors.Join(problems...)
}

func (s QuotaSettings) defaults() account.Quotas {
	return account.Quotas{MessagesPerDay: &s.MessagesPerDay, RecipientsPerCampaign: &s.RecipientsPerCampaign, Contacts: &s.Contacts, Channels: &s.Channels}
}
