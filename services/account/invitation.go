package account

import (
	"slices"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// InvitationLife is how long the token of an invitation is good.
const InvitationLife = 7 * 24 * time.Hour

// InvitationStatus is the state of an invitation.
type InvitationStatus string

// The states of an invitation. Expired is pending whose time has passed.
const (
	InvitationPending  InvitationStatus = "pending"
	InvitationAccepted InvitationStatus = "accepted"
	InvitationRevoked  InvitationStatus = "revoked"
	InvitationExpired  InvitationStatus = "expired"
)

// Invitation asks somebody by e-mail to join an account with a role.
type Invitation struct {
	ID              string
	AccountID       string
	Email           string
	RoleID          string
	TokenHash       []byte
	Status          InvitationStatus
	InvitedByUserID string
	ExpiresAt       time.Time
	AcceptedAt      *time.Time
	CreatedAt       time.Time
	UpdatedAt       time.Time
}

// StatusAt is the state at a time.
func (i *Invitation) StatusAt(now time.Time) InvitationStatus {
	if i.Status == InvitationPending && !now.Before(i.ExpiresAt) {
		return InvitationExpired
	}
	return i.Status
}

// ErrInvitationOver is an invitation that can no longer be accepted.
var ErrInvitationOver = apierr.New(errorv1.Reason_REASON_INVITATION_OVER, "the invitation was accepted, taken back, or not used in time; ask for a new one")

// CheckAccept refuses an invitation that is over, that is for another address, or
// whose inviter may no longer give the role.
func (i *Invitation) CheckAccept(email string, role Role, inviter []string, now time.Time) error {
	switch {
	case i.StatusAt(now) != InvitationPending:
		return ErrInvitationOver
	case NormalEmail(email) != i.Email:
		return apierr.New(errorv1.Reason_REASON_PERMISSION_DENIED, "the invitation is for another e-mail address")
	case !slices.Contains(inviter, "invitations.manage") || CheckGrant(inviter, role) != nil:
		return ErrInvitationOver
	}
	return nil
}
