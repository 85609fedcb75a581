// Package directory asks the account service, over gRPC, who may do what, who
// sends and who receives.
package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/services/messaging"
)

// Directory is a client of the account service. Its connection must carry the
// identity of a service.
type Directory struct {
	context    accountv1.InternalContextServiceClient
	recipients accountv1.RecipientServiceClient
}

var _ auth.ContextSource = (*Directory)(nil)

// New makes a directory over a connection to the account service.
func New(conn grpc.ClientConnInterface) *Directory {
	return &Directory{context: accountv1.NewInternalContextServiceClient(conn), recipients: accountv1.NewRecipientServiceClient(conn)}
}

// Context implements auth.ContextSource: what the owner of a token may do.
func (d *Directory) Context(ctx context.Context, claims auth.Claims) (auth.Caller, error) {
	resp, err := d.context.ResolveContext(ctx, &accountv1.ResolveContextRequest{Issuer: claims.Issuer, Subject: claims.Subject})
	if err != nil {
		return auth.Caller{}, err
	}
	caller := auth.Caller{UserID: resp.GetUserId(), APIKeyID: resp.GetApiKeyId(), EndedSessions: resp.GetEndedSessions()}
	if since := resp.GetSessionsSince(); since != nil {
		caller.SessionsSince = since.AsTime()
	}
	for _, m := range resp.GetMemberships() {
		caller.Memberships = append(caller.Memberships, auth.Membership{
			AccountID: m.GetAccountId(), AccountName: m.GetAccountName(), AccountStatus: m.GetAccountStatus(), RoleID: m.GetRoleId(), Permissions: m.GetPermissions(),
		})
	}
	return caller, nil
}

// Sender returns the names that templates may use. userID may be empty.
func (d *Directory) Sender(ctx context.Context, accountID, userID string) (accountName, senderName, senderEmail string, err error) {
	resp, err := d.context.GetSender(ctx, &accountv1.GetSenderRequest{AccountId: accountID, UserId: userID})
	if err != nil {
		return "", "", "", fmt.Errorf("ask for the sender: %w", err)
	}
	return resp.GetAccountName(), resp.GetSenderName(), resp.GetSenderEmail(), nil
}

// BlockedAccounts returns the accounts that must not send.
func (d *Directory) BlockedAccounts(ctx context.Context) ([]string, error) {
	resp, err := d.context.ListBlockedAccounts(ctx, &accountv1.ListBlockedAccountsRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask for blocked accounts: %w", err)
	}
	return resp.GetAccountIds(), nil
}

// CheckGroups answers NOT_FOUND unless all contact groups are the account's.
func (d *Directory) CheckGroups(ctx context.Context, accountID string, groupIDs []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := d.recipients.StreamRecipients(ctx, &accountv1.StreamRecipientsRequest{AccountId: accountID, ContactGroupIds: groupIDs, PageSize: 1})
	if err != nil {
		return fmt.Errorf("ask for recipients: %w", err)
	}
	_, err = stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil // no members yet
	}
	return err
}

// Recipients calls each with the members of the groups, in order of contact id
// and each once, from the one after cursor on, in stretches of up to size.
func (d *Directory) Recipients(ctx context.Context, accountID string, groupIDs []string, cursor string, size int32, each func([]messaging.Recipient) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := d.recipients.StreamRecipients(ctx, &accountv1.StreamRecipientsRequest{
		AccountId: accountID, ContactGroupIds: groupIDs, Cursor: cursor, PageSize: size,
	})
	if err != nil {
		return fmt.Errorf("ask for recipients: %w", err)
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive recipients: %w", err)
		}
		list := make([]messaging.Recipient, len(resp.GetRecipients()))
		for i, r := range resp.GetRecipients() {
			list[i] = toRecipient(r)
		}
		if err := each(list); err != nil {
			return err
		}
	}
}

func toRecipient(r *accountv1.Recipient) messaging.Recipient {
	out := messaging.Recipient{
		ContactID: r.GetContactId(), Name: r.GetName(), FirstName: r.GetFirstName(), LastName: r.GetLastName(), Email: r.GetEmail(), Phone: r.GetPhone(),
	}
	if n := len(r.GetMetadata().GetFields()); n > 0 {
		out.Attributes = make(map[string]string, n)
	}
	for key, v := range r.GetMetadata().GetFields() {
		if s, ok := text(v); ok {
			out.Attributes[messaging.VariableName(key)] = s
		}
	}
	return out
}

// text is a value of free data as it appears in a message; lists and objects
// do not.
func text(v *structpb.Value) (string, bool) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return k.StringValue, true
	case *structpb.Value_NumberValue, *structpb.Value_BoolValue:
		raw, err := v.MarshalJSON()
		return string(raw), err == nil
	}
	return "", false
}

// Keys is the key set of the account service's identity provider, asked for over
// gRPC within limit.
func Keys(conn grpc.ClientConnInterface, limit time.Duration) auth.JWKSSource {
	client := accountv1.NewAuthServiceClient(conn)
	return func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		resp, err := client.GetJwks(ctx, &accountv1.GetJwksRequest{})
		if err != nil {
			return nil, fmt.Errorf("ask for the keys of tokens: %w", err)
		}
		return protojson.MarshalOptions{UseProtoNames: true}.Marshal(resp)
	}
}
