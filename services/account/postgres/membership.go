package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

const (
	membershipFrom = `(SELECT m.id, m.account_id, m.user_id, m.role_id, u.email, u.given_name, u.family_name, r.name AS role_name, m.created_at
		FROM account_users m JOIN users u ON u.id = m.user_id JOIN roles r ON r.account_id = m.account_id AND r.id = m.role_id) members`
	// ownerRole is the id of the role Owner of the account $1, where $2 is its name.
	ownerRole         = "(SELECT id FROM roles WHERE account_id = $1 AND name = $2)"
	membershipColumns = "id, account_id, user_id, role_id, email, given_name, family_name, role_name, created_at"
)

var (
	errMembership = apierr.NotFound("membership")
	errMember     = apierr.New(errorv1.Reason_REASON_ALREADY_MEMBER, "the user is already a member of the account")
	errCode       = account.ErrInvalidCode
	errInactive   = apierr.Unauthenticated(nil)
)

// Memberships returns a page of an account's members.
func (s *Store) Memberships(ctx context.Context, accountID string, r query.Request) (*query.Page[*account.Membership], error) {
	c, err := query.Compile(s.members, r, []string{accountID})
	if err != nil {
		return nil, err
	}
	return query.List(ctx, s.db, c, pgx.RowToAddrOfStructByName[account.Membership])
}

// UserIDByEmail finds an existing user by address.
func (s *Store) UserIDByEmail(ctx context.Context, email string) (string, error) {
	var id string
	err := s.db.QueryRow(ctx, "SELECT id FROM users WHERE email = $1", account.NormalEmail(email)).Scan(&id)
	return id, pg.NoRows(err, errUser)
}

// join makes a user a member of an account. Nothing else inserts memberships.
func (s *Store) join(ctx context.Context, tx *pg.Tx, accountID, userID, roleID string) error {
	return s.counted(ctx, tx, accountID, userID, roleID, func() error { return insertMembership(ctx, tx, accountID, userID, roleID) })
}

// counted locks the user, lets write give them the role, and refuses what is more than a
// person may have. Every way to become an Owner goes through it, and only ways that the
// person chose do (ADR 0049).
func (s *Store) counted(ctx context.Context, tx *pg.Tx, accountID, userID, roleID string, write func() error) error {
	var id string
	err := tx.QueryRow(ctx, "SELECT id::text FROM users WHERE id = $1 FOR NO KEY UPDATE", userID).Scan(&id)
	if err != nil {
		return pg.NoRows(err, errUser)
	}
	if err := write(); err != nil {
		return err
	}
	var joined, owned int64
	var owns bool
	err = tx.QueryRow(ctx, `
		SELECT l.joined, l.owned, r.name = $4 FROM lookup.memberships_of($1) l, roles r WHERE r.account_id = $2 AND r.id = $3`,
		userID, accountID, roleID, account.RoleOwner).Scan(&joined, &owned, &owns)
	if err != nil {
		return fmt.Errorf("count memberships: %w", err)
	}
	return account.CheckJoin(joined, owned, owns, s.accountsPerPerson)
}

func insertMembership(ctx context.Context, tx *pg.Tx, accountID, userID, roleID string) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO account_users (id, account_id, user_id, role_id, created_at) VALUES ($1, $2, $3, $4, $5)`,
		account.NewID(), accountID, userID, roleID, tx.Now)
	if pg.IsUnique(err, "account_users_key") {
		return errMember
	}
	if err != nil {
		return fmt.Errorf("insert membership: %w", err)
	}
	return nil
}

// acceptOwner makes a member an Owner who has accepted to be one; nil for who is no member.
// An Owner is ALREADY_MEMBER.
func (s *Store) acceptOwner(ctx context.Context, tx *pg.Tx, accountID, userID, ownerRoleID string) (*account.Membership, error) {
	var before *account.Membership
	err := s.counted(ctx, tx, accountID, userID, ownerRoleID, func() (err error) {
		before, err = readMembership(ctx, tx, accountID, userID)
		if err != nil {
			return err
		}
		if before.RoleID == ownerRoleID {
			return errMember
		}
		return setRole(ctx, tx, accountID, userID, ownerRoleID)
	})
	if errors.Is(err, errMembership) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.roleChanged(ctx, tx, before)
}

func setRole(ctx context.Context, tx *pg.Tx, accountID, userID, roleID string) error {
	_, err := tx.Exec(ctx, "UPDATE account_users SET role_id = $3 WHERE account_id = $1 AND user_id = $2", accountID, userID, roleID)
	if err != nil {
		return fmt.Errorf("update membership: %w", err)
	}
	return nil
}

// roleChanged reads a membership after its change, and writes the change down.
func (s *Store) roleChanged(ctx context.Context, tx *pg.Tx, before *account.Membership) (*account.Membership, error) {
	m, err := readMembership(ctx, tx, before.AccountID, before.UserID)
	if err != nil {
		return nil, err
	}
	return m, s.audit(ctx, tx, m.AccountID, "membership.update", m.ID, account.Changes(before, m))
}

// createMembership adds a user to an account.
func (s *Store) createMembership(ctx context.Context, tx *pg.Tx, accountID, userID, roleID string) (*account.Membership, error) {
	if err := s.join(ctx, tx, accountID, userID, roleID); err != nil {
		return nil, err
	}
	m, err := readMembership(ctx, tx, accountID, userID)
	if err != nil {
		return nil, err
	}
	return m, s.audit(ctx, tx, accountID, "membership.create", m.ID, account.Changes(nil, m))
}

func readMembership(ctx context.Context, tx *pg.Tx, accountID, userID string) (*account.Membership, error) {
	rows, err := tx.Query(ctx, "SELECT "+membershipColumns+" FROM "+membershipFrom+" WHERE account_id = $1 AND user_id = $2", accountID, userID)
	if err != nil {
		return nil, fmt.Errorf("read membership: %w", err)
	}
	return pg.One[account.Membership](errMembership)(rows)
}

// UpdateMembership gives a member another role; the last Owner keeps his. Nobody becomes an
// Owner by it (ErrUseInvitation). allowed may refuse by the role that the member has.
func (s *Store) UpdateMembership(ctx context.Context, accountID, userID, roleID string, allowed func(account.Role) error) (*account.Membership, error) {
	var m *account.Membership
	err := s.db.InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		before, err := lockMembership(ctx, tx, accountID, userID, roleID, allowed)
		if err != nil {
			return err
		}
		if err := notOwner(ctx, tx, before, roleID); err != nil {
			return err
		}
		if err := setRole(ctx, tx, accountID, userID, roleID); err != nil {
			return err
		}
		m, err = s.roleChanged(ctx, tx, before)
		return err
	})
	return m, err
}

// notOwner refuses to make somebody an Owner who is none.
func notOwner(ctx context.Context, tx *pg.Tx, before *account.Membership, roleID string) error {
	var owner bool
	err := tx.QueryRow(ctx, "SELECT coalesce($3 = "+ownerRole+", false)", before.AccountID, account.RoleOwner, roleID).Scan(&owner)
	if err != nil {
		return fmt.Errorf("look for the role Owner: %w", err)
	}
	if owner && before.RoleID != roleID {
		return account.ErrUseInvitation
	}
	return nil
}

// DeleteMembership removes a member; the last Owner stays. allowed may refuse by
// the role that the member has.
func (s *Store) DeleteMembership(ctx context.Context, accountID, userID string, allowed func(account.Role) error) error {
	return s.endMembership(ctx, accountID, userID, "membership.delete", allowed)
}

// LeaveAccount removes a member who asks for it themself; the last Owner stays, but in a
// closed account.
func (s *Store) LeaveAccount(ctx context.Context, accountID, userID string) error {
	return s.endMembership(ctx, accountID, userID, "membership.leave", func(account.Role) error { return nil })
}

func (s *Store) endMembership(ctx context.Context, accountID, userID, action string, allowed func(account.Role) error) error {
	return s.db.InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		m, err := lockMembership(ctx, tx, accountID, userID, "", allowed)
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "DELETE FROM account_users WHERE account_id = $1 AND user_id = $2", accountID, userID)
		if err != nil {
			return fmt.Errorf("delete membership: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errMembership // another call was first
		}
		return s.audit(ctx, tx, accountID, action, m.ID, account.Changes(m, nil))
	})
}

// lockMembership reads a membership that is about to change, and refuses the change
// for the last Owner and by the role that the member has.
func lockMembership(ctx context.Context, tx *pg.Tx, accountID, userID, newRoleID string, allowed func(account.Role) error) (*account.Membership, error) {
	if err := keepOwner(ctx, tx, accountID, userID, newRoleID); err != nil {
		return nil, err
	}
	m, err := readMembership(ctx, tx, accountID, userID)
	if err != nil {
		return nil, err
	}
	role, err := lockRole(ctx, tx, []string{accountID}, m.RoleID)
	if err != nil {
		return nil, err
	}
	return m, allowed(*role)
}

// keepOwner refuses to take the Owner role from the last who has it, unless the account is
// closed. It locks the Owners, so that two of them cannot leave at once, and the member,
// who may become an Owner meanwhile.
func keepOwner(ctx context.Context, tx *pg.Tx, accountID, userID, newRoleID string) error {
	rows, err := tx.Query(ctx, `
		SELECT user_id::text, role_id = `+ownerRole+`, role_id::text = $4 FROM account_users
		WHERE account_id = $1 AND (user_id = $3 OR role_id = `+ownerRole+`) ORDER BY user_id FOR UPDATE`,
		accountID, account.RoleOwner, userID, newRoleID)
	if err != nil {
		return fmt.Errorf("lock owners: %w", err)
	}
	type member struct {
		UserID      string
		Owns, Keeps bool
	}
	members, err := pgx.CollectRows(rows, pgx.RowToStructByPos[member])
	if err != nil {
		return fmt.Errorf("lock owners: %w", err)
	}
	owners := slices.DeleteFunc(members, func(m member) bool { return !m.Owns })
	if len(owners) != 1 || owners[0].UserID != userID || owners[0].Keeps {
		return nil
	}
	var status account.Status
	if err := tx.QueryRow(ctx, "SELECT status FROM accounts WHERE id = $1 FOR SHARE", accountID).Scan(&status); err != nil {
		return fmt.Errorf("read the account of the last owner: %w", err)
	}
	if status != account.StatusClosed {
		return account.ErrLastOwner
	}
	return nil
}
