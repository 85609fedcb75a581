package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
)

const userColumns = "id, email, coalesce(phone, '') AS phone, given_name, family_name, idp_issuer, idp_subject, is_active, created_at, updated_at"

var errUser = apierr.NotFound("user")

// User returns a user by id; callers decide who may see whom.
func (s *Store) User(ctx context.Context, id string) (*account.User, error) {
	rows, err := s.db.Pool().Query(ctx, "SELECT "+userColumns+" FROM users WHERE id = $1", id)
	if err != nil {
		return nil, fmt.Errorf("read user: %w", err)
	}
	return pg.One[account.User](errUser)(rows)
}

// Caller returns the user or API key behind a token and what it may do. NOT_FOUND
// says that the subject has no user here, UNAUTHENTICATED that the user may not
// log in any more.
func (s *Store) Caller(ctx context.Context, issuer, subject string) (auth.Caller, error) {
	var userID string
	var active bool
	var accounts []string
	err := s.db.Pool().QueryRow(ctx, `
		SELECT u.id, u.is_active, ARRAY (SELECT a::text FROM lookup.account_ids(u.id) AS a)
		FROM users u WHERE u.idp_issuer = $1 AND u.idp_subject = $2`, issuer, subject).Scan(&userID, &active, &accounts)
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err := uuid.Parse(subject); err == nil && issuer == s.issuer {
			return s.keyCaller(ctx, subject)
		}
	}
	if err != nil {
		return auth.Caller{}, pg.NoRows(err, errUser)
	}
	if !active {
		return auth.Caller{}, errInactive
	}
	memberships, err := s.memberships(ctx, accounts, userID)
	if err != nil {
		return auth.Caller{}, err
	}
	ended, err := s.endedSessions(ctx, userID)
	if err != nil {
		return auth.Caller{}, err
	}
	return auth.Caller{UserID: userID, Memberships: memberships, EndedSessions: ended}, nil
}

// memberships are what a user may do in the accounts.
func (s *Store) memberships(ctx context.Context, accounts []string, userID string) ([]auth.Membership, error) {
	list, err := pg.Read(ctx, s.db, accounts, func(rows pgx.Rows) ([]auth.Membership, error) {
		return pgx.CollectRows(rows, pgx.RowToStructByName[auth.Membership])
	}, `
		SELECT m.account_id, a.name AS account_name, a.status AS account_status, m.role_id, r.permissions
		FROM account_users m
		JOIN accounts a ON a.id = m.account_id
		JOIN roles r ON r.account_id = m.account_id AND r.id = m.role_id
		WHERE m.account_id = ANY ($1::uuid[]) AND m.user_id = $2
		ORDER BY m.account_id`, accounts, userID)
	if err != nil {
		return nil, fmt.Errorf("read memberships: %w", err)
	}
	return list, nil
}
