package messaging

// The names of the quotas.
const (
	QuotaMessages   = "messages_per_day"
	QuotaRecipients = "recipients_per_campaign"
	QuotaContacts   = "contacts"
	QuotaChannels   = "channels"
)

// Quotas are the limits of an account, by the names above; 0 is no limit.
type Quotas map[string]int64

// Allowance is what a send is held to when it starts.
type Allowance struct {
	Quotas Quotas
	// Members is how many contacts its contact groups had a moment before; counted only
	// where a quota asks for it.
	Members int64
}

// CountMembers is up to where the members of a send's groups must be counted to know
// whether it is too large; 0 when no quota asks.
func (q Quotas) CountMembers() int64 {
	most := q[QuotaMessages]
	if limit := q[QuotaRecipients]; most == 0 || limit > 0 && limit < most {
		most = limit
	}
	if most == 0 {
		return 0
	}
	return most + 1
}
