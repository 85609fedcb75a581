package server

import (
	"context"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
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

// CreateRole implements accountv1.RoleServiceServer.
func (s *Server) CreateRole(ctx context.Context, req *accountv1.CreateRoleRequest) (*accountv1.CreateRoleResponse, error) {
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), auth.From(ctx))
	if err != nil {
		return nil, err
	}
	permissions, err := account.CheckPermissions("permissions", req.GetPermissions())
	if err != nil {
		return nil, err
	}
	r := &account.Role{AccountID: accountID, Name: req.GetName(), Permissions: permissions}
	if err := grantable(ctx, *r); err != nil {
		return nil, err
	}
	resp := &accountv1.CreateRoleResponse{}
	err = s.store.DB().InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, accountID); err != nil {
			return err
		}
		if err := s.store.CreateRole(ctx, tx, r); err != nil {
			return err
		}
		resp.Role = toProtoRole(r)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// UpdateRole implements accountv1.RoleServiceServer.
func (s *Server) UpdateRole(ctx context.Context, req *accountv1.UpdateRoleRequest) (*accountv1.UpdateRoleResponse, error) {
	permissions, err := account.CheckPermissions("permissions", req.GetRole().GetPermissions())
	if err != nil {
		return nil, err
	}
	r, err := s.store.UpdateRole(ctx, auth.ScopeFrom(ctx), req.GetRoleId(), func(r *account.Role) error {
		if err := changeable(ctx, r); err != nil {
			return err
		}
		for _, path := range req.GetUpdateMask().GetPaths() {
			switch path {
			case "name":
				r.Name = req.GetRole().GetName()
			case "permissions":
				r.Permissions = permissions
			}
		}
		return grantable(ctx, *r)
	})
	if err != nil {
		return nil, err
	}
	s.changed()
	return &accountv1.UpdateRoleResponse{Role: toProtoRole(r)}, nil
}

// DeleteRole implements accountv1.RoleServiceServer.
func (s *Server) DeleteRole(ctx context.Context, req *accountv1.DeleteRoleRequest) (*accountv1.DeleteRoleResponse, error) {
	err := s.store.DeleteRole(ctx, auth.ScopeFrom(ctx), req.GetRoleId(), func(r *account.Role) error { return changeable(ctx, r) })
	if err != nil {
		return nil, err
	}
	return &accountv1.DeleteRoleResponse{}, nil
}

// changeable refuses to touch Owner, and a role that holds more than the caller.
func changeable(ctx context.Context, r *account.Role) error {
	if r.Name == account.RoleOwner {
		return account.ErrOwnerRole
	}
	return grantable(ctx, *r)
}

// grantable refuses a role that holds what the caller's own does not.
func grantable(ctx context.Context, r account.Role) error {
	m, _ := auth.From(ctx).Membership(r.AccountID)
	return account.CheckGrant(m.Permissions, r)
}
