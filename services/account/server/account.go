package server

import (
	"context"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

// CreateAccount implements accountv1.AccountServiceServer.
func (s *Server) CreateAccount(ctx context.Context, req *accountv1.CreateAccountRequest) (*accountv1.CreateAccountResponse, error) {
	userID, err := auth.From(ctx).Person()
	if err != nil {
		return nil, err
	}
	a := account.Account{ID: account.NewID(), Name: req.GetName(), Status: account.StatusActive, Description: req.GetDescription(), DefaultCountry: req.GetDefaultCountry()}
	resp := &accountv1.CreateAccountResponse{}
	err = s.store.DB().InTx(ctx, []string{a.ID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, "user:"+userID); err != nil {
			return err
		}
		a.CreatedAt, a.UpdatedAt = tx.Now, tx.Now
		if err := s.store.CreateAccount(ctx, tx, a, userID); err != nil {
			return err
		}
		resp.Account = toProtoAccount(&a)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	s.changed()
	return resp, nil
}

// GetAccount implements accountv1.AccountServiceServer.
func (s *Server) GetAccount(ctx context.Context, req *accountv1.GetAccountRequest) (*accountv1.GetAccountResponse, error) {
	a, err := s.store.Account(ctx, auth.ScopeFrom(ctx), req.GetAccountId())
	if err != nil {
		return nil, err
	}
	return &accountv1.GetAccountResponse{Account: toProtoAccount(a)}, nil
}

// ListAccounts implements accountv1.AccountServiceServer.
func (s *Server) ListAccounts(ctx context.Context, req *accountv1.ListAccountsRequest) (*accountv1.ListAccountsResponse, error) {
	page, err := s.store.Accounts(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &accountv1.ListAccountsResponse{Data: mapAll(page.Data, toProtoAccount), Meta: page.Meta}, nil
}

// UpdateAccount implements accountv1.AccountServiceServer.
func (s *Server) UpdateAccount(ctx context.Context, req *accountv1.UpdateAccountRequest) (*accountv1.UpdateAccountResponse, error) {
	a, err := s.store.UpdateAccount(ctx, auth.ScopeFrom(ctx), req.GetAccountId(), "account.update", func(a *account.Account) {
		u := req.GetAccount()
		for _, path := range req.GetUpdateMask().GetPaths() {
			switch path {
			case "name":
				a.Name = u.GetName()
			case "description":
				a.Description = u.GetDescription()
			case "default_country":
				a.DefaultCountry = u.GetDefaultCountry()
			case "message_retention_days":
				a.MessageRetentionDays = u.MessageRetentionDays
			}
		}
	})
	if err != nil {
		return nil, err
	}
	s.changed()
	return &accountv1.UpdateAccountResponse{Account: toProtoAccount(a)}, nil
}

// CloseAccount implements accountv1.AccountServiceServer.
func (s *Server) CloseAccount(ctx context.Context, req *accountv1.CloseAccountRequest) (*accountv1.CloseAccountResponse, error) {
	a, err := s.store.UpdateAccount(ctx, auth.ScopeFrom(ctx), req.GetAccountId(), "account.close", func(a *account.Account) { a.Status = account.StatusClosed })
	if err != nil {
		return nil, err
	}
	s.changed()
	return &accountv1.CloseAccountResponse{Account: toProtoAccount(a)}, nil
}

// LeaveAccount implements accountv1.AccountServiceServer.
func (s *Server) LeaveAccount(ctx context.Context, req *accountv1.LeaveAccountRequest) (*accountv1.LeaveAccountResponse, error) {
	userID, err := auth.From(ctx).Person()
	if err != nil {
		return nil, err
	}
	if err := s.store.LeaveAccount(ctx, req.GetAccountId(), userID); err != nil {
		return nil, err
	}
	s.changed()
	return &accountv1.LeaveAccountResponse{}, nil
}
