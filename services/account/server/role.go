package server

import (
	"context"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/query"
)

// GetRole implements accountv1.RoleServiceServer.
func (s *Server) GetRole(ctx context.Context, req *accountv1.GetRoleRequest) (*accountv1.GetRoleResponse, error) {
	r, err := s.store.Role(ctx, auth.ScopeFrom(ctx), req.GetRoleId())
	if err != nil {
		return nil, err
	}
	return &accountv1.GetRoleResponse{Role: toProtoRole(r)}, nil
}

// ListRoles implements accountv1.RoleServiceServer.
func (s *Server) ListRoles(ctx context.Context, req *accountv1.ListRolesRequest) (*accountv1.ListRolesResponse, error) {
	page, err := s.store.Roles(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &accountv1.ListRolesResponse{Data: mapAll(page.Data, toProtoRole), Meta: page.Meta}, nil
}
