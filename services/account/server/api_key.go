package server

import (
	"context"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

// CreateApiKey implements accountv1.ApiKeyServiceServer. A repeated call of the same person
// with the same idempotency key answers the same secret, which is kept sealed for as long.
func (s *Server) CreateApiKey(ctx context.Context, req *accountv1.CreateApiKeyRequest) (*accountv1.CreateApiKeyResponse, error) {
	k, err := newKey(ctx, req)
	if err != nil {
		return nil, err
	}
	secret := k.NewSecret()
	resp := &accountv1.CreateApiKeyResponse{}
	err = s.store.DB().InTx(ctx, []string{k.AccountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, "user:"+k.CreatedByUserID); err != nil {
			return err
		}
		if err := s.store.CreateAPIKey(ctx, tx, k); err != nil {
			return err
		}
		resp.ApiKey, resp.Secret = toProtoAPIKey(k), secret
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// newKey checks what the key is to hold: nobody gives what they lack.
func newKey(ctx context.Context, req *accountv1.CreateApiKeyRequest) (*account.APIKey, error) {
	caller := auth.From(ctx)
	userID, err := caller.Person()
	if err != nil {
		return nil, err
	}
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), caller)
	if err != nil {
		return nil, err
	}
	permissions, err := account.CheckPermissions("permissions", req.GetPermissions())
	if err != nil {
		return nil, err
	}
	m, _ := caller.Membership(accountID)
	for _, p := range permissions {
		if !m.Can(p) {
			return nil, apierr.New(errorv1.Reason_REASON_PERMISSION_DENIED, "the key would hold %q, which your role does not", p)
		}
	}
	return &account.APIKey{
		AccountID: accountID, Name: req.GetName(), Permissions: permissions, CreatedByUserID: userID, ExpiresAt: timeOrNil(req.GetExpiresAt()),
	}, nil
}

// GetApiKey implements accountv1.ApiKeyServiceServer.
func (s *Server) GetApiKey(ctx context.Context, req *accountv1.GetApiKeyRequest) (*accountv1.GetApiKeyResponse, error) {
	k, err := s.store.APIKey(ctx, auth.ScopeFrom(ctx), req.GetApiKeyId())
	if err != nil {
		return nil, err
	}
	return &accountv1.GetApiKeyResponse{ApiKey: toProtoAPIKey(k)}, nil
}

// ListApiKeys implements accountv1.ApiKeyServiceServer.
func (s *Server) ListApiKeys(ctx context.Context, req *accountv1.ListApiKeysRequest) (*accountv1.ListApiKeysResponse, error) {
	page, err := s.store.APIKeys(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &accountv1.ListApiKeysResponse{Data: mapAll(page.Data, toProtoAPIKey), Meta: page.Meta}, nil
}

// RevokeApiKey implements accountv1.ApiKeyServiceServer.
func (s *Server) RevokeApiKey(ctx context.Context, req *accountv1.RevokeApiKeyRequest) (*accountv1.RevokeApiKeyResponse, error) {
	scope := auth.ScopeFrom(ctx)
	err := s.store.DB().InTx(ctx, scope, func(tx *pg.Tx) error {
		return s.store.RevokeAPIKey(ctx, tx, scope, req.GetApiKeyId())
	})
	if err != nil {
		return nil, err
	}
	s.changed()
	return &accountv1.RevokeApiKeyResponse{}, nil
}

func toProtoAPIKey(k *account.APIKey) *accountv1.ApiKey {
	return &accountv1.ApiKey{
		Id: k.ID, AccountId: k.AccountID, Name: k.Name, Prefix: k.Prefix, Permissions: k.Permissions, CreatedByUserId: k.CreatedByUserID,
		ExpiresAt: stampOrNil(k.ExpiresAt), LastUsedAt: stampOrNil(k.LastUsedAt), RevokedAt: stampOrNil(k.RevokedAt), CreatedAt: stamp(k.CreatedAt),
	}
}
