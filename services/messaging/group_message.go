package messaging

import (
	"slices"
	"strings"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// The states of a group message (decision D2).
const (
	GroupDraft           = "draft"
	GroupScheduled       = "scheduled"
	GroupQueued          = "queued"
	GroupProcessing      = "processing"
	GroupCompleted       = "completed"
	GroupPartiallyFailed = "partially_failed"
	GroupFailed          = "failed"
	GroupCancelled       = "cancelled"
)

// GroupMessage is one bulk send. At every commit
// Total = Pending + Sent + Failed + Cancelled.
type GroupMessage struct {
	ID                string
	AccountID         string
	Name              string
	ChannelID         string
	TemplateID        string
	Status            string
	ContactGroupIDs   []string `db:"contact_group_ids"`
	ExcludeContactIDs []string `db:"exclude_contact_ids"`
	CustomValues      map[string]string
	Metadata          []byte
	Snapshot          *Snapshot
	// ExcludeContactGroupIDs are the groups whose members do not receive it.
	ExcludeContactGroupIDs []string `db:"exclude_contact_group_ids"`
	// Addresses is how many recipients were given by address; of a resend, how many
	// messages it takes up there were when it was accepted.
	Addresses int32 `db:"address_count"`
	// ResendOfID is the send whose messages this one sends again, IncludeUnknown
	// whether it takes those whose outcome is unknown too.
	ResendOfID     string
	IncludeUnknown bool
	// ResendStatuses is what a resend takes up: ResendFailed, ResendCancelled, or both.
	ResendStatuses  []string
	Total           int32 `db:"total_recipients"`
	Pending         int32 `db:"pending_count"`
	Sent            int32 `db:"sent_count"`
	Failed          int32 `db:"failed_count"`
	Cancelled       int32 `db:"cancelled_count"`
	Unknown         int32 `db:"unknown_count"`
	Skipped         int32 `db:"skipped_count"`
	Delivered       int32 `db:"delivered_count"`
	FanoutDone      bool
	CreatedByUserID string
	ErrorMessage    string
	StartedAt       *time.Time
	CompletedAt     *time.Time
	BodyErasedAt    *time.Time // its text and values are gone since then
	CreatedAt       time.Time
	UpdatedAt       time.Time
}

// Skip is a recipient that a send left out. ID is the contact's, or that of a
// recipient given by address, which has no ContactID.
type Skip struct {
	ID        string
	ContactID string
	Address   string `db:"delivery_address"`
	Reason    string
	CreatedAt time.Time
}

// Final reports whether the send will not change any more.
func (g *GroupMessage) Final() bool {
	switch g.Status {
	case GroupCompleted, GroupPartiallyFailed, GroupFailed:
		return true
	case GroupCancelled:
		return g.Pending == 0
	}
	return false
}

// MaySend refuses to send anything but a draft.
func (g *GroupMessage) MaySend() error {
	if g.Status != GroupDraft {
		return invalidState("a %s group message cannot be sent", g.Status)
	}
	return nil
}

// MayChange refuses to change, or try out, anything but a draft.
func (g *GroupMessage) MayChange() error {
	if g.Status != GroupDraft {
		return invalidState("a %s group message is no draft any more", g.Status)
	}
	return nil
}

// MayCancel refuses to cancel what has ended.
func (g *GroupMessage) MayCancel() error {
	switch g.Status {
	case GroupDraft, GroupScheduled, GroupQueued, GroupProcessing:
		return nil
	}
	return invalidState("a %s group message cannot be cancelled", g.Status)
}

// Which messages of a send a resend takes up.
const (
	ResendFailed    = "failed"
	ResendCancelled = "cancelled"
)

// Resending is what a resend is asked for.
type Resending struct {
	UserID         string
	IncludeUnknown bool
	// Statuses is what to take up; none means what failed.
	Statuses []string
}

// Resend is a send that goes again, as it was, to those whom this one failed to reach
// for good, or was cancelled for. Whose outcome is unknown may have got the message, and is
// taken only on demand.
func (g *GroupMessage) Resend(r Resending) (*GroupMessage, error) {
	if len(r.Statuses) == 0 {
		r.Statuses = []string{ResendFailed}
	}
	if !g.Final() {
		return nil, invalidState("a %s group message has not ended and cannot be resent", g.Status)
	}
	if g.BodyErasedAt != nil {
		return nil, errErased("group message")
	}
	n, failed := int32(0), slices.Contains(r.Statuses, ResendFailed)
	if failed {
		if n = g.Failed; !r.IncludeUnknown {
			n -= g.Unknown
		}
	}
	if slices.Contains(r.Statuses, ResendCancelled) {
		n += g.Cancelled
	}
	switch {
	case n == 0 && failed && g.Unknown > 0:
		return nil, invalidState("the outcome of all %d failed messages is unknown: they may have arrived; include_unknown resends them", g.Unknown)
	case n == 0:
		return nil, invalidState("the group message has no %s messages to resend", strings.Join(r.Statuses, " and no "))
	}
	return &GroupMessage{
		ID: NewID(), AccountID: g.AccountID, Name: g.Name, ChannelID: g.ChannelID, TemplateID: g.TemplateID, Status: GroupQueued,
		CustomValues: g.CustomValues, Metadata: g.Metadata, Snapshot: g.Snapshot, CreatedByUserID: r.UserID,
		Addresses: n, ResendOfID: g.ID, IncludeUnknown: r.IncludeUnknown, ResendStatuses: r.Statuses,
	}, nil
}

// Resends is what a resend takes up: those of before there was a choice, what failed.
func (g *GroupMessage) Resends() []string {
	if g.ResendOfID != "" && len(g.ResendStatuses) == 0 {
		return []string{ResendFailed}
	}
	return g.ResendStatuses
}

// MayDelete refuses to delete what is running.
func (g *GroupMessage) MayDelete() error {
	if g.Status == GroupDraft || g.Final() {
		return nil
	}
	return invalidState("a %s group message cannot be deleted; cancel it first", g.Status)
}

func invalidState(format string, a ...any) error {
	return apierr.New(errorv1.Reason_REASON_INVALID_STATE, format, a...)
}
