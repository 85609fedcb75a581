package account

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/address"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/bounds"
)

const (
	// MaxMetadata is the most bytes of a contact's free data, as JSON.
	MaxMetadata = 32 << 10
	// MaxTags is the most tags of a contact.
	MaxTags = 100
)

// Contact is a person outside the organisation, who gets messages. It is stored
// as one document.
type Contact struct {
	ID        string `json:"-"`
	AccountID string `json:"-"`
	Name      string `json:"name,omitempty"`
	FirstName string `json:"first_name,omitempty"`
	LastName  string `json:"last_name,omitempty"`
	// Email is the address as it was written.
	Email    string          `json:"email,omitempty"`
	Phone    string          `json:"phone,omitempty"`
	Tags     []string        `json:"tags,omitempty"`
	Language string          `json:"language,omitempty"`
	Timezone string          `json:"timezone,omitempty"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
	// ExternalID is the contact's id in the organisation's own system.
	ExternalID           string `json:"external_id,omitempty"`
	PreferredChannelType string `json:"preferred_channel_type,omitempty"`
	// Identifiers are the contact's ids on platforms, by channel type.
	Identifiers map[string]string `json:"identifiers,omitempty"`
	// DuplicateOfID is the contact that has the same mailbox or id, where both were stored
	// before their spellings were known to be one.
	DuplicateOfID string    `json:"duplicate_of_id,omitempty"`
	CreatedAt     time.Time `json:"-"`
	UpdatedAt     time.Time `json:"-"`
	stored        storedEmail
}

// storedEmail is an address that was stored under another key than it would be now: before
// one normaliser (ADR 0056). Empty for all others.
type storedEmail struct{ email, key string }

// StoredEmail takes an e-mail address as it is stored: its key, and the spelling where that
// differs.
func (c *Contact) StoredEmail(key, shown string) {
	if c.Email = shown; shown == "" {
		c.Email = key
	}
	if c.stored = (storedEmail{}); key != address.EmailKey(c.Email) {
		c.stored = storedEmail{c.Email, key}
	}
}

// document is a contact as it is stored: its e-mail address by its key, which lists find and
// sort it by, with the spelling beside it where it differs; and the name that people see,
// which may be empty and is always there.
type document struct {
	*Contact
	Email      string `json:"email,omitempty"`
	EmailShown string `json:"email_shown,omitempty"`
	Display    string `json:"display"`
}

// Document is the contact as it is stored.
func (c *Contact) Document() ([]byte, error) {
	d := document{Contact: c, Email: c.Key(KeyEmail), Display: c.DisplayName()}
	if c.Email != d.Email {
		d.EmailShown = c.Email
	}
	return json.Marshal(d)
}

// ExportWeight is the most that a page of an export weighs (bounds.Page): some 700 contacts
// without much in them.
const ExportWeight = 2 << 20

// ReadDocument is a contact that was stored.
func ReadDocument(raw []byte) (*Contact, error) {
	d := document{Contact: &Contact{}}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("read contact document: %w", err)
	}
	c := d.Contact
	c.StoredEmail(d.Email, d.EmailShown)
	return c, nil
}

// Platforms are the channel types that know a contact by an id of their own.
func Platforms() []string { return []string{"telegram", "whatsapp", "messenger"} }

// NeedsCountry reports whether the phone number can only be read as that of a
// country.
func NeedsCountry(phone string) bool {
	phone = address.Trim(phone)
	return phone != "" && !strings.HasPrefix(phone, "+")
}

// normalPhone is a number in E.164. country is that of numbers without a leading
// +; empty when the account has none.
func normalPhone(phone, country string) (string, error) {
	if phone = address.Trim(phone); phone == "" {
		return "", nil
	}
	number, err := address.Phone(phone, country)
	if err != nil {
		return "", InvalidField("phone", err.Error())
	}
	return number, nil
}

// normaliseEmail refuses what is no mailbox, unless it is what was stored.
func (c *Contact) normaliseEmail(stored *Contact) error {
	if stored != nil && c.Email == stored.Email {
		return nil
	}
	if c.Email = address.Trim(c.Email); c.Email == "" {
		return nil
	}
	if _, err := address.Email(c.Email); err != nil {
		return InvalidField("email", err.Error())
	}
	return nil
}

// normaliseIDs refuses what is no id of a platform, unless it is what was stored.
func (c *Contact) normaliseIDs(stored *Contact) error {
	var ids map[string]string
	for platform, id := range c.Identifiers {
		if stored == nil || id != stored.Identifiers[platform] {
			var err error
			if id, err = address.ID(id); err != nil {
				return InvalidField("identifiers."+platform, err.Error())
			}
		}
		if ids == nil {
			ids = make(map[string]string, len(c.Identifiers))
		}
		ids[platform] = id
	}
	c.Identifiers = ids
	return nil
}

// together is one error that names the fields of all; nil where there is none.
func together(errs ...error) error {
	var fields []apierr.Field
	var first *apierr.Error
	for _, err := range errs {
		if err == nil {
			continue
		}
		e := apierr.From(err)
		if fields = append(fields, e.Fields...); first == nil {
			first = e
		}
	}
	if first == nil {
		return nil
	}
	all := *first
	all.Fields = fields
	return &all
}

// Normalise brings a contact into the form that is stored, and refuses what
// cannot be: somebody without a name and an address is nobody. country is that of
// phone numbers without a leading +. stored is the contact as it is stored already, nil for
// a new one: what it has is not asked about again.
func (c *Contact) Normalise(country string, stored *Contact) error {
	phone, err := normalPhone(c.Phone, country)
	if err := together(err, c.normaliseEmail(stored), c.normaliseIDs(stored)); err != nil {
		return err
	}
	if stored != nil && !maps.Equal(c.keys(), stored.keys()) {
		c.DuplicateOfID = "" // or it is found again
	}
	c.Phone, c.ExternalID = phone, strings.TrimSpace(c.ExternalID)
	c.PreferredChannelType = strings.ToLower(strings.TrimSpace(c.PreferredChannelType))
	c.FirstName, c.LastName = strings.TrimSpace(c.FirstName), strings.TrimSpace(c.LastName)
	c.Name = strings.TrimSpace(c.Name)
	c.Tags = sortedTags(c.Tags)
	if c.Name == "" && c.FirstName == "" && c.LastName == "" && c.Email == "" && c.Phone == "" && c.ExternalID == "" && len(c.Identifiers) == 0 {
		return InvalidField("name", "a contact needs a name, an address, a phone number or an id")
	}
	if len(c.Metadata) > MaxMetadata {
		return errMetadataSize
	}
	if wrong := bounds.FreeJSON(c.Metadata); wrong != "" {
		return InvalidField("metadata", wrong)
	}
	if c.Timezone != "" {
		if _, err := time.LoadLocation(c.Timezone); err != nil || c.Timezone == "Local" {
			return InvalidField("timezone", "is not an IANA time zone, for example Africa/Addis_Ababa")
		}
	}
	return nil
}

var errMetadataSize = InvalidField("metadata", "is larger than 32 KiB")

// sortedTags are the tags of all lists, each once.
func sortedTags(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}

// mergedMetadata is base with the keys of over; both are JSON objects or nothing.
func mergedMetadata(base, over json.RawMessage) (json.RawMessage, error) {
	if len(base) == 0 || len(over) == 0 {
		return slices.Concat(base, over), nil
	}
	merged := map[string]json.RawMessage{}
	for _, raw := range []json.RawMessage{base, over} {
		if err := json.Unmarshal(raw, &merged); err != nil {
			return nil, fmt.Errorf("read metadata: %w", err)
		}
	}
	out, err := json.Marshal(merged)
	if err != nil {
		return nil, fmt.Errorf("write metadata: %w", err)
	}
	if len(out) > MaxMetadata {
		return nil, errMetadataSize
	}
	if wrong := bounds.FreeJSON(out); wrong != "" {
		return nil, InvalidField("metadata", wrong)
	}
	return out, nil
}

// DisplayName is the name, or the first and last name.
func (c *Contact) DisplayName() string {
	if c.Name != "" {
		return c.Name
	}
	return strings.TrimSpace(c.FirstName + " " + c.LastName)
}

// Group is a named set of contacts of one account.
type Group struct {
	ID           string
	AccountID    string
	Name         string
	Description  string
	ContactCount int32
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// What goes wrong with contacts and groups, whatever they are stored in.
var (
	ErrNoContact      = apierr.NotFound("contact")
	ErrNoGroup        = apierr.NotFound("contact group")
	ErrDuplicateGroup = apierr.New(errorv1.Reason_REASON_DUPLICATE_NAME, "a contact group with this name exists already")
	// ErrKeyRival: somebody took the address or id between the look and the write.
	ErrKeyRival = apierr.New(errorv1.Reason_REASON_CONFLICT, "another contact got this address at the same time")
)

// DuplicateEmail is the conflict with a contact that has the address already.
func DuplicateEmail(existingID string) *apierr.Error {
	return apierr.New(errorv1.Reason_REASON_DUPLICATE_EMAIL, "contact %s has this e-mail address already", existingID).WithMeta("existing_id", existingID)
}

// DuplicatePhone is the conflict with a contact that has the number already.
func DuplicatePhone(existingID string) *apierr.Error {
	return apierr.New(errorv1.Reason_REASON_DUPLICATE_PHONE, "contact %s has this phone number already", existingID).WithMeta("existing_id", existingID)
}

// DuplicateIdentifier is the conflict with a contact that has the id already: an
// external one, or the one on a platform.
func DuplicateIdentifier(existingID, which string) *apierr.Error {
	return apierr.New(errorv1.Reason_REASON_DUPLICATE_IDENTIFIER, "contact %s has this %s already", existingID, which).WithMeta("existing_id", existingID)
}
