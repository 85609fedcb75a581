package account

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// MaxMetadata is the most bytes of a contact's free data, as JSON.
const MaxMetadata = 32 << 10

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
	CreatedAt time.Time       `json:"-"`
	UpdatedAt time.Time       `json:"-"`
}

// Normalise brings a contact into the form that is stored, and refuses what
// cannot be: somebody without a name and an address is nobody.
func (c *Contact) Normalise() error {
	c.Email = NormalEmail(c.Email)
	c.FirstName, c.LastName = strings.TrimSpace(c.FirstName), strings.TrimSpace(c.LastName)
	c.Name = strings.TrimSpace(c.Name)
	slices.Sort(c.Tags)
	c.Tags = slices.Compact(c.Tags)
	if c.Name == "" && c.FirstName == "" && c.LastName == "" && c.Email == "" && c.Phone == "" {
		return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").
			WithFields(apierr.Field{Field: "name", Message: "a contact needs a name, an e-mail address or a phone number"})
	}
	if len(c.Metadata) > MaxMetadata {
		return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").
			WithFields(apierr.Field{Field: "metadata", Message: "is larger than 32 KiB"})
	}
	if c.Timezone != "" {
		if _, err := time.LoadLocation(c.Timezone); err != nil || c.Timezone == "Local" {
			return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").
				WithFields(apierr.Field{Field: "timezone", Message: "is not an IANA time zone, for example Africa/Addis_Ababa"})
		}
	}
	return nil
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

// DuplicateEmail is the conflict with a contact that has the address already.
func DuplicateEmail(existingID string) *apierr.Error {
	return apierr.New(errorv1.Reason_REASON_DUPLICATE_EMAIL, "contact %s has this e-mail address already", existingID).WithMeta("existing_id", existingID)
}

// DuplicatePhone is the conflict with a contact that has the number already.
func DuplicatePhone(existingID string) *apierr.Error {
	return apierr.New(errorv1.Reason_REASON_DUPLICATE_PHONE, "contact %s has this phone number already", existingID).WithMeta("existing_id", existingID)
}
