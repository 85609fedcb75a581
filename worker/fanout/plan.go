package fanout

import (
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// plan decides, recipient by recipient, who gets a message of the send.
type plan struct {
	channelType string
	countryCode string
	renderer    *messaging.Renderer
	sources     messaging.Sources
	excluded    map[string]bool
	members     *members
	// cursor is the last contact handled, address the last recipient given by address.
	cursor, address string
	// seen are digests of the addresses written to: 16 bytes each, so that a send
	// of a million needs little memory.
	seen map[[16]byte]struct{}
}

func newPlan(f *postgres.Fanout, renderer *messaging.Renderer, sources messaging.Sources) *plan {
	p := &plan{
		channelType: f.ChannelType, countryCode: f.CountryCode, renderer: renderer, sources: sources, cursor: f.Job.Cursor, address: f.Job.AddressCursor,
		excluded: make(map[string]bool, len(f.Group.ExcludeContactIDs)), seen: map[[16]byte]struct{}{},
	}
	for _, id := range f.Group.ExcludeContactIDs {
		p.excluded[id] = true
	}
	return p
}

// batch sorts a stretch of recipients into messages and skipped ones. Those that
// were handled before are left out.
func (p *plan) batch(list []messaging.Recipient) postgres.FanoutBatch {
	var b postgres.FanoutBatch
	for _, r := range list {
		if !p.next(r) {
			continue
		}
		if m, reason := p.message(r); reason != "" {
			b.Skips = append(b.Skips, messaging.Skip{ID: r.ID(), ContactID: r.ContactID, Address: r.Given, Reason: reason})
		} else {
			b.Messages = append(b.Messages, m)
		}
	}
	b.Cursor, b.AddressCursor = p.cursor, p.address
	return b
}

// next moves the cursor of the recipient's kind, unless it stands behind them already.
func (p *plan) next(r messaging.Recipient) bool {
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

// keys are the addresses of a stretch as suppressions have them.
func (p *plan) keys(b postgres.FanoutBatch) []string {
	keys := make([]string, len(b.Messages))
	for i, m := range b.Messages {
		keys[i] = messaging.AddressKey(p.channelType, m.Address)
	}
	return keys
}

// without skips who opted out. Who opts out later is stopped at the gate.
func (p *plan) without(b postgres.FanoutBatch, suppressed map[string]bool) postgres.FanoutBatch {
	b.Messages = slices.DeleteFunc(b.Messages, func(m postgres.FanoutMessage) bool {
		out := suppressed[messaging.AddressKey(p.channelType, m.Address)]
		if out {
			b.Skips = append(b.Skips, skipped(m))
		}
		return out
	})
	return b
}

// skipped says that the recipient of a message opted out.
func skipped(m postgres.FanoutMessage) messaging.Skip {
	skip := messaging.Skip{ID: m.ContactID, ContactID: m.ContactID, Reason: messaging.SkipOptedOut}
	if m.AddressID != "" {
		skip.ID, skip.Address = m.AddressID, m.Address
	}
	return skip
}

func (p *plan) message(r messaging.Recipient) (m postgres.FanoutMessage, skip string) {
	if r.ContactID != "" && (p.excluded[r.ContactID] || p.members.has(r.ContactID)) {
		return m, messaging.SkipExcluded
	}
	address := r.Address(p.channelType)
	if address == "" {
		return m, messaging.SkipNoAddress
	}
	if r.AddressID != "" {
		var ok bool
		if address, ok = messaging.CheckAddress(p.channelType, address, p.countryCode); !ok {
			return m, messaging.SkipInvalidAddress
		}
	}
	values, _, unresolved := p.renderer.Resolve(p.sources.Lookup(r))
	switch {
	case unresolved:
		return m, messaging.SkipUnresolved
	case p.renderer.Excess(p.channelType, values) != "":
		return m, messaging.SkipTooLong
	}
	if p.duplicate(address) {
		return m, messaging.SkipDuplicateAddress
	}
	return postgres.FanoutMessage{AddressID: r.AddressID, ContactID: r.ContactID, Address: address, Values: values}, ""
}

// duplicate notes an address and reports whether it was noted before.
func (p *plan) duplicate(address string) bool {
	sum := sha256.Sum256([]byte(strings.ToLower(address)))
	key := [16]byte(sum[:16])
	_, known := p.seen[key]
	p.seen[key] = struct{}{}
	return known
}
