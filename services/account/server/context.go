package server

import (
	"context"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
)

// GetContext implements accountv1.ContextServiceServer.
func (s *Server) GetContext(ctx context.Context, _ *accountv1.GetContextRequest) (*accountv1.GetContextResponse, error) {
	c := auth.From(ctx)
	resp := &accountv1.GetContextResponse{UserId: c.UserID, Memberships: toProtoContext(c.Memberships)}
	for _, m := range c.Memberships {
		resp.AccountIds = append(resp.AccountIds, m.AccountID)
		resp.RoleIds = append(resp.RoleIds, m.RoleID)
	}
	return resp, nil
}

// ResolveContext implements accountv1.InternalContextServiceServer.
func (s *Server) ResolveContext(ctx context.Context, req *accountv1.ResolveContextRequest) (*accountv1.ResolveContextResponse, error) {
	c, err := s.store.Caller(ctx, req.GetIssuer(), req.GetSubject())
	if err != nil {
		return nil, err
	}
	resp := &accountv1.ResolveContextResponse{
		UserId: c.UserID, ApiKeyId: c.APIKeyID, EndedSessions: c.EndedSessions, Memberships: toProtoContext(c.Memberships),
		CredentialEpoch: c.CredentialEpoch, KeptSessions: c.KeptSessions,
	}
	if !c.SessionsSince.IsZero() {
		resp.SessionsSince = stamp(c.SessionsSince)
	}
	return resp, nil
}

// ListBlockedAccounts implements accountv1.InternalContextServiceServer.
func (s *Server) ListBlockedAccounts(ctx context.Context, _ *accountv1.ListBlockedAccountsRequest) (*accountv1.ListBlockedAccountsResponse, error) {
	ids, err := s.store.BlockedAccounts(ctx)
	if err != nil {
		return nil, err
	}
	return &accountv1.ListBlockedAccountsResponse{AccountIds: ids}, nil
}

// retentionPage is how many accounts one answer tells of.
const retentionPage = 1000

// ListMessageRetention implements accountv1.InternalContextServiceServer.
func (s *Server) ListMessageRetention(ctx context.Context, req *accountv1.ListMessageRetentionRequest) (*accountv1.ListMessageRetentionResponse, error) {
	list, err := s.store.MessageRetention(ctx, req.GetAfterAccountId(), retentionPage)
	if err != nil {
		return nil, err
	}
	resp := &accountv1.ListMessageRetentionResponse{}
	for _, r := range list {
		days := r.Days
		if days == 0 {
			days = s.retention
		}
		if days > 0 {
			resp.Accounts = append(resp.Accounts, &accountv1.MessageRetention{AccountId: r.AccountID, Days: days})
		}
	}
	if len(list) == retentionPage {
		resp.NextAfterAccountId = list[len(list)-1].AccountID
	}
	return resp, nil
}

// GetSender implements accountv1.InternalContextServiceServer.
func (s *Server) GetSender(ctx context.Context, req *accountv1.GetSenderRequest) (*accountv1.GetSenderResponse, error) {
	a, err := s.store.Account(ctx, []string{req.GetAccountId()}, req.GetAccountId())
	if err != nil {
		return nil, err
	}
	resp := &accountv1.GetSenderResponse{AccountName: a.Name, AccountStatus: string(a.Status)}
	if req.GetUserId() == "" {
		return resp, nil
	}
	u, err := s.store.User(ctx, req.GetUserId())
	if err != nil {
		return nil, err
	}
	resp.SenderName, resp.SenderEmail = u.FullName(), u.Email
	return resp, nil
}

func toProtoContext(memberships []auth.Membership) []*accountv1.ContextMembership {
	out := make([]*accountv1.ContextMembership, 0, len(memberships))
	for _, m := range memberships {
		out = append(out, &accountv1.ContextMembership{
			AccountId: m.AccountID, AccountName: m.AccountName, AccountStatus: m.AccountStatus, RoleId: m.RoleID, Permissions: m.Permissions, Quotas: toProtoLimits(m.Quotas),
		})
	}
	return out
}
