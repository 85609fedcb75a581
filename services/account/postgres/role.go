package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

const roleColumns = "id, account_id, name, permissions, created_at, updated_at"

// Role returns one role of the scope.
func (s *Store) Role(ctx context.Context, scope []string, id string) (*account.Role, error) {
	return pg.Read(ctx, s.db, scope, pg.One[account.Role](apierr.NotFound("role")),
		"SELECT "+roleColumns+" FROM roles WHERE account_id = ANY ($1::uuid[]) AND id = $2", scope, id)
}

// Roles returns a page of the scope's roles.
func (s *Store) Roles(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.Role], error) {
	c, err := query.Compile(s.roles, r, scope)
	if err != nil {
		return nil, err
	}
	return query.List(ctx, s.db, c, pgx.RowToAddrOfStructByName[account.Role])
}

// CreateRole stores a role.
func (s *Store) CreateRole(ctx context.Context, tx *pg.Tx, r *account.Role) error {
	r.ID, r.CreatedAt, r.UpdatedAt = account.NewID(), tx.Now, tx.Now
	_, err := tx.Exec(ctx, "INSERT INTO roles (id, account_id, name, permissions, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)",
		r.ID, r.AccountID, r.Name, r.Permissions, tx.Now)
	if err := roleConflict(err); err != nil {
		return err
	}
	return s.audit(ctx, tx, r.AccountID, "role.create", r.ID, account.Changes(nil, r))
}

func roleConflict(err error) error {
	if pg.IsUnique(err, "roles_name_key") {
		return apierr.New(errorv1.Reason_REASON_DUPLICATE_NAME, "the account has a role of this name already")
	}
	if err != nil {
		return fmt.Errorf("write role: %w", err)
	}
	return nil
}

// UpdateRole lets change alter a role and stores it.
func (s *Store) UpdateRole(ctx context.Context, scope []string, id string, change func(*account.Role) error) (*account.Role, error) {
	var r *account.Role
	err := s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		var err error
		if r, err = lockRole(ctx, tx, scope, id); err != nil {
			return err
		}
		before := *r
		if err := change(r); err != nil {
			return err
		}
		r.UpdatedAt = tx.Now
		_, err = tx.Exec(ctx, "UPDATE roles SET name = $3, permissions = $4, updated_at = $5 WHERE account_id = $1 AND id = $2",
			r.AccountID, r.ID, r.Name, r.Permissions, r.UpdatedAt)
		if err := roleConflict(err); err != nil {
			return err
		}
		return s.audit(ctx, tx, r.AccountID, "role.update", r.ID, account.Changes(&before, r))
	})
	return r, err
}

func lockRole(ctx context.Context, tx *pg.Tx, scope []string, id string) (*account.Role, error) {
	rows, err := tx.Query(ctx, "SELECT "+roleColumns+" FROM roles WHERE account_id = ANY ($1::uuid[]) AND id = $2 FOR UPDATE", scope, id)
	if err != nil {
		return nil, fmt.Errorf("read role: %w", err)
	}
	return pg.One[account.Role](apierr.NotFound("role"))(rows)
}

// DeleteRole removes a role that no member and no pending invitation has; check
// may refuse it first.
func (s *Store) DeleteRole(ctx context.Context, scope []string, id string, check func(*account.Role) error) error {
	return s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		r, err := lockRole(ctx, tx, scope, id)
		if err != nil {
			return err
		}
		if err := check(r); err != nil {
			return err
		}
		var used bool
		err = tx.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM account_users WHERE account_id = $1 AND role_id = $2)
				OR EXISTS (SELECT FROM invitations WHERE account_id = $1 AND role_id = $2 AND status = 'pending' AND expires_at > $3)`,
			r.AccountID, r.ID, tx.Now).Scan(&used)
		if err != nil {
			return fmt.Errorf("look for the role's members: %w", err)
		}
		if used {
			return apierr.New(errorv1.Reason_REASON_IN_USE, "members or pending invitations have the role; give them another first")
		}
		if _, err := tx.Exec(ctx, "DELETE FROM roles WHERE account_id = $1 AND id = $2", r.AccountID, r.ID); err != nil {
			return fmt.Errorf("delete role: %w", err)
		}
		return s.audit(ctx, tx, r.AccountID, "role.delete", r.ID, account.Changes(r, nil))
	})
}
