package server

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

// Contacts is where contacts and their groups are: PostgreSQL, or MongoDB (decision
// B8). One suite holds both to the same answers (storetest).
type Contacts interface {
	ContactStore
	GroupStore
	MemberStore
}

// ContactStore has the contacts. Every method sees only the scope.
type ContactStore interface {
	CreateContacts(ctx context.Context, accountID string, list []*account.Contact, respond func(errs []error) (proto.Message, error)) error
	Contact(ctx context.Context, scope []string, id string) (*account.Contact, error)
	Contacts(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.Contact], error)
	UpdateContact(ctx context.Context, scope []string, id string, change func(*account.Contact) error) (*account.Contact, error)
	DeleteContact(ctx context.Context, scope []string, id string) error
}

// GroupStore has the contact groups.
type GroupStore interface {
	CreateGroup(ctx context.Context, g *account.Group, respond func() proto.Message) error
	Group(ctx context.Context, scope []string, id string) (*account.Group, error)
	Groups(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.Group], error)
	UpdateGroup(ctx context.Context, scope []string, id string, change func(*account.Group)) (*account.Group, error)
	DeleteGroup(ctx context.Context, scope []string, id string) error
}

// MemberStore knows which contacts are in which groups.
type MemberStore interface {
	CheckGroups(ctx context.Context, accountID string, ids []string) error
	AddContacts(ctx context.Context, scope []string, groupID string, contactIDs []string) (int32, error)
	RemoveContact(ctx context.Context, scope []string, groupID, contactID string) error
	GroupContacts(ctx context.Context, scope []string, groupID string, r query.Request) (*query.Page[*account.Contact], error)
	CountMembers(ctx context.Context, accountID string, groupIDs []string, most int) (int64, error)
	Recipients(ctx context.Context, accountID string, groupIDs []string, cursor string, limit int) ([]*account.Contact, error)
}
