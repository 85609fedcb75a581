// Package failpoint names the places where the chaos suite breaks a process, and
// breaks it there. A binary built without the tag `chaos` contains nothing of it:
// Hit is then an empty function that the compiler removes with its arguments.
//
// With the tag, the variable FP says what happens where:
//
//	FP=dispatch.after_gate=exit@3;relay.after_claim=sleep:200ms
//
// exit ends the process as a kill does, with status 137; panic panics; error makes
// Hit return ErrInjected; sleep:<duration> waits; block waits until the process
// gets SIGUSR1 or the context ends. @n acts at the n-th hit only, without it every
// hit acts. A process that comes to an acting failpoint says so on standard error.
package failpoint

import "errors"

// ErrInjected is what Hit returns for the action `error`.
var ErrInjected = errors.New("failpoint: injected error")

// Point is a place in the code.
type Point string

// The points, by the path of a message. An error injected after a commit is the
// lost answer of something that was done.
const (
	// APIBeforeCommit is before the commit of a transaction that answers a call with
	// an idempotency key, APIAfterCommit after it and before the response.
	APIBeforeCommit Point = "api.before_commit"
	APIAfterCommit  Point = "api.after_commit"

	// RelayAfterClaim is a batch of the outbox claimed and not published.
	RelayAfterClaim Point = "relay.after_claim"
	// BusAfterPublish is a batch written to the broker whose confirms are not read
	// yet. It cannot fail: `error` does nothing.
	BusAfterPublish Point = "bus.after_publish"
	// RelayAfterConfirm is a batch confirmed and not marked, RelayAfterMark one marked
	// and not committed.
	RelayAfterConfirm Point = "relay.after_confirm"
	RelayAfterMark    Point = "relay.after_mark"

	// ConsumeBeforeEffect is a delivery that has had no effect yet, ConsumeBeforeAck
	// one whose effect is there and that is not acknowledged.
	ConsumeBeforeEffect Point = "consume.before_effect"
	ConsumeBeforeAck    Point = "consume.before_ack"

	// FanoutBeforeBatch is before a stretch of recipients is written, FanoutAfterBatch
	// after its commit, before its chunk is handed on, FanoutBeforeEnd when all are written and the send does not
	// say so.
	FanoutBeforeBatch Point = "fanout.before_batch"
	FanoutAfterBatch  Point = "fanout.after_batch"
	FanoutBeforeEnd   Point = "fanout.before_end"

	// DispatchAfterClaim is a leased chunk of which nothing is called.
	DispatchAfterClaim Point = "dispatch.after_claim"
	// DispatchAfterGate is a window that counts as called, before its first byte.
	DispatchAfterGate Point = "dispatch.after_gate"
	// DispatchAfterResponse is a window that the provider has answered and whose
	// outcomes are not stored.
	DispatchAfterResponse Point = "dispatch.after_response"
	// DispatchAfterStore is a chunk with all outcomes stored, before its runner ends.
	DispatchAfterStore Point = "dispatch.after_store"
)

// Points are all of them.
func Points() []Point {
	return []Point{
		APIBeforeCommit, APIAfterCommit, RelayAfterClaim, BusAfterPublish, RelayAfterConfirm, RelayAfterMark,
		ConsumeBeforeEffect, ConsumeBeforeAck, FanoutBeforeBatch, FanoutAfterBatch, FanoutBeforeEnd,
		DispatchAfterClaim, DispatchAfterGate, DispatchAfterResponse, DispatchAfterStore,
	}
}
