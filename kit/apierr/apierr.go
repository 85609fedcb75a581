// Package apierr defines the one error that may leave a service. It carries a
// machine-readable reason from the contract; the gRPC code and the HTTP status
// both follow from that reason. Any other error is an internal error, whose
// text never reaches a caller.
package apierr

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
)

// Domain is the ErrorInfo domain of every error of the product.
const Domain = "turumba"

// Error is an error that a caller may see. Make one with New or NotFound; treat
// it as immutable, since the With methods return copies.
type Error struct {
	// Code is the gRPC status code; it follows from Reason.
	Code codes.Code
	// Reason is the machine-readable reason.
	Reason errorv1.Reason
	// Message is a sentence for a person. It must hold no secret.
	Message string
	// Fields names the request fields that are wrong; empty unless the request
	// itself is at fault.
	Fields []Field
	// RetryAfter is how long the caller should wait before trying again; zero
	// means nothing is known.
	RetryAfter time.Duration
	// Meta holds further machine-readable facts. It must hold no secret.
	Meta map[string]string

	cause error
}

// Field is one wrong field of a request.
type Field struct {
	// Field is the path of the field in the request, for example
	// "contacts[3].email".
	Field string
	// Message says what is wrong with it.
	Message string
}

// leastWait is what somebody is told to wait at least who was refused for coming too often.
const leastWait = time.Second

// New returns an error with the reason and a message built as by fmt.Sprintf. One of
// RATE_LIMITED is made with RateLimited, which knows how long to wait.
func New(reason errorv1.Reason, format string, a ...any) *Error {
	e := &Error{Code: CodeOf(reason), Reason: reason, Message: fmt.Sprintf(format, a...)}
	if reason == errorv1.Reason_REASON_RATE_LIMITED {
		e.RetryAfter = leastWait
	}
	return e
}

// NotFound returns the NOT_FOUND error of a resource. Its text is the same for
// every id, so it does not tell a foreign id from a random one.
func NotFound(resource string) *Error {
	return New(errorv1.Reason_REASON_NOT_FOUND, "%s not found", resource)
}

// RateLimited returns the RATE_LIMITED error, which says how long to wait, in words too.
func RateLimited(wait time.Duration, format string, a ...any) *Error {
	wait = max(wait, leastWait)
	return New(errorv1.Reason_REASON_RATE_LIMITED, "%s; try again in %s", fmt.Sprintf(format, a...), Lasting(wait)).WithRetryAfter(wait)
}

// Lasting is a duration in words, in whole seconds, minutes or hours, rounded up.
func Lasting(d time.Duration) string {
	unit, name := time.Second, "second"
	switch {
	case d >= 2*time.Hour:
		unit, name = time.Hour, "hour"
	case d >= 2*time.Minute:
		unit, name = time.Minute, "minute"
	}
	n := (d + unit - 1) / unit
	if n != 1 {
		name += "s"
	}
	return fmt.Sprintf("%d %s", n, name)
}

// Unauthenticated returns the UNAUTHENTICATED error. Its text is the same whatever was
// wrong with the token, so that nobody learns by it; the cause goes to the log.
func Unauthenticated(cause error) *Error {
	return New(errorv1.Reason_REASON_UNAUTHENTICATED, "the token is missing or not valid").Wrap(cause)
}

// Internal returns the INTERNAL error with its fixed text; the cause goes to the
// log and nowhere else.
func Internal(cause error) *Error {
	return New(errorv1.Reason_REASON_INTERNAL, "internal error").Wrap(cause)
}

// WithFields returns a copy that also names the given fields.
func (e *Error) WithFields(fields ...Field) *Error {
	c := *e
	c.Fields = append(slices.Clone(e.Fields), fields...)
	return &c
}

// WithRetryAfter returns a copy that tells the caller to wait for d.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// WithMeta returns a copy that also carries the fact key = value.
func (e *Error) WithMeta(key, value string) *Error {
	c := *e
	c.Meta = maps.Clone(e.Meta)
	if c.Meta == nil {
		c.Meta = make(map[string]string, 1)
	}
	c.Meta[key] = value
	return &c
}

// Wrap returns a copy with the cause, which appears in logs (Error) but never in
// what the caller receives.
func (e *Error) Wrap(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// Error returns the reason, the message and the cause, for logs.
func (e *Error) Error() string {
	text := Name(e.Reason) + ": " + e.Message
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is an *Error with the same reason.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Reason == e.Reason
}

// HasReason reports whether err is, wraps or carries as a gRPC status the reason.
func HasReason(err error, reason errorv1.Reason) bool {
	return err != nil && From(err).Reason == reason
}

// asError finds an *Error in the chain of err.
func asError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
