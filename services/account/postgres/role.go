package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

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
	return query.List(ctx, s.db.Pool(), c, pgx.RowToAddrOfStructByName[account.Role])
}
