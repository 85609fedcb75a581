// Package server answers the RPCs of the account service: one file per noun,
// each method a transaction script between the contract and the store.
package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity/local"
	"github.com/turumba/turumba/services/account/postgres"
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
	Recipients(ctx context.Context, accountID string, groupIDs []string, cursor string, limit int) ([]*account.Contact, error)
}

// Config is what the server needs.
type Config struct {
	Store    *postgres.Store
	Contacts Contacts
	Identity *local.Provider
	// PublicURL is where the gateway is reached, for the discovery document.
	PublicURL string
	Clock     clock.Clock
	// Uploaded is called when a file is complete that can be imported.
	Uploaded func()
	// Changed is called after a change of memberships, to drop cached contexts.
	Changed func()
}

// Server implements the services of turumba.account.v1.
type Server struct {
	accountv1.UnimplementedAuthServiceServer
	accountv1.UnimplementedContextServiceServer
	accountv1.UnimplementedInternalContextServiceServer
	accountv1.UnimplementedApiKeyServiceServer
	accountv1.UnimplementedInvitationServiceServer
	accountv1.UnimplementedAuditEventServiceServer
	accountv1.UnimplementedOperatorServiceServer
	accountv1.UnimplementedUserServiceServer
	accountv1.UnimplementedAccountServiceServer
	accountv1.UnimplementedRoleServiceServer
	accountv1.UnimplementedMembershipServiceServer
	accountv1.UnimplementedContactServiceServer
	accountv1.UnimplementedContactImportServiceServer
	accountv1.UnimplementedContactGroupServiceServer
	accountv1.UnimplementedRecipientServiceServer

	store     *postgres.Store
	contacts  Contacts
	identity  *local.Provider
	clock     clock.Clock
	publicURL string
	uploaded  func()
	changed   func()
}

// Register adds the services to r.
func Register(r grpc.ServiceRegistrar, cfg Config) {
	s := &Server{store: cfg.Store, contacts: cfg.Contacts, identity: cfg.Identity, clock: cfg.Clock, publicURL: cfg.PublicURL, uploaded: cfg.Uploaded, changed: cfg.Changed}
	accountv1.RegisterAuthServiceServer(r, s)
	accountv1.RegisterContextServiceServer(r, s)
	accountv1.RegisterInternalContextServiceServer(r, s)
	accountv1.RegisterApiKeyServiceServer(r, s)
	accountv1.RegisterInvitationServiceServer(r, s)
	accountv1.RegisterAuditEventServiceServer(r, s)
	accountv1.RegisterOperatorServiceServer(r, s)
	accountv1.RegisterUserServiceServer(r, s)
	accountv1.RegisterAccountServiceServer(r, s)
	accountv1.RegisterRoleServiceServer(r, s)
	accountv1.RegisterMembershipServiceServer(r, s)
	accountv1.RegisterContactServiceServer(r, s)
	accountv1.RegisterContactImportServiceServer(r, s)
	accountv1.RegisterContactGroupServiceServer(r, s)
	accountv1.RegisterRecipientServiceServer(r, s)
}
