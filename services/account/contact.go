package account

import (
	"encoding/json"
	"fmt"
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
	ID        string          `json:"-"`
	AccountID string          `json:"-"`
	Name      string          `json:"name,omitempty"`
	FirstName string          `json:"first_name,omitempty"`
	LastName  string          `json:"last_name,omitempty"`
	Email     string          `json:"email,omitempty"`
	Phone     string          `json:"phone,omitempty"`
	Tags      []string        `json:"tags,omitempty"`
	Language  string          `json:"language,omitempty"`
	Timezone  string          `json:"timezone,omitempty"`
	Metadata  json.RawMessage `json:"metadata,omitempty"`
	// ExternalID is the contact's id in the organisation's own system.
	ExternalID           string `json:"external_id,omitempty"`
	PreferredChannelType string `json:"preferred_channel_type,omitempty"`
	// Identifiers are the contact's ids on platforms, by channel type.
	Identifiers map[string]string `json:"identifiers,omitempty"`
	CreatedAt   time.Time         `json:"-"`
	UpdatedAt   time.Time         `json:"-"`
}

// Document is the contact as it is stored: with the name that people see, which may
// be empty and is always there, so that lists can search and sort by it.
func (c *Contact) Document() ([]byte, error) {
	return json.Marshal(struct {
		*Contact
		Display string `json:"display"`
	}{c, c.DisplayName()})
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

// Normalise brings a contact into the form that is stored, and refuses what
// cannot be: somebody without a name and an address is nobody. country is that of
// phone numbers without a leading +.
func (c *Contact) Normalise(country string) error {
	phone, err := normalPhone(c.Phone, country)
	if err != nil {
		return err
	}
	c.Phone, c.ExternalID = phone, strings.TrimSpace(c.ExternalID)
	c.Email = NormalEmail(c.Email)
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
