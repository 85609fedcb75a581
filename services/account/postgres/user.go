package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

const userColumns = "id, email, coalesce(phone, '') AS phone, given_name, family_name, idp_issuer, idp_subject, is_active, created_at, updated_at"

// usersFrom are the users of accounts, each once: of several memberships that the
// transaction may see, the first counts.
const usersFrom = `(SELECT u.id, m.account_id, u.email, u.phone, u.given_name, u.family_name, u.idp_issuer, u.idp_subject, u.is_active, u.created_at, u.updated_at
	FROM account_users m JOIN users u ON u.id = m.user_id
	WHERE NOT EXISTS (SELECT FROM account_users o WHERE o.user_id = m.user_id AND o.account_id < m.account_id)) users`

var errUser = apierr.NotFound("user")

// User returns a user by id; callers decide who may see whom.
func (s *Store) User(ctx context.Context, id string) (*account.User, error) {
	rows, err := s.db.Query(ctx, "SELECT "+userColumns+" FROM users WHERE id = $1", id)
	if err != nil {
		return nil, fmt.Errorf("read user: %w", err)
	}
	return pg.One[account.User](errUser)(rows)
}

// UserBySubject returns a user by who they are at their identity provider.
func (s *Store) UserBySubject(ctx context.Context, issuer, subject string) (*account.User, error) {
	rows, err := s.db.Query(ctx, "SELECT "+userColumns+" FROM users WHERE idp_issuer = $1 AND idp_subject = $2", issuer, subject)
	if err != nil {
		return nil, fmt.Errorf("read user: %w", err)
	}
	return pg.One[account.User](errUser)(rows)
}

// UserInScope returns a user who is in one of the accounts.
func (s *Store) UserInScope(ctx context.Context, scope []string, id string) (*account.User, error) {
	return pg.Read(ctx, s.db, scope, pg.One[account.User](errUser), "SELECT "+userColumns+` FROM users
		WHERE id = $2 AND EXISTS (SELECT FROM account_users m WHERE m.account_id = ANY ($1::uuid[]) AND m.user_id = users.id)`, scope, id)
}

// Users returns a page of the users of the scope's accounts.
func (s *Store) Users(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.User], error) {
	c, err := query.Compile(s.users, r, scope)
	if err != nil {
		return nil, err
	}
	return query.List(ctx, s.db, c, pgx.RowToAddrOfStructByName[account.User])
}

// Among returns those of the users who are in one of the accounts.
func (s *Store) Among(ctx context.Context, scope []string, userIDs []string) ([]string, error) {
	return pg.Read(ctx, s.db, scope, func(rows pgx.Rows) ([]string, error) { return pgx.CollectRows(rows, pgx.RowTo[string]) },
		"SELECT DISTINCT user_id::text FROM account_users WHERE account_id = ANY ($1::uuid[]) AND user_id = ANY ($2::uuid[])", scope, userIDs)
}

// UpdateUser lets change alter a user's profile and stores it.
func (s *Store) UpdateUser(ctx context.Context, id string, change func(*account.User)) (*account.User, error) {
	var u *account.User
	err := s.db.InTx(ctx, nil, func(tx *pg.Tx) (err error) {
		u, err = s.changeUser(ctx, tx, id, change)
		return err
	})
	return u, err
}

func (s *Store) changeUser(ctx context.Context, tx *pg.Tx, id string, change func(*account.User)) (*account.User, error) {
	rows, err := tx.Query(ctx, "SELECT "+userColumns+" FROM users WHERE id = $1 FOR NO KEY UPDATE", id)
	if err != nil {
		return nil, fmt.Errorf("read user: %w", err)
	}
	u, err := pg.One[account.User](errUser)(rows)
	if err != nil {
		return nil, err
	}
	change(u)
	u.UpdatedAt = tx.Now
	_, err = tx.Exec(ctx, `
		UPDATE users SET given_name = $2, family_name = $3, phone = nullif($4, ''), is_active = $5, updated_at = $6 WHERE id = $1`,
		id, u.GivenName, u.FamilyName, u.Phone, u.IsActive, u.UpdatedAt)
	if err != nil {
		return nil, fmt.Errorf("update user: %w", err)
	}
	return u, nil
}

// SetActive lets a user log in, or not. When that changes every session ends, so that what
// was given before a user was disabled does not come back with them. The accounts of the user
// read of it in their audit logs.
func (s *Store) SetActive(ctx context.Context, id string, active bool) (*account.User, error) {
	accounts, err := s.accountsOf(ctx, id)
	if err != nil {
		return nil, err
	}
	action := "user.disable"
	if active {
		action = "user.enable"
	}
	var u *account.User
	err = s.db.InTx(ctx, accounts, func(tx *pg.Tx) (err error) {
		h, err := s.HoldAny(ctx, tx, id)
		if err != nil {
			return err
		}
		if u, err = s.changeUser(ctx, tx, id, func(u *account.User) { u.IsActive = active }); err != nil {
			return err
		}
		for _, accountID := range accounts {
			if err := s.audit(ctx, tx, accountID, action, id, nil); err != nil {
				return err
			}
		}
		if active && h.IsActive {
			return nil // nothing changed
		}
		return h.Next(ctx, "")
	})
	return u, err
}

// accountsOf are the accounts that a user is in.
func (s *Store) accountsOf(ctx context.Context, userID string) ([]string, error) {
	rows, err := s.db.Query(ctx, "SELECT a::text FROM lookup.account_ids($1) AS a", userID)
	if err != nil {
		return nil, fmt.Errorf("read accounts of user: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Caller returns the user or API key behind a token and what it may do. NOT_FOUND
// says that the subject has no user here, UNAUTHENTICATED that the user may not
// log in any more.
func (s *Store) Caller(ctx context.Context, issuer, subject string) (auth.Caller, error) {
	var userID string
	var active bool
	var accounts []string
	var since *time.Time
	var epoch int64
	err := s.db.QueryRow(ctx, `
		SELECT u.id, u.is_active, u.sessions_since, u.credential_epoch, ARRAY (SELECT a::text FROM lookup.account_ids(u.id) AS a)
		FROM users u WHERE u.idp_issuer = $1 AND u.idp_subject = $2`, issuer, subject).Scan(&userID, &active, &since, &epoch, &accounts)
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
	ended, kept, err := s.toldSessions(ctx, userID)
	if err != nil {
		return auth.Caller{}, err
	}
	caller := auth.Caller{UserID: userID, Memberships: memberships, EndedSessions: ended, KeptSessions: kept, CredentialEpoch: epoch}
	if since != nil {
		caller.SessionsSince = *since
	}
	return caller, nil
}

// memberships are what a user may do in the accounts now, the oldest membership first; none
// for who is disabled or no member.
func (s *Store) memberships(ctx context.Context, accounts []string, userID string) ([]auth.Membership, error) {
	list, err := pg.Read(ctx, s.db, accounts, func(rows pgx.Rows) ([]auth.Membership, error) {
		return pgx.CollectRows(rows, pgx.RowToStructByName[auth.Membership])
	}, `
		SELECT m.account_id, a.name AS account_name, a.status AS account_status, m.role_id, m.permissions, $3::jsonb || a.quotas AS quotas
		FROM acting_members m
		JOIN accounts a ON a.id = m.account_id
		WHERE m.account_id = ANY ($1::uuid[]) AND m.user_id = $2
		ORDER BY m.created_at, m.account_id`, accounts, userID, s.defaults)
	if err != nil {
		return nil, fmt.Errorf("read memberships: %w", err)
	}
	return list, nil
}
