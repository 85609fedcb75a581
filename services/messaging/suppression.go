package messaging

import "time"

// Why an address must not be written to.
const (
	SuppressedManually    = "manual"
	SuppressedUnsubscribe = "unsubscribed"
	SuppressedOptedOut    = "opted_out"
)

// Suppression keeps an account from writing to an address on channels of one type.
type Suppression struct {
	ID              string
	AccountID       string
	ChannelType     string
	Address         string // as AddressKey has it
	Reason          string
	Note            string
	CreatedByUserID string
	CreatedAt       time.Time
}
