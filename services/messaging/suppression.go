package messaging

import (
	"strings"
	"time"
)

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

// AddressKey is the form in which addresses of a channel type are the same person's:
// mail servers that tell upper from lower case are not worth a complaint.
func AddressKey(channelType, address string) string {
	if channelType == TypeEmail {
		return strings.ToLower(address)
	}
	return address
}
