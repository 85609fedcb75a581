package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

const apiKeyColumns = "id, account_id, name, prefix, secret_hash, permissions, created_by_user_id, expires_at, last_used_at, revoked_at, created_at"

var errAPIKey = apierr.NotFound("API key")

// CreateAPIKey stores a key.
func (s *Store) CreateAPIKey(ctx context.Context, tx *pg.Tx, k *account.APIKey) error {
	k.ID, k.CreatedAt = account.NewID(), tx.Now
	_, err := tx.Exec(ctx, `
		INSERT INTO api_keys (id, account_id, name, prefix, secret_hash, permissions, created_by_user_id, expires_at, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		k.ID, k.AccountID, k.Name, k.Prefix, k.SecretHash, k.Permissions, k.CreatedByUserID, k.ExpiresAt, tx.Now)
	if err != nil {
		return fmt.Errorf("insert API key: %w", err)
	}
	return s.audit(ctx, tx, k.AccountID, "api_key.create", k.ID, account.Changes(nil, k))
}

// APIKey returns one key of the scope.
func (s *Store) APIKey(ctx context.Context, scope []string, id string) (*account.APIKey, error) {
	return pg.Read(ctx, s.db, scope, pg.One[account.APIKey](errAPIKey),
		"SELECT "+apiKeyColumns+" FROM api_keys WHERE account_id = ANY ($1::uuid[]) AND id = $2", scope, id)
}

// APIKeys returns a page of the scope's keys.
func (s *Store) APIKeys(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.APIKey], error) {
	c, err := query.Compile(s.apiKeys, r, scope)
	if err != nil {
		return nil, err
	}
	return query.List(ctx, s.db, c, pgx.RowToAddrOfStructByName[account.APIKey])
}

// RevokeAPIKey ends a key; one that has ended stays as it is.
func (s *Store) RevokeAPIKey(ctx context.Context, tx *pg.Tx, scope []string, id string) error {
	rows, err := tx.Query(ctx, "SELECT "+apiKeyColumns+" FROM api_keys WHERE account_id = ANY ($1::uuid[]) AND id = $2 FOR UPDATE", scope, id)
	if err != nil {
		return fmt.Errorf("read API key: %w", err)
	}
	k, err := pg.One[account.APIKey](errAPIKey)(rows)
	if err != nil || k.RevokedAt != nil {
		return err
	}
	before := *k
	k.RevokedAt = &tx.Now
	if _, err := tx.Exec(ctx, "UPDATE api_keys SET revoked_at = $3 WHERE account_id = $1 AND id = $2", k.AccountID, id, tx.Now); err != nil {
		return fmt.Errorf("revoke API key: %w", err)
	}
	return s.audit(ctx, tx, k.AccountID, "api_key.revoke", k.ID, account.Changes(&before, k))
}

// UseAPIKey reads a key by its id alone, asks opens, and notes the use, to the
// minute. A key that is not there takes as long and opens nothing, nor does one whose
// creator may no longer do anything that it is for.
func (s *Store) UseAPIKey(ctx context.Context, id string, opens func(*account.APIKey, time.Time) bool) (bool, error) {
	k, err := s.keyByID(ctx, id)
	if errors.Is(err, errAPIKey) {
		k, err = &account.APIKey{}, nil
	}
	now := s.db.Now()
	if err != nil || !opens(k, now) {
		return false, err
	}
	m, err := s.grants(ctx, k)
	if err != nil || m == nil || len(m.Permissions) == 0 {
		return false, err
	}
	if k.LastUsedAt != nil && now.Sub(*k.LastUsedAt) < time.Minute {
		return true, nil
	}
	return true, s.db.InTx(ctx, []string{k.AccountID}, func(tx *pg.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE api_keys SET last_used_at = $3 WHERE account_id = $1 AND id = $2", k.AccountID, id, now)
		return err
	})
}

// keyByID reads a key before its account is known.
func (s *Store) keyByID(ctx context.Context, id string) (*account.APIKey, error) {
	var accountID *string
	if err := s.db.QueryRow(ctx, "SELECT lookup.api_key_account($1)::text", id).Scan(&accountID); err != nil {
		return nil, fmt.Errorf("look up API key: %w", err)
	}
	if accountID == nil {
		return nil, errAPIKey
	}
	return s.APIKey(ctx, []string{*accountID}, id)
}

// keyCaller is what an API key may do now: its permissions, cut to what its
// creator still holds in the account.
func (s *Store) keyCaller(ctx context.Context, id string) (auth.Caller, error) {
	k, err := s.keyByID(ctx, id)
	if err != nil {
		return auth.Caller{}, err
	}
	if !k.Works(s.db.Now()) {
		return auth.Caller{}, errInactive
	}
	m, err := s.grants(ctx, k)
	if err != nil {
		return auth.Caller{}, err
	}
	if m == nil {
		return auth.Caller{}, errInactive
	}
	return auth.Caller{APIKeyID: k.ID, Memberships: []auth.Membership{*m}}, nil
}

// grants are what a key may do in its account now; nil when its creator is disabled or no
// member any more.
func (s *Store) grants(ctx context.Context, k *account.APIKey) (*auth.Membership, error) {
	creator, err := s.memberships(ctx, []string{k.AccountID}, k.CreatedByUserID)
	if err != nil || len(creator) == 0 {
		return nil, err
	}
	m := creator[0]
	m.Permissions = k.Grants(m.Permissions)
	return &m, nil
}
