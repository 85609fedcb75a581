package contactcsv

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/google/uuid"

	account "github.com/turumba/turumba/services/account"
)

// field is a field of a contact as a cell.
type field struct {
	name string
	get  func(*account.Contact) string
	// set reads a cell; nil for what an import does not set.
	set func(*account.Contact, string) error
	// identifies says that the field alone makes a contact.
	identifies bool
}

// metadataPrefix is that of the fields for single keys of the free data.
const metadataPrefix = "metadata."

// fields are the columns of an export, in order. Cells go to the field of their
// name, and to metadata.<key>.
var fields = []field{
	{name: "id", get: func(c *account.Contact) string { return c.ID }, set: setID},
	{name: "account_id", get: func(c *account.Contact) string { return c.AccountID }},
	text("external_id", true, func(c *account.Contact) *string { return &c.ExternalID }),
	{
		name: "name", identifies: true, get: (*account.Contact).DisplayName,
		set: func(c *account.Contact, v string) error { c.Name = v; return nil },
	},
	text("first_name", true, func(c *account.Contact) *string { return &c.FirstName }),
	text("last_name", true, func(c *account.Contact) *string { return &c.LastName }),
	text("email", true, func(c *account.Contact) *string { return &c.Email }),
	text("phone", true, func(c *account.Contact) *string { return &c.Phone }),
	{name: "tags", get: tagsCell, set: setTags},
	text("language", false, func(c *account.Contact) *string { return &c.Language }),
	text("timezone", false, func(c *account.Contact) *string { return &c.Timezone }),
	text("preferred_channel_type", false, func(c *account.Contact) *string { return &c.PreferredChannelType }),
	identifier("telegram"),
	identifier("whatsapp"),
	identifier("messenger"),
	{name: "metadata", get: func(c *account.Contact) string { return string(c.Metadata) }, set: setMetadata},
	{name: "created_at", get: func(c *account.Contact) string { return c.CreatedAt.UTC().Format(time.RFC3339Nano) }},
	{name: "updated_at", get: func(c *account.Contact) string { return c.UpdatedAt.UTC().Format(time.RFC3339Nano) }},
}

var byName = func() map[string]*field {
	m := map[string]*field{}
	for i := range fields {
		m[fields[i].name] = &fields[i]
	}
	return m
}()

// setID takes the id of a contact, by which a row finds it. What is no UUID is the id of
// another system, and left out.
func setID(c *account.Contact, v string) error {
	if id, err := uuid.Parse(v); err == nil {
		c.ID = id.String()
	}
	return nil
}

// text is a field that is its cell.
func text(name string, identifies bool, of func(*account.Contact) *string) field {
	return field{
		name: name, identifies: identifies,
		get: func(c *account.Contact) string { return *of(c) },
		set: func(c *account.Contact, v string) error { *of(c) = v; return nil },
	}
}

// identifier is the contact's id on a platform.
func identifier(platform string) field {
	return field{
		name: platform, identifies: true,
		get: func(c *account.Contact) string { return c.Identifiers[platform] },
		set: func(c *account.Contact, v string) error {
			if c.Identifiers == nil {
				c.Identifiers = map[string]string{}
			}
			c.Identifiers[platform] = v
			return nil
		},
	}
}

// tagsCell is a list that setTags reads as the same tags.
func tagsCell(c *account.Contact) string {
	if strings.ContainsAny(strings.Join(c.Tags, ""), ",;|[") {
		if list, err := json.Marshal(c.Tags); err == nil {
			return string(list)
		}
	}
	return strings.Join(c.Tags, ", ")
}

// setTags reads a list separated by commas, semicolons or bars, or a JSON list.
func setTags(c *account.Contact, v string) error {
	if strings.HasPrefix(v, "[") && json.Unmarshal([]byte(v), &c.Tags) == nil {
		return nil
	}
	for tag := range strings.FieldsFuncSeq(v, func(r rune) bool { return r == ',' || r == ';' || r == '|' }) {
		if tag = strings.TrimSpace(tag); tag != "" {
			c.Tags = append(c.Tags, tag)
		}
	}
	return nil
}

func setMetadata(c *account.Contact, v string) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(v), &object); err != nil || object == nil {
		return account.InvalidField("metadata", "is not a JSON object")
	}
	c.Metadata = json.RawMessage(v)
	return nil
}
