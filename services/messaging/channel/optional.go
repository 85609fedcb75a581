package channel

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// ErrForged means that a webhook call is not the provider's: its signature is wrong or
// missing. The caller is told nothing else.
var ErrForged = errors.New("the call is not the provider's")

// Call is one call of a channel's webhook, exactly as it came: signatures are made of
// the bytes, not of what they mean.
type Call struct {
	// Method is GET where the provider checks the address, POST otherwise.
	Method string
	// URL is the address as the provider has it, with its query in its order.
	URL string
	// Header are the fields; Body is what followed, whole.
	Header http.Header
	Body   []byte
	// At is when the call came.
	At time.Time
}

// Receiver is a Sender whose provider calls a webhook.
type Receiver interface {
	// Receive checks that the call is the provider's, and only then reads it. It touches
	// neither network nor store. The error is ErrForged, or says that a true call cannot
	// be read.
	Receive(call Call) (Received, error)
}

// Received is what a call says. One call may carry many receipts and messages.
type Received struct {
	Receipts []Receipt
	Inbound  []Inbound
	// Answer is the body that the provider waits for, AnswerType its media type; mostly
	// empty.
	Answer, AnswerType string
}

// Receipt is what became of a message that was sent.
type Receipt struct {
	// DedupeKey names the receipt: a second one with it says nothing new.
	DedupeKey string
	// MessageID is our own id, where the provider carries it; ProviderID is its name for
	// the message or for a part of it. One of them is set.
	MessageID, ProviderID string
	// State is how far the message is.
	State ReceiptState
	// Class, Code and Text say why a message failed.
	Class      Class
	Code, Text string
	// At is when it happened, by the provider's clock; zero if it does not say.
	At time.Time
}

// ReceiptState is how far a message is, in order: a later receipt never takes a message
// back, whatever order they come in.
type ReceiptState uint8

// Receipt states. The zero value is none.
const (
	// ReceiptSent: the provider still has it.
	ReceiptSent ReceiptState = iota + 1
	// ReceiptFailed: it will not arrive.
	ReceiptFailed
	// ReceiptDelivered: it arrived.
	ReceiptDelivered
	// ReceiptRead: it arrived and was opened.
	ReceiptRead
)

// Inbound is a message that a person sent to the channel.
type Inbound struct {
	// DedupeKey names the message: a second one with it is the same.
	DedupeKey string
	// ProviderID is the provider's name for it, From who sent it, in the form of
	// Message.To, and Text what it says.
	ProviderID, From, Text string
	// OptOut says that the provider took it for a wish to get no more messages.
	OptOut bool
	// At is when it was sent; zero if the provider does not say.
	At time.Time
}

// Registrar is a Sender whose provider is told where to call.
type Registrar interface {
	// Register makes url the address of the channel's webhook, within 10 s. Doing it twice
	// is doing it once. The Result is like that of Verify.
	Register(ctx context.Context, url string) Result
}

// Poller is a Sender whose provider does not call and must be asked.
type Poller interface {
	// Poll returns what is new since the cursor, oldest first, and the cursor to ask with
	// next time; the first one is empty. It waits at most until ctx ends for something to
	// come. What it returned may come again, with the same dedupe keys, until the caller
	// has asked with the next cursor. The Result says why there is nothing.
	Poll(ctx context.Context, cursor string) (Received, string, Result)
}
