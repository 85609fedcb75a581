package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

const accountColumns = "id, name, status, status_reason, description, default_country, quotas, message_retention_days, created_at, updated_at"

// errAccount is what every look-up of an account outside the scope answers.
var errAccount = apierr.NotFound("account")

// CreateAccount stores an account with its roles and makes the user its Owner,
// which is the first of the roles.
func (s *Store) CreateAccount(ctx context.Context, tx *pg.Tx, a account.Account, ownerID string) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO accounts (id, name, status, description, default_country, created_by_user_id, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $7)`, a.ID, a.Name, a.Status, a.Description, a.DefaultCountry, ownerID, tx.Now)
	if err != nil {
		return fmt.Errorf("insert account: %w", err)
	}
	roles := account.DefaultRoles(a.ID, tx.Now)
	for _, r := range roles {
		_, err := tx.Exec(ctx, `
			INSERT INTO roles (id, account_id, name, permissions, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $5)`, r.ID, r.AccountID, r.Name, r.Permissions, tx.Now)
		if err != nil {
			return fmt.Errorf("insert role: %w", err)
		}
	}
	if err := s.join(ctx, tx, a.ID, ownerID, roles[0].ID); err != nil {
		return err
	}
	return s.audit(ctx, tx, a.ID, "account.create", a.ID, account.Changes(nil, &a))
}

// Account returns one account of the scope.
func (s *Store) Account(ctx context.Context, scope []string, id string) (*account.Account, error) {
	return pg.Read(ctx, s.db, scope, pg.One[account.Account](errAccount),
		"SELECT "+accountColumns+" FROM accounts WHERE id = ANY ($1::uuid[]) AND id = $2", scope, id)
}

// BlockedAccounts returns the accounts that must not send.
func (s *Store) BlockedAccounts(ctx context.Context) ([]string, error) {
	rows, err := s.db.Query(ctx, "SELECT a::text FROM lookup.blocked_accounts() AS a")
	if err != nil {
		return nil, fmt.Errorf("read blocked accounts: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// MessageRetention returns what accounts say of how long texts of messages are kept, by
// id, those after one; the days are 0 where an account says nothing.
func (s *Store) MessageRetention(ctx context.Context, after string, most int) ([]*account.MessageRetention, error) {
	rows, err := s.db.Query(ctx, "SELECT id::text, days FROM lookup.message_retention($1, $2)", after, most)
	if err != nil {
		return nil, fmt.Errorf("read the retention of messages: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToAddrOfStructByName[account.MessageRetention])
}

// Accounts returns a page of the scope's accounts.
func (s *Store) Accounts(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.Account], error) {
	c, err := query.Compile(s.accounts, r, scope)
	if err != nil {
		return nil, err
	}
	return query.List(ctx, s.db, c, pgx.RowToAddrOfStructByName[account.Account])
}

// UpdateAccount lets change alter the account and stores it; action is what the
// audit log calls it. An account that nobody owns does not become active
// (account.ErrNoOwner).
func (s *Store) UpdateAccount(ctx context.Context, scope []string, id, action string, change func(*account.Account)) (*account.Account, error) {
	var a *account.Account
	err := s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		rows, err := tx.Query(ctx, "SELECT "+accountColumns+" FROM accounts WHERE id = ANY ($1::uuid[]) AND id = $2 FOR UPDATE", scope, id)
		if err != nil {
			return fmt.Errorf("read account: %w", err)
		}
		if a, err = pg.One[account.Account](errAccount)(rows); err != nil {
			return err
		}
		before := *a
		change(a)
		a.UpdatedAt = tx.Now
		if a.Status == account.StatusActive && before.Status != account.StatusActive {
			if err := owned(ctx, tx, a.ID); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `
			UPDATE accounts SET name = $3, description = $4, default_country = $5, status = $6, status_reason = $7, updated_at = $8, quotas = $9,
				message_retention_days = $10
			WHERE id = ANY ($1::uuid[]) AND id = $2`, scope, id, a.Name, a.Description, a.DefaultCountry, a.Status, a.StatusReason, a.UpdatedAt, a.Quotas, a.MessageRetentionDays)
		if err != nil {
			return fmt.Errorf("update account: %w", err)
		}
		return s.audit(ctx, tx, a.ID, action, a.ID, account.Changes(&before, a))
	})
	return a, err
}

// owned refuses an account without an Owner. The lock of the account keeps the last one
// from leaving meanwhile.
func owned(ctx context.Context, tx *pg.Tx, accountID string) error {
	var has bool
	err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM account_users WHERE account_id = $1 AND role_id = "+ownerRole+")", accountID, account.RoleOwner).Scan(&has)
	if err != nil {
		return fmt.Errorf("look for owners: %w", err)
	}
	if !has {
		return account.ErrNoOwner
	}
	return nil
}
