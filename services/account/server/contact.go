package server

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/kit/rules"
	account "github.com/turumba/turumba/services/account"
)

// CreateContact implements accountv1.ContactServiceServer.
func (s *Server) CreateContact(ctx context.Context, req *accountv1.CreateContactRequest) (*accountv1.CreateContactResponse, error) {
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), auth.From(ctx))
	if err != nil {
		return nil, err
	}
	country, err := s.country(ctx, accountID, req)
	if err != nil {
		return nil, err
	}
	c, err := fromProtoContact(req, country)
	if err != nil {
		return nil, err
	}
	resp := &accountv1.CreateContactResponse{}
	err = s.contacts.CreateContacts(ctx, accountID, []*account.Contact{c}, func(errs []error) (proto.Message, error) {
		resp.Contact = toProtoContact(c)
		return resp, errs[0]
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// country is the account's, if one of the contacts has a phone number that cannot
// be read without.
func (s *Server) country(ctx context.Context, accountID string, inputs ...contactInput) (string, error) {
	if !slices.ContainsFunc(inputs, func(in contactInput) bool { return account.NeedsCountry(in.GetPhone()) }) {
		return "", nil
	}
	a, err := s.store.Account(ctx, []string{accountID}, accountID)
	if err != nil {
		return "", err
	}
	return a.DefaultCountry, nil
}

// BatchCreateContacts implements accountv1.ContactServiceServer.
func (s *Server) BatchCreateContacts(ctx context.Context, req *accountv1.BatchCreateContactsRequest) (*accountv1.BatchCreateContactsResponse, error) {
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), auth.From(ctx))
	if err != nil {
		return nil, err
	}
	resp := &accountv1.BatchCreateContactsResponse{Results: make([]*accountv1.BatchCreateContactsResult, len(req.GetContacts()))}
	good := validItems(req.GetContacts(), resp)
	country, err := s.country(ctx, accountID, mapAll(good, func(i int) contactInput { return req.GetContacts()[i] })...)
	if err != nil {
		return nil, err
	}
	batch := newBatch(req.GetContacts(), good, country, resp)
	err = s.contacts.CreateContacts(ctx, accountID, batch.contacts, func(errs []error) (proto.Message, error) {
		for i, c := range batch.contacts {
			resp.Results[batch.at[i]] = batchResult(c, errs[i])
		}
		return resp, nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// batch is the good items of a batch create and where they stand in it.
type batch struct {
	contacts []*account.Contact
	at       []int
}

// validItems are the places of the items that keep to the rules of the contract; others have
// their result at once.
func validItems(items []*accountv1.ContactInput, resp *accountv1.BatchCreateContactsResponse) (good []int) {
	for i, item := range items {
		if err := rules.Check(item); err != nil {
			resp.Results[i] = batchResult(nil, err)
			continue
		}
		good = append(good, i)
	}
	return good
}

// newBatch converts the good items; those that cannot be stored have their result at once.
func newBatch(items []*accountv1.ContactInput, good []int, country string, resp *accountv1.BatchCreateContactsResponse) (b batch) {
	for _, i := range good {
		c, err := fromProtoContact(items[i], country)
		if err != nil {
			resp.Results[i] = batchResult(nil, err)
			continue
		}
		b.contacts, b.at = append(b.contacts, c), append(b.at, i)
	}
	return b
}

func batchResult(c *account.Contact, err error) *accountv1.BatchCreateContactsResult {
	if err == nil {
		return &accountv1.BatchCreateContactsResult{Contact: toProtoContact(c)}
	}
	e := apierr.From(err)
	return &accountv1.BatchCreateContactsResult{Code: apierr.Name(e.Reason), Detail: rules.Detail(err), ExistingId: e.Meta["existing_id"]}
}

// GetContact implements accountv1.ContactServiceServer.
func (s *Server) GetContact(ctx context.Context, req *accountv1.GetContactRequest) (*accountv1.GetContactResponse, error) {
	c, err := s.contacts.Contact(ctx, auth.ScopeFrom(ctx), req.GetContactId())
	if err != nil {
		return nil, err
	}
	return &accountv1.GetContactResponse{Contact: toProtoContact(c)}, nil
}

// ListContacts implements accountv1.ContactServiceServer.
func (s *Server) ListContacts(ctx context.Context, req *accountv1.ListContactsRequest) (*accountv1.ListContactsResponse, error) {
	scope, request := auth.ScopeFrom(ctx), query.RequestOf(req)
	var err error
	if request.Region, err = s.dialled(ctx, scope, request.Filters); err != nil {
		return nil, err
	}
	page, err := s.contacts.Contacts(ctx, scope, request)
	if err != nil {
		return nil, err
	}
	return &accountv1.ListContactsResponse{Data: mapAll(page.Data, toProtoContact), Meta: page.Meta}, nil
}

// dialled is where numbers of the filters without a leading + are dialled: the country of the
// account, where all of the scope is one.
func (s *Server) dialled(ctx context.Context, scope auth.Scope, filters []string) (region string, err error) {
	local := slices.ContainsFunc(filters, func(f string) bool {
		value, ok := strings.CutPrefix(f, "phone:")
		_, number, _ := strings.Cut(value, ":")
		return ok && account.NeedsCountry(number)
	})
	if !local || len(scope) != 1 {
		return "", nil
	}
	a, err := s.store.Account(ctx, scope, scope[0])
	if err != nil {
		return "", err
	}
	return a.DefaultCountry, nil
}

// UpdateContact implements accountv1.ContactServiceServer.
func (s *Server) UpdateContact(ctx context.Context, req *accountv1.UpdateContactRequest) (*accountv1.UpdateContactResponse, error) {
	country := ""
	if account.NeedsCountry(req.GetContact().GetPhone()) {
		c, err := s.contacts.Contact(ctx, auth.ScopeFrom(ctx), req.GetContactId())
		if err != nil {
			return nil, err
		}
		if country, err = s.country(ctx, c.AccountID, req.GetContact()); err != nil {
			return nil, err
		}
	}
	c, err := s.contacts.UpdateContact(ctx, auth.ScopeFrom(ctx), req.GetContactId(), func(c *account.Contact) error {
		stored := *c
		return applyContact(c, &stored, req.GetContact(), req.GetUpdateMask().GetPaths(), country)
	})
	if err != nil {
		return nil, err
	}
	return &accountv1.UpdateContactResponse{Contact: toProtoContact(c)}, nil
}

// DeleteContact implements accountv1.ContactServiceServer.
func (s *Server) DeleteContact(ctx context.Context, req *accountv1.DeleteContactRequest) (*accountv1.DeleteContactResponse, error) {
	if err := s.contacts.DeleteContact(ctx, auth.ScopeFrom(ctx), req.GetContactId()); err != nil {
		return nil, err
	}
	return &accountv1.DeleteContactResponse{}, nil
}

// CountRecipients implements accountv1.RecipientServiceServer.
func (s *Server) CountRecipients(ctx context.Context, req *accountv1.CountRecipientsRequest) (*accountv1.CountRecipientsResponse, error) {
	var n int64
	var err error
	if ids := req.GetContactGroupIds(); len(ids) > 0 {
		n, err = s.contacts.CountMembers(ctx, req.GetAccountId(), ids, int(req.GetMost()))
	} else {
		n, err = s.store.ContactCount(ctx, req.GetAccountId())
	}
	if err != nil {
		return nil, err
	}
	return &accountv1.CountRecipientsResponse{Count: int32(min(max(n, 0), math.MaxInt32))}, nil
}

// defaultPage is how many recipients one message of the stream holds.
const defaultPage = 500

// StreamRecipients implements accountv1.RecipientServiceServer.
func (s *Server) StreamRecipients(req *accountv1.StreamRecipientsRequest, stream grpc.ServerStreamingServer[accountv1.StreamRecipientsResponse]) error {
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	cursor := req.GetCursor()
	if cursor == "" {
		cursor = "00000000-0000-0000-0000-000000000000"
	}
	if err := s.contacts.CheckGroups(stream.Context(), req.GetAccountId(), req.GetContactGroupIds()); err != nil {
		return err
	}
	for {
		contacts, err := s.contacts.Recipients(stream.Context(), req.GetAccountId(), req.GetContactGroupIds(), cursor, size)
		if err != nil {
			return err
		}
		if len(contacts) == 0 {
			return nil
		}
		resp := &accountv1.StreamRecipientsResponse{Recipients: mapAll(contacts, toProtoRecipient)}
		if err := stream.Send(resp); err != nil {
			return fmt.Errorf("send recipients: %w", err)
		}
		cursor = contacts[len(contacts)-1].ID
	}
}
