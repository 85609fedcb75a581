package server

import (
	"context"
	"slices"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

// inScope answers NOT_FOUND for an account outside the scope, as for any id.
func inScope(ctx context.Context, accountID string) error {
	if !slices.Contains(auth.ScopeFrom(ctx), accountID) {
		return apierr.NotFound("account")
	}
	return nil
}

// grantableID reads a role of the account that the caller may give.
func (s *Server) grantableID(ctx context.Context, accountID, roleID string) (*account.Role, error) {
	role, err := s.store.Role(ctx, []string{accountID}, roleID)
	if err != nil {
		return nil, err
	}
	return role, grantable(ctx, *role)
}

// CreateMembership implements accountv1.MembershipServiceServer: nobody becomes a member
// without having said yes, and the answer looks at no user.
func (s *Server) CreateMembership(ctx context.Context, req *accountv1.CreateMembershipRequest) (*accountv1.CreateMembershipResponse, error) {
	if err := inScope(ctx, req.GetAccountId()); err != nil {
		return nil, err
	}
	return nil, errUseInvitation
}

// errUseInvitation is what adding somebody answers, whoever it is.
var errUseInvitation = apierr.New(errorv1.Reason_REASON_USE_INVITATION, "people are not added but invited: use POST /v1/invitations")

// ListMemberships implements accountv1.MembershipServiceServer.
func (s *Server) ListMemberships(ctx context.Context, req *accountv1.ListMembershipsRequest) (*accountv1.ListMembershipsResponse, error) {
	if err := inScope(ctx, req.GetAccountId()); err != nil {
		return nil, err
	}
	page, err := s.store.Memberships(ctx, req.GetAccountId(), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &accountv1.ListMembershipsResponse{Data: mapAll(page.Data, toProtoMembership), Meta: page.Meta}, nil
}

// UpdateMembership implements accountv1.MembershipServiceServer.
func (s *Server) UpdateMembership(ctx context.Context, req *accountv1.UpdateMembershipRequest) (*accountv1.UpdateMembershipResponse, error) {
	if err := inScope(ctx, req.GetAccountId()); err != nil {
		return nil, err
	}
	if _, err := s.grantableID(ctx, req.GetAccountId(), req.GetRoleId()); err != nil {
		return nil, err
	}
	m, err := s.store.UpdateMembership(ctx, req.GetAccountId(), req.GetUserId(), req.GetRoleId(), notAbove(ctx, req.GetUserId()))
	if err != nil {
		return nil, err
	}
	s.changed()
	return &accountv1.UpdateMembershipResponse{Membership: toProtoMembership(m)}, nil
}

// DeleteMembership implements accountv1.MembershipServiceServer.
func (s *Server) DeleteMembership(ctx context.Context, req *accountv1.DeleteMembershipRequest) (*accountv1.DeleteMembershipResponse, error) {
	if err := inScope(ctx, req.GetAccountId()); err != nil {
		return nil, err
	}
	if err := s.store.DeleteMembership(ctx, req.GetAccountId(), req.GetUserId(), notAbove(ctx, req.GetUserId())); err != nil {
		return nil, err
	}
	s.changed()
	return &accountv1.DeleteMembershipResponse{}, nil
}

// notAbove refuses to change a member who holds what the caller does not; everybody
// may leave.
func notAbove(ctx context.Context, userID string) func(account.Role) error {
	return func(r account.Role) error {
		if auth.From(ctx).UserID == userID {
			return nil
		}
		return grantable(ctx, r)
	}
}
