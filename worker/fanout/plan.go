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
	renderer    *messaging.Renderer
	sources     messaging.Sources
	excluded    map[string]bool
	cursor      string
	// seen are digests of the addresses written to: 16 bytes each, so that a send
	// of a million needs little memory.
	seen map[[16]byte]struct{}
}

func newPlan(f *postgres.Fanout, renderer *messaging.Renderer, sources messaging.Sources) *plan {
	p := &plan{
		channelType: f.ChannelType, renderer: renderer, sources: sources, cursor: f.Job.Cursor,
		excluded: make(map[string]bool, len(f.Group.ExcludeContactIDs)), seen: map[[16]byte]struct{}{},
	}
	for _, id := range f.Group.ExcludeContactIDs {
		p.excluded[id] = true
	}
	return p
}

// batch sorts a stretch of recipients into messages and skipped ones. Contacts
// that were handled before and excluded ones are left out.
func (p *plan) batch(list []messaging.Recipient) postgres.FanoutBatch {
	var b postgres.FanoutBatch
	for _, r := range list {
		if r.ContactID <= p.cursor {
			continue
		}
		p.cursor = r.ContactID
		if p.excluded[r.ContactID] {
			continue
		}
		if m, reason := p.message(r); reason != "" {
			b.Skips = append(b.Skips, messaging.Skip{ContactID: r.ContactID, Reason: reason})
		} else {
			b.Messages = append(b.Messages, m)
		}
	}
	b.Cursor = p.cursor
	return b
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
			b.Skips = append(b.Skips, messaging.Skip{ContactID: m.ContactID, Reason: messaging.SkipOptedOut})
		}
		return out
	})
	return b
}

func (p *plan) message(r messaging.Recipient) (m postgres.FanoutMessage, skip string) {
	address := r.Address(p.channelType)
	if address == "" {
		return m, messaging.SkipNoAddress
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
	return postgres.FanoutMessage{ContactID: r.ContactID, Address: address, Values: values}, ""
}

// duplicate notes an address and reports whether it was noted before.
func (p *plan) duplicate(address string) bool {
	sum := sha256.Sum256([]byte(strings.ToLower(address)))
	key := [16]byte(sum[:16])
	_, known := p.seen[key]
	p.seen[key] = struct{}{}
	return known
}
