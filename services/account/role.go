package account

import (
	"fmt"
	"slices"
	"strings"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// permissions are all that a role can hold, sorted.
var permissions = []string{
	"accounts.delete", "accounts.read", "accounts.update",
	"analytics.view", "api_keys.manage", "audit.view",
	"channels.manage", "channels.read",
	"contacts.delete", "contacts.export", "contacts.import", "contacts.read", "contacts.write",
	"group_messages.cancel", "group_messages.read", "group_messages.send",
	"groups.manage",
	"invitations.manage",
	"messages.delete", "messages.read", "messages.send",
	"roles.manage",
	"scheduled_messages.manage", "scheduled_messages.read",
	"templates.manage", "templates.read",
	"users.manage", "users.read",
}

// Permissions returns all that a role can hold, sorted.
func Permissions() []string { return slices.Clone(permissions) }

// aliases are names of the seed for sets of permissions.
var aliases = map[string][]string{
	"can_send_messages":    {"group_messages.send", "messages.send"},
	"can_manage_channels":  {"channels.manage", "channels.read"},
	"can_manage_templates": {"templates.manage", "templates.read"},
	"can_view_analytics":   {"analytics.view"},
}

// CheckPermissions sorts the permissions, with aliases replaced by what they stand
// for; unknown ones are an error that names them.
func CheckPermissions(field string, list []string) ([]string, error) {
	out := []string{}
	var unknown []string
	for _, p := range list {
		_, known := slices.BinarySearch(permissions, p)
		switch {
		case known:
			out = append(out, p)
		case aliases[p] != nil:
			out = append(out, aliases[p]...)
		default:
			unknown = append(unknown, fmt.Sprintf("%.64q", p))
		}
	}
	if len(unknown) > 0 {
		return nil, apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").
			WithFields(apierr.Field{Field: field, Message: "unknown: " + strings.Join(unknown, ", ") + "; it can hold " + strings.Join(permissions, ", ")})
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// The roles that every new account gets.
const (
	RoleOwner  = "Owner"
	RoleAdmin  = "Admin"
	RoleAgent  = "Agent"
	RoleViewer = "Viewer"
)

// Role is a named set of permissions inside one account.
type Role struct {
	ID          string
	AccountID   string
	Name        string
	Permissions []string // sorted
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// DefaultRoles returns the roles of a new account, Owner first: Owner can do
// everything, Admin everything but delete the account, Agent reads and sends,
// Viewer reads.
func DefaultRoles(accountID string, now time.Time) []Role {
	read := []string{"accounts.read", "channels.read", "contacts.read", "group_messages.read", "messages.read", "scheduled_messages.read", "templates.read", "users.read"}
	send := append(slices.Clone(read), "contacts.write", "group_messages.send", "messages.send")
	sets := []struct {
		name  string
		holds []string
	}{
		{RoleOwner, Permissions()},
		{RoleAdmin, slices.DeleteFunc(Permissions(), func(p string) bool { return p == "accounts.delete" })},
		{RoleAgent, send},
		{RoleViewer, read},
	}
	var roles []Role
	for _, s := range sets {
		slices.Sort(s.holds)
		roles = append(roles, Role{ID: NewID(), AccountID: accountID, Name: s.name, Permissions: s.holds, CreatedAt: now, UpdatedAt: now})
	}
	return roles
}

// Membership links a user, an account and a role.
type Membership struct {
	ID         string
	AccountID  string
	UserID     string
	RoleID     string
	Email      string
	GivenName  string
	FamilyName string
	RoleName   string
	CreatedAt  time.Time
}

// CheckGrant refuses to give a role with permissions that the giver lacks.
func CheckGrant(held []string, role Role) error {
	for _, p := range role.Permissions {
		if !slices.Contains(held, p) {
			return apierr.New(errorv1.Reason_REASON_PERMISSION_DENIED, "the role holds %q, which yours does not", p)
		}
	}
	return nil
}

// ErrOwnerRole keeps the role Owner as it is: somebody must be able to do everything.
var ErrOwnerRole = apierr.New(errorv1.Reason_REASON_INVALID_STATE, "the role Owner stays as it is")

// ErrUseInvitation is making somebody an Owner, who has to agree to it.
var ErrUseInvitation = apierr.New(errorv1.Reason_REASON_USE_INVITATION, "nobody becomes an Owner without having said yes: invite them as Owner with POST /v1/invitations")

// ErrNoOwner is letting an account work again that nobody owns.
var ErrNoOwner = apierr.New(errorv1.Reason_REASON_INVALID_STATE, "the account has no Owner any more, so it stays as it is")

// ErrLastOwner keeps the last Owner of an account.
var ErrLastOwner = apierr.New(errorv1.Reason_REASON_LAST_OWNER, "the account must keep an Owner")
