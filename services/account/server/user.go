package server

import (
	"context"
	"slices"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

// GetMe implements accountv1.UserServiceServer.
func (s *Server) GetMe(ctx context.Context, _ *accountv1.GetMeRequest) (*accountv1.GetMeResponse, error) {
	userID, err := auth.From(ctx).Person()
	if err != nil {
		return nil, err
	}
	u, err := s.store.User(ctx, userID)
	if err != nil {
		return nil, err
	}
	return &accountv1.GetMeResponse{User: toProtoUser(u)}, nil
}

// UpdateMe implements accountv1.UserServiceServer.
func (s *Server) UpdateMe(ctx context.Context, req *accountv1.UpdateMeRequest) (*accountv1.UpdateMeResponse, error) {
	userID, err := auth.From(ctx).Person()
	if err != nil {
		return nil, err
	}
	u, err := s.store.UpdateUser(ctx, userID, func(u *account.User) {
		for _, path := range req.GetUpdateMask().GetPaths() {
			switch path {
			case "given_name":
				u.GivenName = req.GetUser().GetGivenName()
			case "family_name":
				u.FamilyName = req.GetUser().GetFamilyName()
			case "phone":
				u.Phone = req.GetUser().GetPhone()
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return &accountv1.UpdateMeResponse{User: toProtoUser(u)}, nil
}

// GetUser implements accountv1.UserServiceServer.
func (s *Server) GetUser(ctx context.Context, req *accountv1.GetUserRequest) (*accountv1.GetUserResponse, error) {
	u, err := s.store.UserInScope(ctx, auth.ScopeFrom(ctx), req.GetUserId())
	if err != nil {
		return nil, err
	}
	out := []*accountv1.User{toProtoUser(u)}
	if err := s.hideSubjects(ctx, out); err != nil {
		return nil, err
	}
	return &accountv1.GetUserResponse{User: out[0]}, nil
}

// ListUsers implements accountv1.UserServiceServer.
func (s *Server) ListUsers(ctx context.Context, req *accountv1.ListUsersRequest) (*accountv1.ListUsersResponse, error) {
	page, err := s.store.Users(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	out := mapAll(page.Data, toProtoUser)
	if err := s.hideSubjects(ctx, out); err != nil {
		return nil, err
	}
	return &accountv1.ListUsersResponse{Data: out, Meta: page.Meta}, nil
}

// hideSubjects clears the subject of users whom the caller does not manage.
func (s *Server) hideSubjects(ctx context.Context, users []*accountv1.User) error {
	caller := auth.From(ctx)
	var managed []string
	if scope := caller.Scope("users.manage"); len(scope) > 0 {
		ids := mapAll(users, func(u *accountv1.User) string { return u.GetId() })
		var err error
		if managed, err = s.store.Among(ctx, scope, ids); err != nil {
			return err
		}
	}
	for _, u := range users {
		if u.GetId() != caller.UserID && !slices.Contains(managed, u.GetId()) {
			u.IdpSubject = ""
		}
	}
	return nil
}
