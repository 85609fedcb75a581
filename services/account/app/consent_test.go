package app_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/app"
	"github.com/turumba/turumba/services/account/postgres"
)

// TestConsent: nobody is added, inviting tells nothing of who is a user, and an invited
// person is seen once they accept.
func TestConsent(t *testing.T) {
	t.Parallel()
	p := startPeople(t)
	guest, guestID, _ := p.signUp(t, "guest@example.org")
	viewer := p.role(t, "Viewer")
	for _, who := range []*accountv1.CreateMembershipRequest{
		{Email: "guest@example.org"}, {Email: "nobody@example.org"}, {UserId: guestID}, {UserId: uuid.NewString()}, {UserId: p.ownerID},
	} {
		who.AccountId, who.RoleId = p.accountID, viewer
		err := p.conn.Invoke(p.owner, accountv1.MembershipService_CreateMembership_FullMethodName, who, &accountv1.CreateMembershipResponse{})
		reason(t, errorv1.Reason_REASON_USE_INVITATION, err)
	}
	shape := func(address string) string {
		i, err := p.invitations.CreateInvitation(p.owner, &accountv1.CreateInvitationRequest{AccountId: p.accountID, Email: address, RoleId: viewer})
		require.NoError(t, err)
		got, err := p.invitations.GetInvitation(p.owner, &accountv1.GetInvitationRequest{InvitationId: i.GetInvitation().GetId()})
		require.NoError(t, err)
		require.True(t, proto.Equal(i.GetInvitation(), got.GetInvitation()))
		got.Invitation.Id, got.Invitation.Email = "", ""
		_, err = p.invitations.CreateInvitation(p.owner, &accountv1.CreateInvitationRequest{AccountId: p.accountID, Email: address, RoleId: viewer})
		reason(t, errorv1.Reason_REASON_ALREADY_INVITED, err)
		return got.String()
	}
	require.Equal(t, shape("guest@example.org"), shape("nobody@example.org"))
	users := accountv1.NewUserServiceClient(p.conn)
	_, err := users.GetUser(p.owner, &accountv1.GetUserRequest{UserId: guestID})
	reason(t, errorv1.Reason_REASON_NOT_FOUND, err)
	_, err = p.members.ListMemberships(guest, &accountv1.ListMembershipsRequest{AccountId: p.accountID})
	reason(t, errorv1.Reason_REASON_NOT_FOUND, err)
	_, err = p.invitations.AcceptInvitation(guest, &accountv1.AcceptInvitationRequest{Token: p.token(t, "guest@example.org")})
	require.NoError(t, err)
	_, err = users.GetUser(p.owner, &accountv1.GetUserRequest{UserId: guestID})
	require.NoError(t, err)
	_, err = p.members.ListMemberships(guest, &accountv1.ListMembershipsRequest{AccountId: p.accountID})
	require.NoError(t, err)
}

// TestAccountsOfAPerson: as many as the setting says, the one of the registration among
// them, and the error names the limit.
func TestAccountsOfAPerson(t *testing.T) {
	t.Parallel()
	w := start(t, func(cfg *app.Config, _ *app.Deps) { cfg.Quotas.AccountsPerPerson = 2 })
	owner, _, _ := w.signUp(t, email)
	accounts := accountv1.NewAccountServiceClient(w.conn)
	second, err := accounts.CreateAccount(owner, &accountv1.CreateAccountRequest{Name: "Second"})
	require.NoError(t, err)
	_, err = accounts.CloseAccount(owner, &accountv1.CloseAccountRequest{AccountId: second.GetAccount().GetId()})
	require.NoError(t, err)
	_, err = accounts.CreateAccount(owner, &accountv1.CreateAccountRequest{Name: "Third"})
	reason(t, errorv1.Reason_REASON_QUOTA_EXCEEDED, err)
	require.Equal(t, map[string]string{"quota": account.QuotaAccounts, "limit": "2"}, apierr.From(err).Meta)
	_, err = accounts.LeaveAccount(owner, &accountv1.LeaveAccountRequest{AccountId: second.GetAccount().GetId()})
	require.NoError(t, err, "nobody needs to own what is closed")
	_, err = accounts.CreateAccount(owner, &accountv1.CreateAccountRequest{Name: "Third"})
	reason(t, errorv1.Reason_REASON_QUOTA_EXCEEDED, err) // they made it

	// Who was made an Owner of what others made owns it until it is closed.
	other, otherID, first := w.signUp(t, "other@example.org")
	_, err = accounts.LeaveAccount(other, &accountv1.LeaveAccountRequest{AccountId: first})
	reason(t, errorv1.Reason_REASON_LAST_OWNER, err)
	_, _, theirs := w.signUp(t, "third@example.org")
	w.exec(t, `INSERT INTO account_users (id, account_id, user_id, role_id, created_at)
		SELECT gen_random_uuid(), $1, $2, id, now() FROM roles WHERE account_id = $1 AND name = 'Owner'`, theirs, otherID)
	_, err = accounts.CreateAccount(other, &accountv1.CreateAccountRequest{Name: "Second"})
	reason(t, errorv1.Reason_REASON_QUOTA_EXCEEDED, err)
	w.exec(t, "UPDATE accounts SET status = 'closed' WHERE id = $1", theirs)
	_, err = accounts.CreateAccount(other, &accountv1.CreateAccountRequest{Name: "Second"})
	require.NoError(t, err)
}

// TestUpgradeOfMemberships: who is a member stays one, without having accepted anything,
// and accounts learn who made them.
func TestUpgradeOfMemberships(t *testing.T) {
	t.Parallel()
	old := pgtest.New(t, before(t, "00015")...)
	now := time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)
	conn, err := pgx.Connect(t.Context(), old.URL)
	require.NoError(t, err)
	exec := func(sql string, args ...any) {
		_, err := conn.Exec(t.Context(), sql, args...)
		require.NoError(t, err, sql)
	}
	maker, added := uuid.NewString(), uuid.NewString()
	for name, id := range map[string]string{"maker": maker, "added": added} {
		exec("INSERT INTO users (id, email, idp_issuer, idp_subject, created_at, updated_at) VALUES ($1, $2, 'http://test', $1::uuid::text, $3, $3)", id, name+"@example.org", now)
	}
	accounts := map[string]string{} // by how they tell who made them
	for _, how := range []string{"audited", "as old", "nothing left"} {
		id, role := uuid.NewString(), uuid.NewString()
		accounts[how] = id
		exec("INSERT INTO accounts (id, name, created_at, updated_at) VALUES ($1, $2, $3, $3)", id, how, now)
		exec("INSERT INTO roles (id, account_id, name, permissions, created_at, updated_at) VALUES ($1, $2, 'Owner', '{accounts.read}', $3, $3)", role, id, now)
		exec("INSERT INTO account_users (id, account_id, user_id, role_id, created_at) VALUES (gen_random_uuid(), $1, $2, $3, $4)", id, added, role, now.Add(time.Hour))
		switch how {
		case "audited":
			exec("INSERT INTO audit_events (id, account_id, action, resource_type, resource_id, actor_user_id, created_at) VALUES (gen_random_uuid(), $1, 'account.create', 'account', $1, $2, $3)", id, maker, now)
		case "as old":
			exec("INSERT INTO account_users (id, account_id, user_id, role_id, created_at) VALUES (gen_random_uuid(), $1, $2, $3, $4)", id, maker, role, now)
		}
	}
	start(t, func(cfg *app.Config, _ *app.Deps) { cfg.DatabaseURL = config.Secret(old.URL) })
	store, err := postgres.New(old.Open(t, pg.RoleAPI), make([]byte, 32), "http://test", account.Quotas{})
	require.NoError(t, err)
	caller, err := store.Caller(t.Context(), "http://test", added)
	require.NoError(t, err)
	require.Len(t, caller.Memberships, 3)
	require.Len(t, caller.Scope("accounts.read"), 3)
	for how, id := range accounts {
		var by *string
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT created_by_user_id::text FROM accounts WHERE id = $1", id).Scan(&by))
		if how == "nothing left" {
			require.Nil(t, by)
			continue
		}
		require.Equal(t, maker, *by, how)
	}
	require.NoError(t, conn.Close(context.WithoutCancel(t.Context())))
}

// TestOwnersSaidYes: a member becomes an Owner by accepting, and by nothing that others do;
// who owns as many accounts as a person may cannot, which only they learn.
func TestOwnersSaidYes(t *testing.T) {
	t.Parallel()
	p := startPeople(t, func(cfg *app.Config, _ *app.Deps) { cfg.Quotas.AccountsPerPerson = 2 })
	member, memberID := p.join(t, "member@example.org", p.role(t, "Viewer"))
	owner := p.role(t, "Owner")
	update := func(role string) error {
		_, err := p.members.UpdateMembership(p.owner, &accountv1.UpdateMembershipRequest{AccountId: p.accountID, UserId: memberID, RoleId: role})
		return err
	}
	reason(t, errorv1.Reason_REASON_USE_INVITATION, update(owner))
	require.NoError(t, update(p.role(t, "Agent")))

	_, token := p.invite(t, p.owner, "member@example.org", owner)
	accept := func() (*accountv1.AcceptInvitationResponse, error) {
		return p.invitations.AcceptInvitation(member, &accountv1.AcceptInvitationRequest{Token: token})
	}
	second, err := accountv1.NewAccountServiceClient(p.conn).CreateAccount(member, &accountv1.CreateAccountRequest{Name: "Second"})
	require.NoError(t, err)
	_, err = accept()
	reason(t, errorv1.Reason_REASON_QUOTA_EXCEEDED, err)
	require.Equal(t, map[string]string{"quota": account.QuotaAccounts, "limit": "2"}, apierr.From(err).Meta)
	reason(t, errorv1.Reason_REASON_USE_INVITATION, update(owner)) // it tells the inviter nothing
	p.exec(t, "UPDATE accounts SET created_by_user_id = NULL, status = 'closed' WHERE id = $1", second.GetAccount().GetId())
	in, err := accept()
	require.NoError(t, err)
	require.Equal(t, "Owner", in.GetMembership().GetRoleName())
	_, err = accept()
	reason(t, errorv1.Reason_REASON_INVITATION_OVER, err)
	require.NoError(t, update(owner), "it changes nothing")
	_, err = p.invitations.CreateInvitation(p.owner, &accountv1.CreateInvitationRequest{AccountId: p.accountID, Email: "member@example.org", RoleId: owner})
	reason(t, errorv1.Reason_REASON_ALREADY_MEMBER, err)
	events, err := p.audit.ListAuditEvents(p.owner, &accountv1.ListAuditEventsRequest{Filter: []string{"actor_user_id:eq:" + memberID, "action:eq:membership.update", fmt.Sprintf("created_at:range:%s,%s", p.clock.Now().Add(-time.Hour).Format(time.RFC3339), p.clock.Now().Add(time.Hour).Format(time.RFC3339))}})
	require.NoError(t, err)
	require.Len(t, events.GetData(), 1, "they made themself an Owner")

	// The one who was an Owner first may go now.
	_, err = accountv1.NewAccountServiceClient(p.conn).LeaveAccount(p.owner, &accountv1.LeaveAccountRequest{AccountId: p.accountID})
	require.NoError(t, err)
}

// TestOwnersAtOnce: of more invitations to own accounts that one is a member of than a
// person may accept, accepted all at once, as many are as fit.
func TestOwnersAtOnce(t *testing.T) {
	t.Parallel()
	const most, tries = 3, 8
	w := start(t, func(cfg *app.Config, _ *app.Deps) { cfg.Quotas.AccountsPerPerson = most })
	_, ownerID, _ := w.signUp(t, email)
	member, memberID, _ := w.signUp(t, "member@example.org")
	invitations := accountv1.NewInvitationServiceClient(w.conn)
	var wg sync.WaitGroup
	var accepted, refused atomic.Int64
	for n := range tries {
		accountID, token := uuid.NewString(), fmt.Sprint("inv_", n)
		hash := sha256.Sum256([]byte(token))
		w.exec(t, "INSERT INTO accounts (id, name, created_at, updated_at) VALUES ($1, 'A', now(), now())", accountID)
		w.exec(t, `INSERT INTO roles (id, account_id, name, permissions, created_at, updated_at)
			SELECT gen_random_uuid(), $1, n, '{invitations.manage}', now(), now() FROM unnest('{Owner,Viewer}'::text[]) AS n`, accountID)
		for user, role := range map[string]string{ownerID: "Owner", memberID: "Viewer"} {
			w.exec(t, "INSERT INTO account_users (id, account_id, user_id, role_id, created_at) SELECT gen_random_uuid(), $1, $2, id, now() FROM roles WHERE account_id = $1 AND name = $3", accountID, user, role)
		}
		w.exec(t, `INSERT INTO invitations (id, account_id, email, role_id, token_hash, invited_by_user_id, expires_at, created_at, updated_at)
			SELECT gen_random_uuid(), $1, 'member@example.org', id, $2, $3, '2027-01-01', now(), now() FROM roles WHERE account_id = $1 AND name = 'Owner'`, accountID, hash[:], ownerID)
		wg.Go(func() {
			_, err := invitations.AcceptInvitation(member, &accountv1.AcceptInvitationRequest{Token: token})
			switch {
			case err == nil:
				accepted.Add(1)
			case apierr.HasReason(err, errorv1.Reason_REASON_QUOTA_EXCEEDED):
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, most-1, accepted.Load(), "one they made")
	require.EqualValues(t, tries-most+1, refused.Load())
}

// TestNoAccountWithoutOwner: a closed account whose last Owner left does not work again.
func TestNoAccountWithoutOwner(t *testing.T) {
	t.Parallel()
	p := startPeople(t)
	accounts := accountv1.NewAccountServiceClient(p.conn)
	_, err := accounts.CloseAccount(p.owner, &accountv1.CloseAccountRequest{AccountId: p.accountID})
	require.NoError(t, err)
	store, err := postgres.New(p.db.Open(t, pg.RoleAPI), make([]byte, 32), "http://test", account.Quotas{})
	require.NoError(t, err)
	set := func(status account.Status) error {
		_, err := store.UpdateAccount(t.Context(), []string{p.accountID}, p.accountID, "account.test", func(a *account.Account) { a.Status = status })
		return err
	}
	require.NoError(t, set(account.StatusActive))
	require.NoError(t, set(account.StatusClosed))
	_, err = accounts.LeaveAccount(p.owner, &accountv1.LeaveAccountRequest{AccountId: p.accountID})
	require.NoError(t, err)
	require.NoError(t, set(account.StatusSuspended))
	require.ErrorIs(t, set(account.StatusActive), account.ErrNoOwner)
}
