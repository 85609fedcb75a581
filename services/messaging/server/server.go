// Package server answers the RPCs of the messaging service: one file per noun,
// each method a transaction script between the contract and the store.
package server

import (
	"context"

	"google.golang.org/grpc"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/streams"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// Directory is what the account service tells about recipients and senders.
type Directory interface {
	// CheckGroups answers NOT_FOUND unless all contact groups are the account's.
	CheckGroups(ctx context.Context, accountID string, groupIDs []string) error
	// Contacts returns the account's contacts of these ids that the caller may read,
	// by id.
	Contacts(ctx context.Context, accountID string, ids, variables []string) (map[string]messaging.Recipient, error)
	// CountMembers is how many members the groups have, counted up to most.
	CountMembers(ctx context.Context, accountID string, groupIDs []string, most int64) (int64, error)
	// ContactCount is how many contacts the account has.
	ContactCount(ctx context.Context, accountID string) (int64, error)
	// Recipients calls each with the members of the groups, ascending and each once, from
	// the one after cursor on.
	Recipients(ctx context.Context, accountID string, groupIDs []string, cursor string, size int32, each func([]messaging.Recipient) error) error
	// Sender returns the names that templates may use.
	Sender(ctx context.Context, accountID, userID string) (accountName, senderName, senderEmail string, err error)
}

// Config is what the server needs.
type Config struct {
	Store     *postgres.Store
	Vault     *vault.Vault
	Adapters  channel.Adapters
	Directory Directory
	Clock     clock.Clock
	// Unsubscriber makes and reads the links in mails.
	Unsubscriber *messaging.Unsubscriber
}

// Server implements the services of turumba.messaging.v1.
type Server struct {
	messagingv1.UnimplementedChannelServiceServer
	messagingv1.UnimplementedTemplateServiceServer
	messagingv1.UnimplementedGroupMessageServiceServer
	messagingv1.UnimplementedMessageServiceServer
	messagingv1.UnimplementedSuppressionServiceServer
	messagingv1.UnimplementedQuotaServiceServer
	messagingv1.UnimplementedMessageErasureServiceServer

	store     *postgres.Store
	vault     *vault.Vault
	adapters  channel.Adapters
	directory Directory
	clock     clock.Clock

	unsubscriber *messaging.Unsubscriber
	sends        *streams.Watcher[*messagingv1.WatchGroupMessageResponse]
}

// Register adds the services to r.
func Register(r grpc.ServiceRegistrar, cfg Config) {
	s := &Server{store: cfg.Store, vault: cfg.Vault, adapters: cfg.Adapters, directory: cfg.Directory, clock: cfg.Clock, unsubscriber: cfg.Unsubscriber, sends: watchSends(cfg.Store, cfg.Clock)}
	messagingv1.RegisterChannelServiceServer(r, s)
	messagingv1.RegisterTemplateServiceServer(r, s)
	messagingv1.RegisterGroupMessageServiceServer(r, s)
	messagingv1.RegisterMessageServiceServer(r, s)
	messagingv1.RegisterSuppressionServiceServer(r, s)
	messagingv1.RegisterQuotaServiceServer(r, s)
	messagingv1.RegisterMessageErasureServiceServer(r, s)
}
