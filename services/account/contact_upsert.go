package account

import (
	"bytes"
	"maps"

	"github.com/turumba/turumba/kit/address"
	"github.com/turumba/turumba/kit/apierr"
)

// ContactKey is a kind of value that tells who a contact is.
type ContactKey string

// The keys; each value belongs to one contact of an account.
const (
	KeyExternalID ContactKey = "external_id"
	KeyPhone      ContactKey = "phone"
	KeyEmail      ContactKey = "email"
	KeyTelegram   ContactKey = "telegram"
	KeyWhatsapp   ContactKey = "whatsapp"
	KeyMessenger  ContactKey = "messenger"
)

// ContactKeys are all keys, in the order in which duplicates are told.
func ContactKeys() []ContactKey {
	return []ContactKey{KeyEmail, KeyPhone, KeyExternalID, KeyTelegram, KeyWhatsapp, KeyMessenger}
}

// DefaultMatchBy are the keys by which imported rows find contacts when nothing
// else is asked for.
func DefaultMatchBy() []ContactKey { return []ContactKey{KeyExternalID, KeyPhone, KeyEmail} }

// Key is the contact's value of a key; empty when it has none.
func (c *Contact) Key(k ContactKey) string {
	switch k {
	case KeyEmail:
		if c.stored.key != "" && c.stored.email == c.Email {
			return c.stored.key
		}
		return address.EmailKey(c.Email)
	case KeyPhone:
		return c.Phone
	case KeyExternalID:
		return c.ExternalID
	}
	return c.Identifiers[string(k)]
}

// keys are the values of all keys that the contact has.
func (c *Contact) keys() map[ContactKey]string {
	out := map[ContactKey]string{}
	for _, k := range ContactKeys() {
		if v := c.Key(k); v != "" {
			out[k] = v
		}
	}
	return out
}

// KeyValues are the values of each key in the rows.
func KeyValues(rows []ImportRow) map[ContactKey][]string {
	out := map[ContactKey][]string{}
	for _, row := range rows {
		if row.Err != nil {
			continue
		}
		for _, k := range ContactKeys() {
			if v := row.Contact.Key(k); v != "" {
				out[k] = append(out[k], v)
			}
		}
	}
	return out
}

// RowIDs are the ids of contacts that rows name.
func RowIDs(rows []ImportRow) []string {
	var out []string
	for _, row := range rows {
		if row.Err == nil && row.Contact.ID != "" {
			out = append(out, row.Contact.ID)
		}
	}
	return out
}

// DuplicateKey is the conflict with a contact that has the value of the key already.
func DuplicateKey(k ContactKey, existingID string) *apierr.Error {
	switch k {
	case KeyEmail:
		return DuplicateEmail(existingID)
	case KeyPhone:
		return DuplicatePhone(existingID)
	case KeyExternalID:
		return DuplicateIdentifier(existingID, "external id")
	}
	return DuplicateIdentifier(existingID, string(k)+" id")
}

// Upsert brings rows together with the contacts that have one of their keys: those
// of the account, and those that rows before made.
type Upsert struct {
	matchBy []ContactKey
	byID    map[string]*Contact
	owners  map[owned]*Contact
	// Created and Changed are what there is to store, each contact once.
	Created, Changed []*Contact
	noted            map[*Contact]bool
	room             Room
}

type owned struct {
	key   ContactKey
	value string
}

// NewUpsert begins with the contacts of the account that have a key of any row to
// come. room is for how many new ones there is room.
func NewUpsert(matchBy []ContactKey, existing []*Contact, room Room) *Upsert {
	u := &Upsert{matchBy: matchBy, byID: map[string]*Contact{}, owners: map[owned]*Contact{}, noted: map[*Contact]bool{}, room: room}
	for _, c := range existing {
		u.byID[c.ID] = c
		u.own(c)
	}
	return u
}

func (u *Upsert) own(c *Contact) {
	for _, k := range ContactKeys() {
		if v := c.Key(k); v != "" {
			u.owners[owned{k, v}] = c
		}
	}
}

func (u *Upsert) disown(c *Contact) {
	for _, k := range ContactKeys() {
		if at := (owned{k, c.Key(k)}); u.owners[at] == c {
			delete(u.owners, at)
		}
	}
}

// AddRows brings the rows of a file together with the contacts and counts what becomes
// of each: created, updated or rejected. It returns the rows that are rejected, and
// for each contact the rows that it is made of.
func (u *Upsert) AddRows(rows []ImportRow, count *ImportProgress) (rejected []RejectedRow, placed map[*Contact][]PlacedRow) {
	placed = map[*Contact][]PlacedRow{}
	for i := range rows {
		row := &rows[i]
		count.RowCount++
		c, created, err := (*Contact)(nil), false, row.Err
		if err == nil {
			c, created, err = u.Add(row.Contact)
		}
		switch {
		case err != nil:
			rejected = append(rejected, row.Rejected(err))
			count.RejectedCount++
			continue
		case created:
			count.CreatedCount++
		default:
			count.UpdatedCount++
		}
		placed[c] = append(placed[c], PlacedRow{Line: row.Line, Cells: row.Cells, Created: created})
	}
	return rejected, placed
}

// Add makes a contact of the row, or changes the one that it is about. The error is
// a conflict with another contact, a rule that the changed contact would break, or the
// lack of room for a new one.
func (u *Upsert) Add(row *Contact) (c *Contact, created bool, err error) {
	c = u.find(row)
	if c == nil {
		if err := u.rival(row, nil); err != nil {
			return nil, false, err
		}
		if err := u.room.refuse(len(u.Created)); err != nil {
			return nil, false, err
		}
		c := *row // rows after it change the contact, not the row
		c.ID = NewID()
		u.own(&c)
		u.Created, u.noted[&c] = append(u.Created, &c), true
		return &c, true, nil
	}
	next := *c
	if err := next.Merge(row); err != nil {
		return nil, false, err
	}
	if err := u.rival(&next, c); err != nil {
		return nil, false, err
	}
	if !u.noted[c] && !c.same(&next) {
		u.Changed, u.noted[c] = append(u.Changed, c), true
	}
	u.disown(c)
	*c = next
	u.own(c)
	return c, false, nil
}

// find is the contact that the row is about, by its id or the first key that both have.
func (u *Upsert) find(row *Contact) *Contact {
	if c := u.byID[row.ID]; c != nil {
		return c
	}
	for _, k := range u.matchBy {
		if v := row.Key(k); v != "" {
			if c := u.owners[owned{k, v}]; c != nil {
				return c
			}
		}
	}
	return nil
}

// rival is the conflict with a contact other than self that has a key of c.
func (u *Upsert) rival(c, self *Contact) error {
	for _, k := range ContactKeys() {
		if v := c.Key(k); v != "" {
			if o := u.owners[owned{k, v}]; o != nil && o != self {
				return DuplicateKey(k, o.ID)
			}
		}
	}
	return nil
}

// same reports whether both are stored as the same document.
func (c *Contact) same(o *Contact) bool {
	a, err := c.Document()
	b, berr := o.Document()
	return err == nil && berr == nil && bytes.Equal(a, b)
}

// Merge sets what from has: tags are added, identifiers and free data key by key.
func (c *Contact) Merge(from *Contact) error {
	if from.Name != "" && from.Name != c.DisplayName() { // or one that is made of the others would stay when they change
		c.Name = from.Name
	}
	for _, f := range []struct{ to, from *string }{
		{&c.FirstName, &from.FirstName},
		{&c.LastName, &from.LastName},
		{&c.Phone, &from.Phone},
		{&c.Language, &from.Language},
		{&c.Timezone, &from.Timezone},
		{&c.ExternalID, &from.ExternalID},
		{&c.PreferredChannelType, &from.PreferredChannelType},
	} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	if from.Email != "" && (c.stored.key == "" || from.Key(KeyEmail) != address.EmailKey(c.Email)) {
		c.Email = from.Email // the same mailbox in another spelling too, but where its key is of before
	}
	c.Tags = sortedTags(c.Tags, from.Tags)
	if len(c.Tags) > MaxTags {
		return InvalidField("tags", "would be more than 100 with those that the contact has")
	}
	if len(from.Identifiers) > 0 {
		merged := maps.Clone(from.Identifiers)
		for k, v := range c.Identifiers {
			if merged[k] == "" {
				merged[k] = v
			}
		}
		c.Identifiers = merged
	}
	merged, err := mergedMetadata(c.Metadata, from.Metadata)
	if err != nil {
		return err
	}
	c.Metadata = merged
	return nil
}
