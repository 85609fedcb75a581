// Package account is the domain of the account service: accounts, users, roles,
// memberships, contacts and their groups, and the rules between them. It does no
// I/O.
package account

import (
	"strings"
	"time"

	"github.com/google/uuid"
)

// NewID returns a new UUIDv7.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// Status is the state of an account.
type Status string

// The states of an account. A suspended one reads and cannot send; a closed one
// reads only.
const (
	StatusActive    Status = "active"
	StatusSuspended Status = "suspended"
	StatusClosed    Status = "closed"
)

// Account is a tenant: one organisation.
type Account struct {
	ID             string
	Name           string
	Status         Status
	StatusReason   string // why an operator suspended it
	Description    string
	DefaultCountry string // ISO 3166-1 alpha-2, empty for none
	Quotas         Quotas // its own
	// MessageRetentionDays is how long texts of messages are kept after their end; nil:
	// as long as the installation does.
	MessageRetentionDays *int32
	CreatedAt            time.Time
	UpdatedAt            time.Time
}

// MessageRetention is for how many days the texts of an account's messages are kept
// after their end; 0 for ever.
type MessageRetention struct {
	AccountID string `db:"id"`
	Days      int32
}

// User is a human with a login.
type User struct {
	ID         string
	Email      string
	GivenName  string
	FamilyName string
	Phone      string
	IdpIssuer  string
	IdpSubject string
	IsActive   bool
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// FullName is the given and the family name.
func (u User) FullName() string { return strings.TrimSpace(u.GivenName + " " + u.FamilyName) }

// SplitName splits a full name at its last space.
func SplitName(full string) (given, family string) {
	full = strings.Join(strings.Fields(full), " ")
	i := strings.LastIndexByte(full, ' ')
	if i < 0 {
		return full, ""
	}
	return full[:i], full[i+1:]
}

// NormalEmail is the form in which addresses are compared and stored.
func NormalEmail(s string) string { return strings.ToLower(strings.TrimSpace(s)) }
