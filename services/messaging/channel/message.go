package channel

import "time"

// Message is one message as it leaves: rendered, for one recipient. Adapters
// ignore the fields their medium does not have.
type Message struct {
	// ID is the message's UUID. It is stable over retries and is what adapters use
	// as reference towards the provider.
	ID string
	// AccountID and ChannelID are for logs and metrics.
	AccountID, ChannelID string
	// To is the delivery address in the medium's own form.
	To string
	// ToName is the recipient's display name; may be empty.
	ToName string
	// FromEmail, FromName and ReplyTo replace the channel's settings when not empty.
	FromEmail, FromName, ReplyTo string
	// Subject is a single line; a line break in it is refused.
	Subject string
	// Text and HTML are the body; either may be empty, e-mail sends both as
	// alternatives.
	Text, HTML string
	// Headers are further header fields in order, such as List-Unsubscribe. Fields
	// the adapter sets itself are refused.
	Headers []Header
	// Attachments are files, shared by all messages of a send.
	Attachments []*Attachment
	// CreatedAt is when the message was created. It dates the message, so every
	// attempt is byte for byte the same.
	CreatedAt time.Time
}

// Header is one header field.
type Header struct {
	// Name is an RFC 5322 field name without the colon.
	Name string
	// Value is one line of text; adapters encode it.
	Value string
}
