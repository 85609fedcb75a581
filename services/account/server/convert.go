package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/bounds"
	account "github.com/turumba/turumba/services/account"
)

func mapAll[F, T any](in []F, convert func(F) T) []T {
	out := make([]T, len(in))
	for i, v := range in {
		out[i] = convert(v)
	}
	return out
}

func stamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

func stampOrNil(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

func timeOrNil(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}

func toProtoUser(u *account.User) *accountv1.User {
	return &accountv1.User{
		Id: u.ID, Email: u.Email, GivenName: u.GivenName, FamilyName: u.FamilyName, Phone: u.Phone,
		IdpSubject: u.IdpSubject, IsActive: u.IsActive, CreatedAt: stamp(u.CreatedAt), UpdatedAt: stamp(u.UpdatedAt),
	}
}

func toProtoAccount(a *account.Account) *accountv1.Account {
	return &accountv1.Account{
		Id: a.ID, Name: a.Name, Status: toProtoStatus(a.Status), Description: a.Description, DefaultCountry: a.DefaultCountry,
		MessageRetentionDays: a.MessageRetentionDays, CreatedAt: stamp(a.CreatedAt), UpdatedAt: stamp(a.UpdatedAt),
	}
}

func toProtoStatus(s account.Status) accountv1.AccountStatus {
	switch s {
	case account.StatusActive:
		return accountv1.AccountStatus_ACCOUNT_STATUS_ACTIVE
	case account.StatusSuspended:
		return accountv1.AccountStatus_ACCOUNT_STATUS_SUSPENDED
	case account.StatusClosed:
		return accountv1.AccountStatus_ACCOUNT_STATUS_CLOSED
	}
	return accountv1.AccountStatus_ACCOUNT_STATUS_UNSPECIFIED
}

func toProtoRole(r *account.Role) *accountv1.Role {
	return &accountv1.Role{
		Id: r.ID, AccountId: r.AccountID, Name: r.Name, Permissions: r.Permissions,
		CreatedAt: stamp(r.CreatedAt), UpdatedAt: stamp(r.UpdatedAt),
	}
}

func toProtoMembership(m *account.Membership) *accountv1.Membership {
	return &accountv1.Membership{
		Id: m.ID, AccountId: m.AccountID, UserId: m.UserID, RoleId: m.RoleID, Email: m.Email,
		GivenName: m.GivenName, FamilyName: m.FamilyName, RoleName: m.RoleName, CreatedAt: stamp(m.CreatedAt),
	}
}

func toProtoGroup(g *account.Group) *accountv1.ContactGroup {
	return &accountv1.ContactGroup{
		Id: g.ID, AccountId: g.AccountID, Name: g.Name, Description: g.Description, ContactCount: g.ContactCount,
		CreatedAt: stamp(g.CreatedAt), UpdatedAt: stamp(g.UpdatedAt),
	}
}

func toProtoContact(c *account.Contact) *accountv1.Contact {
	return &accountv1.Contact{
		Id: c.ID, AccountId: c.AccountID, Name: c.DisplayName(), FirstName: c.FirstName, LastName: c.LastName, Email: c.Email, Phone: c.Phone,
		Tags: c.Tags, Language: c.Language, Timezone: c.Timezone, Metadata: toStruct(c.Metadata),
		ExternalId: c.ExternalID, PreferredChannelType: c.PreferredChannelType, Identifiers: c.Identifiers,
		DuplicateOfId: c.DuplicateOfID, CreatedAt: stamp(c.CreatedAt), UpdatedAt: stamp(c.UpdatedAt),
	}
}

func toProtoRecipient(c *account.Contact) *accountv1.Recipient {
	return &accountv1.Recipient{
		ContactId: c.ID, Name: c.DisplayName(), FirstName: c.FirstName, LastName: c.LastName, Email: c.Email, Phone: c.Phone,
		Language: c.Language, Timezone: c.Timezone, Metadata: toStruct(c.Metadata),
	}
}

// toStruct reads stored free data; what we stored is always an object. What was stored
// before nesting had a limit is left out where it is beyond: it would make every answer
// unreadable that it is in.
func toStruct(raw json.RawMessage) *structpb.Struct {
	if len(raw) == 0 || bounds.TooDeep(raw) {
		return nil
	}
	s := &structpb.Struct{}
	if err := s.UnmarshalJSON(raw); err != nil {
		return nil
	}
	return s
}

// contactInput is what contact requests have in common.
type contactInput interface {
	GetName() string
	GetFirstName() string
	GetLastName() string
	GetEmail() string
	GetPhone() string
	GetTags() []string
	GetLanguage() string
	GetTimezone() string
	GetMetadata() *structpb.Struct
	GetExternalId() string
	GetPreferredChannelType() string
	GetIdentifiers() map[string]string
}

var contactFields = []string{
	"name", "first_name", "last_name", "email", "phone", "tags", "language", "timezone", "metadata", "external_id", "preferred_channel_type", "identifiers",
}

func fromProtoContact(in contactInput, country string) (*account.Contact, error) {
	c := &account.Contact{}
	return c, applyContact(c, nil, in, contactFields, country)
}

// applyContact sets the named fields; "metadata.key" sets one key of the free
// data, or removes it when it is absent. country is that of phone numbers without a
// leading +; stored is the contact before the change, nil for a new one.
func applyContact(c, stored *account.Contact, in contactInput, paths []string, country string) error {
	for _, path := range paths {
		field, key, inner := strings.Cut(path, ".")
		switch field {
		case "name":
			c.Name = in.GetName()
		case "first_name":
			c.FirstName = in.GetFirstName()
		case "last_name":
			c.LastName = in.GetLastName()
		case "email":
			c.Email = in.GetEmail()
		case "phone":
			c.Phone = in.GetPhone()
		case "tags":
			c.Tags = in.GetTags()
		case "language":
			c.Language = in.GetLanguage()
		case "timezone":
			c.Timezone = in.GetTimezone()
		case "external_id":
			c.ExternalID = in.GetExternalId()
		case "preferred_channel_type":
			c.PreferredChannelType = in.GetPreferredChannelType()
		case "identifiers":
			c.Identifiers = in.GetIdentifiers()
		case "metadata":
			if !inner {
				key = ""
			}
			if err := applyMetadata(c, in.GetMetadata(), key); err != nil {
				return err
			}
		}
	}
	return c.Normalise(country, stored)
}

func applyMetadata(c *account.Contact, in *structpb.Struct, key string) error {
	if key != "" {
		key, _, _ = strings.Cut(key, ".")
		merged := toStruct(c.Metadata)
		if merged == nil {
			merged = &structpb.Struct{}
		}
		if merged.Fields == nil {
			merged.Fields = map[string]*structpb.Value{}
		}
		if v, ok := in.GetFields()[key]; ok {
			merged.Fields[key] = v
		} else {
			delete(merged.Fields, key)
		}
		in = merged
	}
	if len(in.GetFields()) == 0 {
		c.Metadata = nil
		return nil
	}
	raw, err := protojson.Marshal(in)
	if err != nil {
		return fmt.Errorf("write metadata: %w", err)
	}
	c.Metadata = raw
	return nil
}
