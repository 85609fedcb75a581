package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

const (
	groupColumns = `id, account_id, name, description,
		(SELECT count(*)::int FROM contact_group_members m WHERE m.account_id = contact_groups.account_id AND m.group_id = contact_groups.id) AS contact_count,
		created_at, updated_at`
	conflictReason = errorv1.Reason_REASON_CONFLICT
)

// CreateGroup stores an empty contact group. respond makes the answer that is kept for
// the idempotency key. DUPLICATE_NAME when the account has a group of this name.
func (s *Store) CreateGroup(ctx context.Context, g *account.Group, respond func() proto.Message) error {
	return s.db.InTx(ctx, []string{g.AccountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, g.AccountID); err != nil {
			return err
		}
		g.ID, g.CreatedAt, g.UpdatedAt = account.NewID(), tx.Now, tx.Now
		_, err := tx.Exec(ctx, `
			INSERT INTO contact_groups (id, account_id, name, description, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $5)`, g.ID, g.AccountID, g.Name, g.Description, tx.Now)
		if pg.IsUnique(err, "contact_groups_name_key") {
			return account.ErrDuplicateGroup
		}
		if err != nil {
			return fmt.Errorf("insert contact group: %w", err)
		}
		if err := s.audit(ctx, tx, g.AccountID, "contact_group.create", g.ID, account.Changes(nil, g)); err != nil {
			return err
		}
		return tx.Respond(ctx, respond())
	})
}

// Group returns one contact group of the scope.
func (s *Store) Group(ctx context.Context, scope []string, id string) (*account.Group, error) {
	return pg.Read(ctx, s.db, scope, pg.One[account.Group](account.ErrNoGroup),
		"SELECT "+groupColumns+" FROM contact_groups WHERE account_id = ANY ($1::uuid[]) AND id = $2", scope, id)
}

// CheckGroups answers NOT_FOUND unless all groups are the account's.
func (s *Store) CheckGroups(ctx context.Context, accountID string, ids []string) error {
	known, err := pg.Read(ctx, s.db, []string{accountID}, func(rows pgx.Rows) (int, error) { return pgx.CollectExactlyOneRow(rows, pgx.RowTo[int]) },
		"SELECT count(*)::int FROM contact_groups WHERE account_id = $1 AND id = ANY ($2::uuid[])", accountID, ids)
	if err != nil {
		return err
	}
	if known < len(ids) {
		return account.ErrNoGroup
	}
	return nil
}

// Groups returns a page of the scope's contact groups.
func (s *Store) Groups(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.Group], error) {
	c, err := query.Compile(s.groups, r, scope)
	if err != nil {
		return nil, err
	}
	return query.List(ctx, s.db, c, pgx.RowToAddrOfStructByName[account.Group])
}

// UpdateGroup lets change alter the group and stores it.
func (s *Store) UpdateGroup(ctx context.Context, scope []string, id string, change func(*account.Group)) (*account.Group, error) {
	var g *account.Group
	err := s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		rows, err := tx.Query(ctx, "SELECT "+groupColumns+" FROM contact_groups WHERE account_id = ANY ($1::uuid[]) AND id = $2 FOR UPDATE", scope, id)
		if err != nil {
			return fmt.Errorf("read contact group: %w", err)
		}
		if g, err = pg.One[account.Group](account.ErrNoGroup)(rows); err != nil {
			return err
		}
		before := *g
		change(g)
		g.UpdatedAt = tx.Now
		_, err = tx.Exec(ctx, "UPDATE contact_groups SET name = $3, description = $4, updated_at = $5 WHERE account_id = $1 AND id = $2",
			g.AccountID, g.ID, g.Name, g.Description, g.UpdatedAt)
		if pg.IsUnique(err, "contact_groups_name_key") {
			return account.ErrDuplicateGroup
		}
		if err != nil {
			return fmt.Errorf("update contact group: %w", err)
		}
		return s.audit(ctx, tx, g.AccountID, "contact_group.update", g.ID, account.Changes(&before, g))
	})
	return g, err
}

// largeGroupLimit is how long it may take to delete a group: its memberships go with it,
// which may be a million. It is less than a call may take.
const largeGroupLimit = 25 * time.Second

// DeleteGroup removes a contact group of the scope, not its contacts.
func (s *Store) DeleteGroup(ctx context.Context, scope []string, id string) error {
	large := *s
	large.db = s.db.Within(largeGroupLimit)
	return large.deleteOne(ctx, scope, "contact_group.delete", id, account.ErrNoGroup,
		"DELETE FROM contact_groups WHERE account_id = ANY ($1::uuid[]) AND id = $2 RETURNING account_id::text", scope, id)
}

// AddContacts adds contacts to a group of the scope and returns how many were
// not members before. All must be of the group's account, else none is added.
func (s *Store) AddContacts(ctx context.Context, scope []string, groupID string, contactIDs []string) (int32, error) {
	g, err := s.Group(ctx, scope, groupID)
	if err != nil {
		return 0, err
	}
	var added int32
	err = s.db.InTx(ctx, []string{g.AccountID}, func(tx *pg.Tx) error {
		tag, err := tx.Exec(ctx, `
			INSERT INTO contact_group_members (account_id, group_id, contact_id)
			SELECT $1, $2, id FROM unnest($3::uuid[]) AS c (id) ON CONFLICT DO NOTHING`, g.AccountID, groupID, contactIDs)
		switch {
		case pg.IsForeignKey(err, "members_contact_fkey"):
			return account.ErrNoContact
		case pg.IsForeignKey(err, "members_group_fkey"):
			return account.ErrNoGroup
		case err != nil:
			return fmt.Errorf("insert members: %w", err)
		}
		added = int32(tag.RowsAffected())
		return s.audit(ctx, tx, g.AccountID, "contact_group.add_contacts", groupID, fmt.Appendf(nil, `{"contacts": {"to": %d}}`, added))
	})
	return added, err
}

// RemoveContact takes a contact out of a group of the scope.
func (s *Store) RemoveContact(ctx context.Context, scope []string, groupID, contactID string) error {
	return s.deleteOne(ctx, scope, "contact_group.remove_contact", groupID, account.ErrNoContact,
		"DELETE FROM contact_group_members WHERE account_id = ANY ($1::uuid[]) AND group_id = $2 AND contact_id = $3 RETURNING account_id::text", scope, groupID, contactID)
}

// GroupContacts returns a page of a group's members.
func (s *Store) GroupContacts(ctx context.Context, scope []string, groupID string, r query.Request) (*query.Page[*account.Contact], error) {
	g, err := s.Group(ctx, scope, groupID)
	if err != nil {
		return nil, err
	}
	r.Filters = append([]string{"group_id:eq:" + groupID}, r.Filters...)
	c, err := query.Compile(s.groupContacts, r, []string{g.AccountID})
	if err != nil {
		return nil, err
	}
	return query.List(ctx, s.db, c, scanContact)
}
