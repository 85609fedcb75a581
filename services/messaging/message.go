package messaging

import (
	"slices"
	"time"
)

// The states of a message (decision D1).
const (
	MessageScheduled         = "scheduled"
	MessageQueued            = "queued"
	MessageSending           = "sending"
	MessageSent              = "sent"
	MessageDelivered         = "delivered"
	MessageFailed            = "failed" // will be tried again
	MessagePermanentlyFailed = "permanently_failed"
	MessageCancelled         = "cancelled"
)

// Summary names something that messages refer to. Detail is the type of a channel and
// the state of a send.
type Summary struct {
	ID, Name, Detail string
}

// Attempt is one attempt that was not a plain success.
type Attempt struct {
	Attempt   int32
	Outcome   string
	Class     string
	Code      string
	Text      string
	CreatedAt time.Time
}

// MayCancel refuses to cancel what does not wait.
func (m *Message) MayCancel() error {
	switch {
	case m.Status == MessageSending:
		return invalidState("the message is being handed to the provider")
	case !MayBecome(m.Status, MessageCancelled):
		return invalidState("a %s message cannot be cancelled", m.Status)
	}
	return nil
}

// MayRetry refuses to retry what has not failed for good, or whose time is over.
func (m *Message) MayRetry(now time.Time) error {
	switch {
	case m.Status != MessagePermanentlyFailed || m.Direction != DirectionOutbound:
		return invalidState("a %s message cannot be retried", m.Status)
	case m.BodyErasedAt != nil:
		return errErased("message")
	case m.NotAfter != nil && !m.NotAfter.After(now):
		return invalidState("the message's not_after is over")
	}
	return nil
}

// MayDelete refuses to hide what has no outcome yet.
func (m *Message) MayDelete() error {
	if m.Ended() {
		return nil
	}
	return invalidState("a %s message cannot be deleted; cancel it first", m.Status)
}

// MessageStatuses returns every state of a message.
func MessageStatuses() []string {
	return []string{MessageScheduled, MessageQueued, MessageSending, MessageSent, MessageDelivered, MessageFailed, MessagePermanentlyFailed, MessageCancelled}
}

// DirectionOutbound is the direction of messages to a person.
const DirectionOutbound = "outbound"

// messageGraph is every step that a message may take. The SQL function
// message_status_allowed and docs/states.md say the same; tests hold them equal.
var messageGraph = map[string][]string{
	"":                       {MessageScheduled, MessageQueued, MessageDelivered},
	MessageScheduled:         {MessageQueued, MessageCancelled},
	MessageQueued:            {MessageSending, MessageCancelled, MessagePermanentlyFailed},
	MessageSending:           {MessageSent, MessageFailed, MessagePermanentlyFailed, MessageQueued},
	MessageFailed:            {MessageSending, MessagePermanentlyFailed, MessageCancelled},
	MessageSent:              {MessageDelivered, MessagePermanentlyFailed},
	MessagePermanentlyFailed: {MessageSent, MessageDelivered, MessageQueued},
}

// MayBecome reports whether a message may go from one state to another; "" is
// the state before it exists.
func MayBecome(from, to string) bool { return slices.Contains(messageGraph[from], to) }

// Message is one text to one address.
type Message struct {
	ID                string
	AccountID         string
	ChannelID         string
	ChannelType       string `db:"-"` // only on the way in
	ByType            bool   `db:"-"` // likewise: it named no channel, only a type
	ContactID         string
	GroupMessageID    string
	TemplateID        string
	Direction         string
	Status            string
	DeliveryAddress   string
	Values            Values `db:"vars"`
	Subject           string
	Body              *string // kept only when it is short
	HTML              string  `db:"-"` // only on the way in; reads show the text
	ProviderMessageID string
	Attempts          int32
	ErrorCode         string
	ErrorProvider     string // the provider's own code
	ErrorText         string
	SentByUserID      string
	Metadata          []byte
	NotAfter          *time.Time // it is not sent after this time
	SentAt            *time.Time
	DeliveredAt       *time.Time
	FailedAt          *time.Time
	BodyErasedAt      *time.Time // text, values, metadata and provider's texts are gone since then
	CreatedAt         time.Time
	UpdatedAt         time.Time
	// History is only read for one message alone.
	History []*Attempt `db:"-"`
}

// Why a message failed, in our own words.
const (
	CodeOutcomeUnknown = "outcome_unknown"
	CodeOptedOut       = "opted_out"
	CodeChannelDeleted = "channel_deleted"
	CodeExpired        = "expired"
)

// Why a contact of a send got no message.
const (
	SkipExcluded         = "excluded"
	SkipNoAddress        = "no_address"
	SkipUnresolved       = "unresolved_variable"
	SkipDuplicateAddress = "duplicate_address"
	SkipInvalidAddress   = "invalid_address"
	SkipOptedOut         = "opted_out"
	SkipTooLong          = "text_too_long"
)
