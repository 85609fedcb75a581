package app_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/services/account/app"
)

// people are the clients of what is about people.
type people struct {
	*world
	roles       accountv1.RoleServiceClient
	members     accountv1.MembershipServiceClient
	invitations accountv1.InvitationServiceClient
	audit       accountv1.AuditEventServiceClient
	owner       context.Context
	ownerID     string
	accountID   string
}

func startPeople(t *testing.T, change ...func(*app.Config, *app.Deps)) *people {
	t.Helper()
	w := start(t, change...)
	p := &people{
		world: w, roles: accountv1.NewRoleServiceClient(w.conn), members: accountv1.NewMembershipServiceClient(w.conn),
		invitations: accountv1.NewInvitationServiceClient(w.conn), audit: accountv1.NewAuditEventServiceClient(w.conn),
	}
	p.owner, p.ownerID, p.accountID = w.signUp(t, email)
	return p
}

// role is the id of a role of the owner's account.
func (p *people) role(t *testing.T, name string) string {
	t.Helper()
	list, err := p.roles.ListRoles(p.owner, &accountv1.ListRolesRequest{Filter: []string{"name:eq:" + name, "account_id:eq:" + p.accountID}})
	require.NoError(t, err)
	require.Len(t, list.GetData(), 1)
	return list.GetData()[0].GetId()
}

// join makes somebody with an own account a member of the owner's.
func (p *people) join(t *testing.T, address, role string) (ctx context.Context, userID string) {
	t.Helper()
	ctx, userID, _ = p.signUp(t, address)
	_, token := p.invite(t, p.owner, address, role)
	_, err := p.invitations.AcceptInvitation(ctx, &accountv1.AcceptInvitationRequest{Token: token})
	require.NoError(t, err)
	return ctx, userID
}

// TestNobodyGainsRights is S-62: whatever somebody below an Owner tries, they hold
// no more than before, and nobody above them loses anything.
func TestNobodyGainsRights(t *testing.T) {
	t.Parallel()
	p := startPeople(t)
	manager, err := p.roles.CreateRole(p.owner, &accountv1.CreateRoleRequest{AccountId: p.accountID, Name: "Manager", Permissions: []string{
		"users.manage", "users.read", "roles.manage", "invitations.manage", "api_keys.manage", "contacts.read",
	}})
	require.NoError(t, err)
	mine, small := manager.GetRole().GetId(), ""
	ctx, managerID := p.join(t, "manager@example.org", mine)
	_, agentID := p.join(t, "agent@example.org", p.role(t, "Agent"))
	made, err := p.roles.CreateRole(ctx, &accountv1.CreateRoleRequest{AccountId: p.accountID, Name: "Reader", Permissions: []string{"contacts.read"}})
	require.NoError(t, err)
	small = made.GetRole().GetId()
	permissions := &fieldmaskpb.FieldMask{Paths: []string{"permissions"}}

	for name, try := range map[string]func() error{
		"a role with more": func() error {
			_, err := p.roles.CreateRole(ctx, &accountv1.CreateRoleRequest{AccountId: p.accountID, Name: "X", Permissions: []string{"accounts.delete"}})
			return err
		},
		"more for the own role": func() error {
			_, err := p.roles.UpdateRole(ctx, &accountv1.UpdateRoleRequest{RoleId: mine, Role: &accountv1.RoleUpdate{Name: "M", Permissions: []string{"accounts.delete"}}, UpdateMask: permissions})
			return err
		},
		"less for a role above": func() error {
			_, err := p.roles.UpdateRole(ctx, &accountv1.UpdateRoleRequest{RoleId: p.role(t, "Admin"), Role: &accountv1.RoleUpdate{Name: "A"}, UpdateMask: permissions})
			return err
		},
		"the end of a role above": func() error {
			_, err := p.roles.DeleteRole(ctx, &accountv1.DeleteRoleRequest{RoleId: p.role(t, "Admin")})
			return err
		},
		"a higher role for oneself": func() error {
			_, err := p.members.UpdateMembership(ctx, &accountv1.UpdateMembershipRequest{AccountId: p.accountID, UserId: managerID, RoleId: p.role(t, "Owner")})
			return err
		},
		"a lower role for the Owner": func() error {
			_, err := p.members.UpdateMembership(ctx, &accountv1.UpdateMembershipRequest{AccountId: p.accountID, UserId: p.ownerID, RoleId: small})
			return err
		},
		"a lower role for somebody above": func() error {
			_, err := p.members.UpdateMembership(ctx, &accountv1.UpdateMembershipRequest{AccountId: p.accountID, UserId: agentID, RoleId: small})
			return err
		},
		"the end of somebody above": func() error {
			_, err := p.members.DeleteMembership(ctx, &accountv1.DeleteMembershipRequest{AccountId: p.accountID, UserId: agentID})
			return err
		},
		"an Owner by invitation": func() error {
			_, err := p.invitations.CreateInvitation(ctx, &accountv1.CreateInvitationRequest{AccountId: p.accountID, Email: "x@example.org", RoleId: p.role(t, "Owner")})
			return err
		},
		"a key with more": func() error {
			_, err := accountv1.NewApiKeyServiceClient(p.conn).CreateApiKey(ctx, &accountv1.CreateApiKeyRequest{AccountId: p.accountID, Name: "K", Permissions: []string{"contacts.write"}})
			return err
		},
	} {
		err := try()
		require.Error(t, err, name)
		if name != "a lower role for the Owner" {
			reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, err)
		}
	}
	_, err = p.members.DeleteMembership(ctx, &accountv1.DeleteMembershipRequest{AccountId: p.accountID, UserId: managerID})
	require.NoError(t, err, "everybody may leave")
	_, err = p.members.DeleteMembership(p.owner, &accountv1.DeleteMembershipRequest{AccountId: p.accountID, UserId: p.ownerID})
	reason(t, errorv1.Reason_REASON_LAST_OWNER, err)
}

// invite invites an address as the owner and returns the id and the mailed token.
func (p *people) invite(t *testing.T, ctx context.Context, address, role string) (id, token string) {
	t.Helper()
	i, err := p.invitations.CreateInvitation(ctx, &accountv1.CreateInvitationRequest{AccountId: p.accountID, Email: address, RoleId: role})
	require.NoError(t, err)
	return i.GetInvitation().GetId(), p.token(t, strings.ToLower(address))
}

func (p *people) token(t *testing.T, address string) string {
	t.Helper()
	_, token, found := strings.Cut(p.mail.next(t, address), "inv_")
	require.True(t, found)
	return "inv_" + strings.Fields(token)[0]
}

func TestInvitations(t *testing.T) {
	t.Parallel()
	p := startPeople(t)
	guest, guestID, _ := p.signUp(t, "guest@example.org")
	accept := func(ctx context.Context, token string) error {
		_, err := p.invitations.AcceptInvitation(ctx, &accountv1.AcceptInvitationRequest{Token: token})
		return err
	}
	id, token := p.invite(t, p.owner, "Guest@example.org", p.role(t, "Agent"))
	_, err := p.invitations.ResendInvitation(p.owner, &accountv1.ResendInvitationRequest{InvitationId: id})
	require.NoError(t, err)
	reason(t, errorv1.Reason_REASON_NOT_FOUND, accept(guest, token)) // void
	token = p.token(t, "guest@example.org")
	reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, accept(p.owner, token)) // for somebody else

	p.clock.Advance(8 * 24 * time.Hour)
	owner, guest := p.again(t, email), p.again(t, "guest@example.org")
	reason(t, errorv1.Reason_REASON_INVITATION_OVER, accept(guest, token))
	got, err := p.invitations.GetInvitation(owner, &accountv1.GetInvitationRequest{InvitationId: id})
	require.NoError(t, err)
	require.Equal(t, accountv1.InvitationStatus_INVITATION_STATUS_EXPIRED, got.GetInvitation().GetStatus())
	p.owner = owner
	id, token = p.invite(t, owner, "guest@example.org", p.role(t, "Agent"))
	require.NoError(t, accept(guest, token))
	reason(t, errorv1.Reason_REASON_INVITATION_OVER, accept(guest, token))
	_, err = p.invitations.RevokeInvitation(owner, &accountv1.RevokeInvitationRequest{InvitationId: id})
	reason(t, errorv1.Reason_REASON_INVALID_STATE, err)
	list, err := p.members.ListMemberships(guest, &accountv1.ListMembershipsRequest{AccountId: p.accountID})
	require.NoError(t, err)
	require.Len(t, list.GetData(), 2)

	t.Run("of somebody who may no longer invite", func(t *testing.T) {
		admin, adminID := p.join(t, "admin@example.org", p.role(t, "Admin"))
		_, token := p.invite(t, admin, "late@example.org", p.role(t, "Viewer"))
		late, _, _ := p.signUp(t, "late@example.org")
		_, err := p.members.UpdateMembership(owner, &accountv1.UpdateMembershipRequest{AccountId: p.accountID, UserId: adminID, RoleId: p.role(t, "Viewer")})
		require.NoError(t, err)
		reason(t, errorv1.Reason_REASON_INVITATION_OVER, accept(late, token))
	})
	t.Run("of a new person", func(t *testing.T) {
		_, token := p.invite(t, owner, "new@example.org", p.role(t, "Viewer"))
		r, err := p.auth.Register(t.Context(), &accountv1.RegisterRequest{Email: "new@example.org", Password: password, FullName: "New", InvitationToken: token})
		require.NoError(t, err)
		v, err := p.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: "new@example.org", Code: p.mail.code(t, "new@example.org"), RegistrationToken: r.GetRegistrationToken()})
		require.NoError(t, err)
		require.Equal(t, p.accountID, v.GetAccountId(), "no account is made")
		c, err := accountv1.NewContextServiceClient(p.conn).GetContext(p.again(t, "new@example.org"), &accountv1.GetContextRequest{})
		require.NoError(t, err)
		require.Equal(t, []string{p.accountID}, c.GetAccountIds())
	})
	events, err := p.audit.ListAuditEvents(owner, &accountv1.ListAuditEventsRequest{Filter: []string{"resource_type:eq:invitation", "created_at:range:2026-03-01,2026-03-31"}, Sort: []string{"created_at:asc"}})
	require.NoError(t, err)
	var actions []string
	for _, e := range events.GetData() {
		actions = append(actions, e.GetAction())
	}
	require.Equal(t, []string{
		"invitation.create", "invitation.resend", "invitation.create", "invitation.accept", "invitation.create", "invitation.accept",
		"invitation.create", "invitation.create", "invitation.accept",
	}, actions)
	require.Equal(t, guestID, events.GetData()[3].GetActorUserId())
}

// again logs in once more.
func (p *people) again(t *testing.T, address string) context.Context {
	t.Helper()
	l, err := p.auth.Login(t.Context(), &accountv1.LoginRequest{Email: address, Password: password})
	require.NoError(t, err)
	return with(t.Context(), l.GetAccessToken())
}

// TestAuditTellsNoSecrets makes one of each and looks for what must not be told.
func TestAuditTellsNoSecrets(t *testing.T) {
	t.Parallel()
	p := startPeople(t)
	key, err := accountv1.NewApiKeyServiceClient(p.conn).CreateApiKey(p.owner, &accountv1.CreateApiKeyRequest{AccountId: p.accountID, Name: "K", Permissions: []string{"contacts.read"}})
	require.NoError(t, err)
	_, token := p.invite(t, p.owner, "guest@example.org", p.role(t, "Agent"))
	c, err := p.contacts.CreateContact(p.owner, &accountv1.CreateContactRequest{Email: "a@example.org", FirstName: "A"})
	require.NoError(t, err)
	_, err = p.contacts.DeleteContact(p.owner, &accountv1.DeleteContactRequest{ContactId: c.GetContact().GetId()})
	require.NoError(t, err)
	events, err := p.audit.ListAuditEvents(p.owner, &accountv1.ListAuditEventsRequest{Sort: []string{"created_at:asc"}})
	require.NoError(t, err)
	require.Len(t, events.GetData(), 5)
	for _, e := range events.GetData() {
		require.Equal(t, p.ownerID, e.GetActorUserId())
		require.NotEmpty(t, e.GetRequestId())
		text := e.GetChanges().String()
		for _, secret := range []string{key.GetSecret(), token, "hash"} {
			require.NotContains(t, text, secret, e.GetAction())
		}
	}
	p.clock.Advance(401 * 24 * time.Hour)
	require.Eventually(t, func() bool {
		p.clock.Advance(time.Hour)
		list, err := p.audit.ListAuditEvents(p.again(t, email), &accountv1.ListAuditEventsRequest{})
		require.NoError(t, err)
		return len(list.GetData()) == 0
	}, time.Minute, 50*time.Millisecond, "events are kept 400 days")
}
