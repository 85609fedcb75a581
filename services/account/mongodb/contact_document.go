package mongodb

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/turumba/turumba/kit/mongodb"
	account "github.com/turumba/turumba/services/account"
)

// contactDocument is a stored contact.
type contactDocument struct {
	ID        string   `bson:"_id"`
	AccountID string   `bson:"account_id"`
	GroupIDs  []string `bson:"group_ids"`
	// RequestHash is of the call that made it, if that had an idempotency key.
	RequestHash []byte        `bson:"request_hash"`
	CreatedAt   time.Time     `bson:"created_at"`
	Fields      contactFields `bson:",inline"`
}

// contactFields are what a change of a contact sets. Nothing is NULL, as in SQL.
type contactFields struct {
	Name                 string            `bson:"name"`
	FirstName            *string           `bson:"first_name"`
	LastName             *string           `bson:"last_name"`
	Display              string            `bson:"display"`
	Email                *string           `bson:"email"`       // its key
	EmailShown           *string           `bson:"email_shown"` // as it was written, where that differs
	DuplicateOfID        *string           `bson:"duplicate_of_id"`
	EmailOrder           string            `bson:"email_order"`
	Phone                *string           `bson:"phone"`
	Tags                 []string          `bson:"tags"`
	Language             string            `bson:"language"`
	Timezone             string            `bson:"timezone"`
	ExternalID           *string           `bson:"external_id"`
	PreferredChannelType string            `bson:"preferred_channel_type"`
	Identifiers          map[string]string `bson:"identifiers"`
	// Metadata is JSON: a caller's keys are never names of fields.
	Metadata string `bson:"metadata"`
	// Attributes are the texts by which its keys are found.
	Attributes []string `bson:"attributes"`
	// Version counts the changes; one that read another version writes nothing.
	Version int64 `bson:"version"`
	// Trail is the last changes, by the id of their audit event or import plan.
	Trail     []string  `bson:"trail"`
	UpdatedAt time.Time `bson:"updated_at"`
}

func contactIndexes() []mongodb.Index {
	var out []mongodb.Index
	for _, f := range []string{
		"created_at", "updated_at", "display", "email_order", "group_ids", "tags", "attributes",
		"first_name", "last_name", "email", "phone", "external_id",
	} {
		out = append(out, mongodb.Index{Fields: []string{"account_id", f, "_id"}})
	}
	return append(out, mongodb.Index{Fields: []string{"account_id", "_id"}})
}

// emailOrder sorts as an address does that may be missing: in PostgreSQL nothing comes
// after everything.
func emailOrder(email string) string {
	if email == "" {
		return "\U0010FFFF"
	}
	return email
}

func textOrNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func fieldsOf(c *account.Contact) (contactFields, error) {
	attributes, err := mongodb.Attributes(c.Metadata)
	if err != nil {
		return contactFields{}, err
	}
	key, shown := c.Key(account.KeyEmail), ""
	if c.Email != key {
		shown = c.Email
	}
	return contactFields{
		Name: c.Name, FirstName: textOrNil(c.FirstName), LastName: textOrNil(c.LastName), Display: c.DisplayName(),
		Email: textOrNil(key), EmailShown: textOrNil(shown), DuplicateOfID: textOrNil(c.DuplicateOfID), EmailOrder: emailOrder(key), Phone: textOrNil(c.Phone), Tags: append([]string{}, c.Tags...),
		Language: c.Language, Timezone: c.Timezone, ExternalID: textOrNil(c.ExternalID), PreferredChannelType: c.PreferredChannelType,
		Identifiers: c.Identifiers, Metadata: string(c.Metadata), Attributes: attributes, Version: 1, Trail: []string{}, UpdatedAt: c.UpdatedAt,
	}, nil
}

func (d *contactDocument) contact() *account.Contact {
	f := d.Fields
	c := &account.Contact{
		ID: d.ID, AccountID: d.AccountID, Name: f.Name, FirstName: text(f.FirstName), LastName: text(f.LastName),
		DuplicateOfID: text(f.DuplicateOfID), Phone: text(f.Phone), Tags: f.Tags, Language: f.Language, Timezone: f.Timezone, ExternalID: text(f.ExternalID),
		PreferredChannelType: f.PreferredChannelType, Identifiers: f.Identifiers, CreatedAt: d.CreatedAt.UTC(), UpdatedAt: f.UpdatedAt.UTC(),
	}
	c.StoredEmail(text(f.Email), text(f.EmailShown))
	if f.Metadata != "" {
		c.Metadata = json.RawMessage(f.Metadata)
	}
	return c
}

// hasChange reports whether a change is among the document's last ones.
func (d *contactDocument) hasChange(id string) bool { return slices.Contains(d.Fields.Trail, id) }
