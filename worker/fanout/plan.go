package fanout

import (
	"slices"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// plan is who gets a message of the send, and how far that is.
type plan struct {
	audience *messaging.Audience
	// cursor is the last contact handled, address the last recipient given by address.
	cursor, address string
}

func newPlan(f *postgres.Fanout, renderer *messaging.Renderer, sources messaging.Sources) *plan {
	return &plan{
		audience: messaging.NewAudience(f.Group, f.ChannelType, f.CountryCode, renderer, sources), cursor: f.Job.Cursor, address: f.Job.AddressCursor,
	}
}

// fresh are those of a stretch who were not handled before.
func (p *plan) fresh(list []messaging.Recipient) []messaging.Recipient {
	handled := slices.IndexFunc(list, func(r messaging.Recipient) bool { return !p.next(&r) })
	if handled < 0 {
		return list
	}
	out := slices.Clone(list[:handled])
	for _, r := range list[handled+1:] {
		if p.next(&r) {
			out = append(out, r)
		}
	}
	return out
}

// next moves the cursor of the recipient's kind, unless it stands behind them already.
func (p *plan) next(r *messaging.Recipient) bool {
	cursor := &p.cursor
	if r.AddressID != "" {
		cursor = &p.address
	}
	if r.ID() <= *cursor {
		return false
	}
	*cursor = r.ID()
	return true
}
