// Package directory asks the account service, over gRPC, who may do what, who
// sends and who receives.
package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/services/messaging"
)

// Directory is a client of the account service. Its connection must carry the
// identity of a service.
type Directory struct {
	contacts   accountv1.ContactServiceClient
	context    accountv1.InternalContextServiceClient
	recipients accountv1.RecipientServiceClient
}

var _ auth.ContextSource = (*Directory)(nil)

// New makes a directory over a connection to the account service.
func New(conn grpc.ClientConnInterface) *Directory {
	return &Directory{
		contacts: accountv1.NewContactServiceClient(conn), context: accountv1.NewInternalContextServiceClient(conn),
		recipients: accountv1.NewRecipientServiceClient(conn),
	}
}

// Context implements auth.ContextSource: what the owner of a token may do.
func (d *Directory) Context(ctx context.Context, claims auth.Claims) (auth.Caller, error) {
	resp, err := d.context.ResolveContext(ctx, &accountv1.ResolveContextRequest{Issuer: claims.Issuer, Subject: claims.Subject})
	if err != nil {
		return auth.Caller{}, err
	}
	caller := auth.Caller{
		UserID: resp.GetUserId(), APIKeyID: resp.GetApiKeyId(), EndedSessions: resp.GetEndedSessions(),
		CredentialEpoch: resp.GetCredentialEpoch(), KeptSessions: resp.GetKeptSessions(),
	}
	if since := resp.GetSessionsSince(); since != nil {
		caller.SessionsSince = since.AsTime()
	}
	for _, m := range resp.GetMemberships() {
		caller.Memberships = append(caller.Memberships, auth.Membership{
			AccountID: m.GetAccountId(), AccountName: m.GetAccountName(), AccountStatus: m.GetAccountStatus(), RoleID: m.GetRoleId(), Permissions: m.GetPermissions(),
			Quotas: quotas(m.GetQuotas()),
		})
	}
	return caller, nil
}

// Sender returns the names that templates may use. userID may be empty, and a user who
// is gone has no names.
func (d *Directory) Sender(ctx context.Context, accountID, userID string) (accountName, senderName, senderEmail string, err error) {
	resp, err := d.context.GetSender(ctx, &accountv1.GetSenderRequest{AccountId: accountID, UserId: userID})
	if userID != "" && apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		resp, err = d.context.GetSender(ctx, &accountv1.GetSenderRequest{AccountId: accountID})
	}
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

// MessageRetention returns for how many days accounts keep the texts of messages, by
// account; those that keep them for ever are left out.
func (d *Directory) MessageRetention(ctx context.Context) (map[string]int32, error) {
	days, req := map[string]int32{}, &accountv1.ListMessageRetentionRequest{AfterAccountId: uuid.Nil.String()}
	for {
		resp, err := d.context.ListMessageRetention(ctx, req)
		if err != nil {
			return nil, fmt.Errorf("ask for the retention of messages: %w", err)
		}
		for _, a := range resp.GetAccounts() {
			days[a.GetAccountId()] = a.GetDays()
		}
		if req.AfterAccountId = resp.GetNextAfterAccountId(); req.AfterAccountId == "" {
			return days, nil
		}
	}
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
// and each once, from the one after cursor on, in stretches of up to size, which are
// each's until it returns.
func (d *Directory) Recipients(ctx context.Context, accountID string, groupIDs []string, cursor string, size int32, each func([]messaging.Recipient) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := d.recipients.StreamRecipients(ctx, &accountv1.StreamRecipientsRequest{
		AccountId: accountID, ContactGroupIds: groupIDs, Cursor: cursor, PageSize: size,
	})
	if err != nil {
		return fmt.Errorf("ask for recipients: %w", err)
	}
	var list []messaging.Recipient
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive recipients: %w", err)
		}
		list = list[:0]
		for _, r := range resp.GetRecipients() {
			list = append(list, toRecipient(r))
		}
		if err := each(list); err != nil {
			return err
		}
	}
}

// CountMembers is how many members the groups have, each once, counted up to most.
func (d *Directory) CountMembers(ctx context.Context, accountID string, groupIDs []string, most int64) (int64, error) {
	resp, err := d.recipients.CountRecipients(ctx, &accountv1.CountRecipientsRequest{
		AccountId: accountID, ContactGroupIds: groupIDs, Most: int32(min(most, math.MaxInt32)),
	})
	if err != nil {
		return 0, fmt.Errorf("count recipients: %w", err)
	}
	return int64(resp.GetCount()), nil
}

// ContactCount is how many contacts the account has.
func (d *Directory) ContactCount(ctx context.Context, accountID string) (int64, error) {
	return d.CountMembers(ctx, accountID, nil, math.MaxInt32)
}

// quotas are limits by their names.
func quotas(q *accountv1.Quotas) messaging.Quotas {
	return messaging.Quotas{
		messaging.QuotaMessages: int64(q.GetMessagesPerDay()), messaging.QuotaRecipients: int64(q.GetRecipientsPerCampaign()),
		messaging.QuotaContacts: int64(q.GetContacts()), messaging.QuotaChannels: int64(q.GetChannels()),
	}
}

// contactsPerCall is how many ids fit into one filter.
const contactsPerCall = 100

// Contacts returns the account's contacts of these ids, by id, with those of their
// attributes that are named; the others are left out. The account service is asked as the caller of ctx, by the caller's own token:
// who may not read a contact cannot learn its address by writing to it.
func (d *Directory) Contacts(ctx context.Context, accountID string, ids, variables []string) (map[string]messaging.Recipient, error) {
	out := make(map[string]messaging.Recipient, len(ids))
	md, _ := metadata.FromIncomingContext(ctx)
	for part := range slices.Chunk(ids, contactsPerCall) {
		as := metadata.NewOutgoingContext(ctx, metadata.MD{"authorization": md.Get("authorization")})
		req := &accountv1.ListContactsRequest{
			Filter: []string{"account_id:eq:" + accountID, "id:in:" + strings.Join(part, ",")}, Limit: contactsPerCall,
		}
		for more := true; more; more = req.PageToken != "" {
			resp, err := d.contacts.ListContacts(as, req)
			if apierr.HasReason(err, errorv1.Reason_REASON_PERMISSION_DENIED) {
				return out, nil
			}
			if err != nil {
				return nil, fmt.Errorf("ask for contacts: %w", err)
			}
			for _, c := range resp.GetData() {
				out[c.GetId()] = fromContact(c, variables)
			}
			req.PageToken = resp.GetMeta().GetNextPageToken()
		}
	}
	return out, nil
}

// fromContact is a contact with some of its attributes, and those that are addresses: all of
// a thousand contacts would be 64 MiB.
func fromContact(c *accountv1.Contact, variables []string) messaging.Recipient {
	all := attributes(c.GetMetadata())
	maps.DeleteFunc(all, func(name, _ string) bool { return !messaging.IsAddress(name) && !slices.Contains(variables, name) })
	return messaging.Recipient{
		ContactID: c.GetId(), Name: c.GetName(), FirstName: c.GetFirstName(), LastName: c.GetLastName(), Email: c.GetEmail(), Phone: c.GetPhone(),
		Attributes: all,
	}
}

func toRecipient(r *accountv1.Recipient) messaging.Recipient {
	return messaging.Recipient{
		ContactID: r.GetContactId(), Name: r.GetName(), FirstName: r.GetFirstName(), LastName: r.GetLastName(), Email: r.GetEmail(), Phone: r.GetPhone(),
		Attributes: attributes(r.GetMetadata()),
	}
}

// attributes are free data by variable name; nil for none.
func attributes(in *structpb.Struct) map[string]string {
	if len(in.GetFields()) == 0 {
		return nil
	}
	out := make(map[string]string, len(in.GetFields()))
	for key, v := range in.GetFields() {
		if s, ok := text(v); ok {
			out[messaging.VariableName(key)] = s
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
