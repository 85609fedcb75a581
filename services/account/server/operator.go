package server

import (
	"context"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	account "github.com/turumba/turumba/services/account"
)

// SuspendAccount implements accountv1.OperatorServiceServer.
func (s *Server) SuspendAccount(ctx context.Context, req *accountv1.SuspendAccountRequest) (*accountv1.SuspendAccountResponse, error) {
	a, err := s.operate(ctx, req.GetAccountId(), "account.suspend", func(a *account.Account) {
		a.Status, a.StatusReason = account.StatusSuspended, req.GetReason()
	})
	if err != nil {
		return nil, err
	}
	return &accountv1.SuspendAccountResponse{Account: a}, nil
}

// ReactivateAccount implements accountv1.OperatorServiceServer.
func (s *Server) ReactivateAccount(ctx context.Context, req *accountv1.ReactivateAccountRequest) (*accountv1.ReactivateAccountResponse, error) {
	a, err := s.operate(ctx, req.GetAccountId(), "account.reactivate", func(a *account.Account) {
		a.Status, a.StatusReason = account.StatusActive, ""
	})
	if err != nil {
		return nil, err
	}
	return &accountv1.ReactivateAccountResponse{Account: a}, nil
}

// operate changes the account that an operator names; its people read of it in
// their audit log.
func (s *Server) operate(ctx context.Context, accountID, action string, change func(*account.Account)) (*accountv1.Account, error) {
	a, err := s.store.UpdateAccount(ctx, []string{accountID}, accountID, action, change)
	if err != nil {
		return nil, err
	}
	s.changed()
	return toProtoAccount(a), nil
}

// DisableUser implements accountv1.OperatorServiceServer.
func (s *Server) DisableUser(ctx context.Context, req *accountv1.DisableUserRequest) (*accountv1.DisableUserResponse, error) {
	u, err := s.setActive(ctx, req.GetUserId(), false)
	if err != nil {
		return nil, err
	}
	return &accountv1.DisableUserResponse{User: u}, nil
}

// EnableUser implements accountv1.OperatorServiceServer.
func (s *Server) EnableUser(ctx context.Context, req *accountv1.EnableUserRequest) (*accountv1.EnableUserResponse, error) {
	u, err := s.setActive(ctx, req.GetUserId(), true)
	if err != nil {
		return nil, err
	}
	return &accountv1.EnableUserResponse{User: u}, nil
}

func (s *Server) setActive(ctx context.Context, userID string, active bool) (*accountv1.User, error) {
	u, err := s.store.SetActive(ctx, userID, active)
	if err != nil {
		return nil, err
	}
	s.changed()
	return toProtoUser(u), nil
}
