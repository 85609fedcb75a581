// Package server answers the RPCs of the account service: one file per noun,
// each method a transaction script between the contract and the store.
package server

import (
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/streams"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/postgres"
)

// Config is what the server needs.
type Config struct {
	Store    *postgres.Store
	Contacts Contacts
	Identity Identity
	// Keys sign the tokens of API keys.
	Keys *identity.Keys
	// Devices are known again by their tokens.
	Devices identity.Devices
	// Mail takes invitations.
	Mail *identity.Postbox
	// PublicURL is where the gateway is reached, for the discovery document.
	PublicURL string
	Clock     clock.Clock
	// MessageRetentionDays is how long texts of messages are kept where an account says
	// nothing; 0 for ever.
	MessageRetentionDays int32
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
	identity  Identity
	keys      *identity.Keys
	devices   identity.Devices
	limits    identity.Limits
	mail      *identity.Postbox
	clock     clock.Clock
	publicURL string
	retention int32 // of messages, in days, where an account says nothing
	changed   func()
	watched   *streams.Watcher[*accountv1.WatchContactImportResponse]
	pages     *semaphore.Weighted // of exports that are being read
}

// Register adds the services to r.
func Register(r grpc.ServiceRegistrar, cfg Config) {
	s := &Server{store: cfg.Store, contacts: cfg.Contacts, identity: cfg.Identity, keys: cfg.Keys, devices: cfg.Devices, limits: identity.Limits{Store: cfg.Store}, mail: cfg.Mail, clock: cfg.Clock, publicURL: cfg.PublicURL, retention: cfg.MessageRetentionDays, changed: cfg.Changed, watched: watchImports(cfg.Store, cfg.Clock), pages: semaphore.NewWeighted(pagesAtOnce)}
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
