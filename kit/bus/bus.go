// Package bus publishes and consumes messages without saying which broker
// carries them. Two implementations mean the same: inproc inside one process,
// rabbitmq for many. One contract suite (bustest) runs on both.
//
// Delivery is at least once and unordered: a message may come twice and later
// than one published after it. A message is a hint that something is in the
// database; a handler does one short transaction and returns.
package bus

import (
	"context"
	"errors"
)

// Errors that Publish, Consume and the constructors return, to be compared with
// errors.Is. ErrUnavailable says nothing about the message itself: the same
// batch may be offered again. The others concern one message or one call.
var (
	// ErrUnavailable: the broker is not connected or refuses to read. The message
	// was not sent.
	ErrUnavailable = errors.New("bus: broker unavailable")
	// ErrUnconfirmed: the message was sent and the broker's answer did not come
	// in time or was lost with the connection. It may or may not be delivered.
	ErrUnconfirmed = errors.New("bus: message unconfirmed")
	// ErrUnroutable: a mandatory message matched no binding of a queue that
	// counts (see Queue.Optional).
	ErrUnroutable = errors.New("bus: message unroutable")
	// ErrFull: a queue the message was routed to has reached its bound. It was
	// put in none.
	ErrFull = errors.New("bus: queue full")
	// ErrRejected: the broker took the message and then refused it.
	ErrRejected = errors.New("bus: message rejected by the broker")
	// ErrInvalid: the message, the topology or the argument breaks a limit
	// stated at its type.
	ErrInvalid = errors.New("bus: invalid argument")
	// ErrNoQueue: Consume named a queue that is not in the topology.
	ErrNoQueue = errors.New("bus: no such queue")
	// ErrClosed: the bus was closed.
	ErrClosed = errors.New("bus: closed")
)

// Message is what travels. A handler must not change Body or Headers: other
// handlers may be reading them. The publisher may reuse both after Publish has
// returned.
type Message struct {
	// ID identifies the message for deduplication; 1 to 255 bytes.
	ID string
	// RoutingKey is matched against the bindings; 1 to 255 bytes, words
	// separated by dots.
	RoutingKey string
	// Body is opaque; at most MaxBody bytes.
	Body []byte
	// Headers are short texts; a key has 1 to 128 bytes, all together at most
	// MaxHeaders bytes. "content-type" becomes the broker's own property.
	Headers map[string]string
	// Mandatory asks Publish to report ErrUnroutable instead of dropping a
	// message that no queue wants.
	Mandatory bool
	// Redelivered is set on delivery: false means surely not seen before, true
	// means maybe. Publish ignores it.
	Redelivered bool
}

// Publisher hands messages to the broker.
type Publisher interface {
	// Publish returns one result per message, in order: nil means the broker has
	// stored it (and, when Mandatory, routed it). It returns within the
	// implementation's confirm timeout even when ctx has no deadline, and at
	// once with ErrUnavailable while the broker is known to be away.
	Publish(ctx context.Context, messages []Message) []error
}

// Handler is the effect of one message. Returning nil acknowledges it; an error
// or a panic leads to redelivery and in the end to the dead-letter queue, as
// Policy says. ctx carries Policy.HandlerTimeout and outlives the end of the
// context given to Consume by Policy.DrainTimeout.
type Handler func(ctx context.Context, message Message) error

// Consumer takes messages from a queue.
type Consumer interface {
	// Consume runs h for the messages of queue, up to prefetch at a time, each in
	// its own goroutine. It reconnects by itself and blocks until ctx ends, then
	// waits for the handlers in flight and returns nil. It returns ErrClosed when
	// the bus is closed, ErrNoQueue or ErrInvalid at once for wrong arguments.
	// Several Consume calls on one queue compete for its messages.
	Consume(ctx context.Context, queue string, prefetch int, h Handler) error
}

// Bus is both ends.
type Bus interface {
	Publisher
	Consumer
	// Close stops the consumers, waits for their handlers and lets go of the
	// broker. Later calls return nil; later use answers ErrClosed.
	Close() error
}
