package messaging

import (
	"hash/maphash"
	"slices"
)

// Addressee is a recipient who gets a message of a send; without a ContactID one given
// by address.
type Addressee struct {
	ContactID string
	// AddressID is the id of a recipient given by address.
	AddressID string
	Address   string
	Values    Values
}

// skipped says that the addressee opted out.
func (to Addressee) skipped() Skip {
	skip := Skip{ID: to.ContactID, ContactID: to.ContactID, Reason: SkipOptedOut}
	if to.AddressID != "" {
		skip.ID, skip.Address = to.AddressID, to.Address
	}
	return skip
}

// Audience decides, recipient by recipient, who gets a message of a send. The fan-out
// and a dry run go by the same one.
type Audience struct {
	// Renderer makes the texts, from Sources and what is known of each recipient.
	Renderer *Renderer
	Sources  Sources
	// Left are the members of the groups that are left out; nil is nobody.
	Left *Members
	// Missing is for how many each variable had no value.
	Missing map[string]int

	channelType string
	countryCode string
	excluded    map[string]bool
	// seen are digests of the addresses written to, by two seeds: 16 bytes each, so that a
	// send of a million needs little memory.
	seen  map[[2]uint64]struct{}
	seeds [2]maphash.Seed
}

// NewAudience begins a send on a type of channel, whose country code numbers without
// one take.
func NewAudience(g *GroupMessage, channelType, countryCode string, r *Renderer, s Sources) *Audience {
	a := &Audience{
		Renderer: r, Sources: s, Missing: map[string]int{}, channelType: channelType, countryCode: countryCode,
		excluded: make(map[string]bool, len(g.ExcludeContactIDs)), seen: map[[2]uint64]struct{}{},
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
	for _, id := range g.ExcludeContactIDs {
		a.excluded[id] = true
	}
	return a
}

// Sort divides a stretch of recipients, in order of their ids, into those who get a
// message and those who do not. suppressed tells which addresses opted out, by their
// keys; who does so later is stopped at the gate.
func (a *Audience) Sort(list []Recipient, suppressed func(keys []string) (map[string]bool, error)) (to []Addressee, skips []Skip, err error) {
	to = make([]Addressee, 0, len(list))
	for i := range list {
		r := &list[i]
		if one, reason := a.sort(r); reason != "" {
			skips = append(skips, Skip{ID: r.ID(), ContactID: r.ContactID, Address: r.Given, Reason: reason})
		} else {
			to = append(to, one)
		}
	}
	if err := a.Left.Failed(); err != nil {
		return nil, nil, err
	}
	keys := make([]string, len(to))
	for i := range to {
		keys[i] = AddressKey(a.channelType, to[i].Address)
	}
	out, err := suppressed(keys)
	if err != nil {
		return nil, nil, err
	}
	if len(out) == 0 {
		return to, skips, nil
	}
	to = slices.DeleteFunc(to, func(one Addressee) bool {
		gone := out[AddressKey(a.channelType, one.Address)]
		if gone {
			skips = append(skips, one.skipped())
		}
		return gone
	})
	return to, skips, nil
}

func (a *Audience) sort(r *Recipient) (to Addressee, skip string) {
	if r.ContactID != "" && (a.excluded[r.ContactID] || a.Left.Has(r.ContactID)) {
		return to, SkipExcluded
	}
	address := r.Address(a.channelType)
	if address == "" {
		return to, SkipNoAddress
	}
	if r.AddressID != "" {
		var err error
		if address, err = CheckAddress(a.channelType, address, a.countryCode); err != nil {
			return to, SkipInvalidAddress
		}
	}
	values, missing, unresolved := a.Renderer.Resolve(a.Sources.Lookup(r))
	for _, name := range missing {
		a.Missing[name]++
	}
	switch {
	case unresolved:
		return to, SkipUnresolved
	case a.Renderer.Excess(a.channelType, values) != "":
		return to, SkipTooLong
	}
	if a.Duplicate(address) {
		return to, SkipDuplicateAddress
	}
	return Addressee{AddressID: r.AddressID, ContactID: r.ContactID, Address: address, Values: values}, ""
}

// Duplicate notes an address and reports whether it was noted before, in whatever spelling.
func (a *Audience) Duplicate(address string) bool {
	address = AddressKey(a.channelType, address)
	key := [2]uint64{maphash.String(a.seeds[0], address), maphash.String(a.seeds[1], address)}
	before := len(a.seen)
	a.seen[key] = struct{}{}
	return len(a.seen) == before
}
