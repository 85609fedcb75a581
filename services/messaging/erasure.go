package messaging

import (
	"slices"
	"strings"
	"time"

	"github.com/turumba/turumba/kit/address"
)

// The states of an erasure.
const (
	ErasureRunning   = "running"
	ErasureCompleted = "completed"
)

// Erasure takes what one message, or all of a person's, hold of a person out of the
// ledger, and stays as the proof of it.
type Erasure struct {
	ID        string
	AccountID string
	// MessageID is the one message, ContactID and Address are the person.
	MessageID         string
	ContactID         string
	Address           string `db:"delivery_address"`
	Status            string
	Erased            int32 `db:"erased_count"`
	Waiting           int32 `db:"waiting_count"`
	CreatedByUserID   string
	CreatedByAPIKeyID string `db:"created_by_api_key_id"`
	CreatedAt         time.Time
	CompletedAt       *time.Time
}

// The times of an erasure that looks through messages.
const (
	// ErasureDelay is how long it waits before it begins: what was being stored when it
	// was asked for is there by then.
	ErasureDelay = 2 * time.Second
	minWait      = 10 * time.Second
	maxWait      = 10 * time.Minute
)

// Forms are the texts, in small letters, under which the address may be stored; none without
// an address.
func (e *Erasure) Forms() []string {
	if e.Address == "" {
		return []string{}
	}
	if strings.Contains(e.Address, "@") {
		return address.EmailForms(e.Address)
	}
	forms := []string{strings.ToLower(address.Trim(e.Address))}
	if number, err := address.Phone(e.Address, ""); err == nil {
		forms = append(forms, number)
	}
	return forms
}

// Has reports whether the erasure is about a text that is the address of a message.
func (e *Erasure) Has(to string) bool { return slices.Contains(e.Forms(), strings.ToLower(to)) }

// NextLook is how long it waits for messages that have not ended: longer and longer.
func (e *Erasure) NextLook(now time.Time) time.Duration {
	return min(max(now.Sub(e.CreatedAt)/10, minWait), maxWait)
}

// Ended reports whether the message has its outcome, so that nothing needs its text.
func (m *Message) Ended() bool {
	switch m.Status {
	case MessageSent, MessageDelivered, MessagePermanentlyFailed, MessageCancelled:
		return true
	}
	return false
}

// MayErase refuses to erase what has no outcome yet.
func (m *Message) MayErase() error {
	if m.Ended() {
		return nil
	}
	return invalidState("a %s message cannot be erased; cancel it first", m.Status)
}

// errErased refuses what would need an erased text.
func errErased(of string) error { return invalidState("the text of the %s was erased", of) }
