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

// MessageStatuses returns every state of a message.
func MessageStatuses() []string {
	return []string{MessageScheduled, MessageQueued, MessageSending, MessageSent, MessageDelivered, MessageFailed, MessagePermanentlyFailed, MessageCancelled}
}

// messageGraph is every step that a message may take. The SQL function
// message_status_allowed says the same; a test holds them equal.
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
	ContactID         string
	GroupMessageID    string
	TemplateID        string
	Direction         string
	Status            string
	DeliveryAddress   string
	Values            Values  `db:"vars"`
	Body              *string // kept only when it is short
	ProviderMessageID string
	Attempts          int32
	ErrorCode         string
	ErrorProvider     string // the provider's own code
	ErrorText         string
	SentByUserID      string
	Metadata          []byte
	SentAt            *time.Time
	DeliveredAt       *time.Time
	FailedAt          *time.Time
	CreatedAt         time.Time
	UpdatedAt         time.Time
}

// MaxKeptBody is the longest rendered body, in bytes, that a message row keeps;
// longer ones are rendered again when they are read.
const MaxKeptBody = 1024

// Why a message failed, in our own words.
const (
	CodeOutcomeUnknown = "outcome_unknown"
	CodeOptedOut       = "opted_out"
	CodeChannelDeleted = "channel_deleted"
)

// Why a contact of a send got no message.
const (
	SkipNoAddress        = "no_address"
	SkipUnresolved       = "unresolved_variable"
	SkipDuplicateAddress = "duplicate_address"
)
