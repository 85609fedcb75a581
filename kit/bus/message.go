package bus

import "fmt"

// Limits of a message, the same for every implementation so that a message
// accepted by one is accepted by the other.
const (
	// MaxBody is the largest body, in bytes.
	MaxBody = 8 << 20
	// MaxHeaders is the largest sum of the lengths of header keys and values,
	// in bytes.
	MaxHeaders = 16 << 10

	maxShortText = 255
	maxHeaderKey = 128
)

// Validate returns an error wrapping ErrInvalid if the message breaks a limit.
// Implementations call it before sending: one bad message must not cost the
// others of its batch the connection.
func (m Message) Validate() error {
	switch {
	case m.ID == "" || len(m.ID) > maxShortText:
		return fmt.Errorf("%w: message id has %d bytes, want 1 to %d", ErrInvalid, len(m.ID), maxShortText)
	case m.RoutingKey == "" || len(m.RoutingKey) > maxShortText:
		return fmt.Errorf("%w: routing key has %d bytes, want 1 to %d", ErrInvalid, len(m.RoutingKey), maxShortText)
	case len(m.Body) > MaxBody:
		return fmt.Errorf("%w: body has %d bytes, want at most %d", ErrInvalid, len(m.Body), MaxBody)
	}
	return validateHeaders(m.Headers)
}

func validateHeaders(headers map[string]string) error {
	total := 0
	for key, value := range headers {
		if key == "" || len(key) > maxHeaderKey {
			return fmt.Errorf("%w: header key has %d bytes, want 1 to %d", ErrInvalid, len(key), maxHeaderKey)
		}
		if key == HeaderContentType && len(value) > maxShortText {
			return fmt.Errorf("%w: content type has %d bytes, want at most %d", ErrInvalid, len(value), maxShortText)
		}
		total += len(key) + len(value)
	}
	if total > MaxHeaders {
		return fmt.Errorf("%w: headers have %d bytes, want at most %d", ErrInvalid, total, MaxHeaders)
	}
	return nil
}

// Names of headers with a meaning of their own.
const (
	// HeaderContentType is the media type of the body.
	HeaderContentType = "content-type"
	// HeaderDeadQueue is, on a message of the dead-letter queue, the queue in
	// which it failed.
	HeaderDeadQueue = "x-first-death-queue"
	// HeaderDeadReason is, on a message of the dead-letter queue, why it went
	// there: "delivery_limit" or "rejected".
	HeaderDeadReason = "x-first-death-reason"
)
