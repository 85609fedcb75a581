package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

const (
	invitationColumns = "id, account_id, email, role_id, token_hash, status, invited_by_user_id, expires_at, accepted_at, created_at, updated_at"
	// invitationStatus is the status as a filter sees it.
	invitationStatus = "CASE WHEN status = 'pending' AND expires_at <= now() THEN 'expired' ELSE status END"
)

var errInvitation = apierr.NotFound("invitation")

// CreateInvitation stores an invitation. One that was not used in time makes room. A member
// can be invited to become an Owner, and to nothing else.
func (s *Store) CreateInvitation(ctx context.Context, tx *pg.Tx, i *account.Invitation) error {
	var member bool
	err := tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM account_users m JOIN users u ON u.id = m.user_id
			WHERE m.account_id = $1 AND u.email = $3 AND (m.role_id = `+ownerRole+` OR $4 IS DISTINCT FROM `+ownerRole+`))`,
		i.AccountID, account.RoleOwner, i.Email, i.RoleID).Scan(&member)
	if err != nil {
		return fmt.Errorf("look for member: %w", err)
	}
	if member {
		return errMember
	}
	_, err = tx.Exec(ctx, `
		UPDATE invitations SET status = 'revoked', updated_at = $3
		WHERE account_id = $1 AND email = $2 AND status = 'pending' AND expires_at <= $3`, i.AccountID, i.Email, tx.Now)
	if err != nil {
		return fmt.Errorf("end invitation: %w", err)
	}
	i.ID, i.Status, i.CreatedAt, i.UpdatedAt = account.NewID(), account.InvitationPending, tx.Now, tx.Now
	_, err = tx.Exec(ctx, `
		INSERT INTO invitations (id, account_id, email, role_id, token_hash, invited_by_user_id, expires_at, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)`,
		i.ID, i.AccountID, i.Email, i.RoleID, i.TokenHash, i.InvitedByUserID, i.ExpiresAt, tx.Now)
	if pg.IsUnique(err, "invitations_pending_key") {
		return apierr.New(errorv1.Reason_REASON_ALREADY_INVITED, "a pending invitation has this e-mail address; send it again or take it back")
	}
	if err != nil {
		return fmt.Errorf("insert invitation: %w", err)
	}
	return s.audit(ctx, tx, i.AccountID, "invitation.create", i.ID, account.Changes(nil, i))
}

// Invitation returns one invitation of the scope.
func (s *Store) Invitation(ctx context.Context, scope []string, id string) (*account.Invitation, error) {
	return pg.Read(ctx, s.db, scope, pg.One[account.Invitation](errInvitation),
		"SELECT "+invitationColumns+" FROM invitations WHERE account_id = ANY ($1::uuid[]) AND id = $2", scope, id)
}

// Invitations returns a page of the scope's invitations.
func (s *Store) Invitations(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.Invitation], error) {
	c, err := query.Compile(s.invitations, r, scope)
	if err != nil {
		return nil, err
	}
	return query.List(ctx, s.db, c, pgx.RowToAddrOfStructByName[account.Invitation])
}

// ChangeInvitation locks an invitation, lets change alter it, and stores it.
func (s *Store) ChangeInvitation(ctx context.Context, tx *pg.Tx, scope []string, id, action string, change func(*account.Invitation) error) (*account.Invitation, error) {
	rows, err := tx.Query(ctx, "SELECT "+invitationColumns+" FROM invitations WHERE account_id = ANY ($1::uuid[]) AND id = $2 FOR UPDATE", scope, id)
	if err != nil {
		return nil, fmt.Errorf("read invitation: %w", err)
	}
	i, err := pg.One[account.Invitation](errInvitation)(rows)
	if err != nil {
		return nil, err
	}
	before := *i
	if err := change(i); err != nil {
		return nil, err
	}
	i.UpdatedAt = tx.Now
	_, err = tx.Exec(ctx, `
		UPDATE invitations SET token_hash = $3, status = $4, expires_at = $5, accepted_at = $6, updated_at = $7
		WHERE account_id = $1 AND id = $2`, i.AccountID, i.ID, i.TokenHash, i.Status, i.ExpiresAt, i.AcceptedAt, i.UpdatedAt)
	if err != nil {
		return nil, fmt.Errorf("update invitation: %w", err)
	}
	return i, s.audit(ctx, tx, i.AccountID, action, i.ID, account.Changes(&before, i))
}

// InvitationByToken finds an invitation by the hash of its token, before the
// account is known.
func (s *Store) InvitationByToken(ctx context.Context, hash []byte) (*account.Invitation, error) {
	var accountID *string
	if err := s.db.QueryRow(ctx, "SELECT lookup.invitation_account($1)::text", hash).Scan(&accountID); err != nil {
		return nil, fmt.Errorf("look up invitation: %w", err)
	}
	if accountID == nil {
		return nil, errInvitation
	}
	return pg.Read(ctx, s.db, []string{*accountID}, pg.One[account.Invitation](errInvitation),
		"SELECT "+invitationColumns+" FROM invitations WHERE account_id = $1 AND token_hash = $2", *accountID, hash)
}

// AcceptInvitation makes a user a member, or a member an Owner, in a transaction whose
// scope is the account that invites.
func (s *Store) AcceptInvitation(ctx context.Context, tx *pg.Tx, i *account.Invitation, userID, email string) (*account.Membership, error) {
	rows, err := tx.Query(ctx, "SELECT "+roleColumns+" FROM roles WHERE account_id = $1 AND id = $2", i.AccountID, i.RoleID)
	if err != nil {
		return nil, fmt.Errorf("read role: %w", err)
	}
	role, err := pg.One[account.Role](account.ErrInvitationOver)(rows)
	if err != nil {
		return nil, err
	}
	inviter, err := permissionsOf(ctx, tx, i.AccountID, i.InvitedByUserID)
	if err != nil {
		return nil, err
	}
	if _, err = s.ChangeInvitation(ctx, tx, []string{i.AccountID}, i.ID, "invitation.accept", func(i *account.Invitation) error {
		if err := i.CheckAccept(email, *role, inviter, tx.Now); err != nil {
			return err
		}
		i.Status, i.AcceptedAt = account.InvitationAccepted, &tx.Now
		return nil
	}); err != nil {
		return nil, err
	}
	if role.Name == account.RoleOwner {
		if m, err := s.acceptOwner(ctx, tx, i.AccountID, userID, i.RoleID); m != nil || err != nil {
			return m, err
		}
	}
	return s.createMembership(ctx, tx, i.AccountID, userID, i.RoleID)
}

// permissionsOf are what a user holds in an account now; none for who is disabled or no
// member.
func permissionsOf(ctx context.Context, tx *pg.Tx, accountID, userID string) ([]string, error) {
	rows, err := tx.Query(ctx, "SELECT unnest(permissions) FROM acting_members WHERE account_id = $1 AND user_id = $2", accountID, userID)
	if err != nil {
		return nil, fmt.Errorf("read permissions: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// InvitationView is what the holder of a token may know.
type InvitationView struct {
	AccountName string
	Email       string
	RoleName    string
	ExpiresAt   time.Time
}

// PeekInvitation tells what a token is for.
func (s *Store) PeekInvitation(ctx context.Context, hash []byte) (*InvitationView, error) {
	i, err := s.InvitationByToken(ctx, hash)
	if err != nil {
		return nil, err
	}
	if i.StatusAt(s.db.Now()) != account.InvitationPending {
		return nil, account.ErrInvitationOver
	}
	return pg.Read(ctx, s.db, []string{i.AccountID}, pg.One[InvitationView](errInvitation), `
		SELECT a.name AS account_name, i.email, r.name AS role_name, i.expires_at FROM invitations i
		JOIN accounts a ON a.id = i.account_id JOIN roles r ON r.account_id = i.account_id AND r.id = i.role_id
		WHERE i.account_id = $1 AND i.id = $2`, i.AccountID, i.ID)
}

// actingAs is ctx with a user as the actor, where no token names one yet.
func actingAs(ctx context.Context, userID string) context.Context {
	return auth.With(ctx, auth.Caller{UserID: userID})
}
