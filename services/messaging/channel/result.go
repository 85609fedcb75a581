package channel

import "time"

const (
	// MaxText is the longest Result.Text in bytes.
	MaxText = 256
	// MaxExcerpt is the longest Result.RawExcerpt in bytes.
	MaxExcerpt = 1024
	// MaxRetryAfter is the longest hint that is taken from a provider.
	MaxRetryAfter = 15 * time.Minute
	// MinRetryAfter is the shortest hint that is passed on.
	MinRetryAfter = time.Second
)

// Outcome says where the message is now.
type Outcome uint8

// Outcomes. The zero value is no outcome, so a forgotten one is noticed.
const (
	// Accepted: the provider confirmed that it took the message.
	Accepted Outcome = iota + 1
	// Rejected: the provider answered and did not take the message.
	Rejected
	// NotSent: the message cannot have reached the provider.
	NotSent
	// Unknown: the message was handed over and no answer came.
	Unknown
)

// String returns the word used in the database and in logs.
func (o Outcome) String() string {
	switch o {
	case Accepted:
		return "accepted"
	case Rejected:
		return "rejected"
	case NotSent:
		return "not_sent"
	case Unknown:
		return "unknown"
	default:
		return "invalid"
	}
}

// Class says why, in the terms the loop decides by.
type Class uint8

// Classes. The zero value is no class.
const (
	// ClassOK belongs to Accepted.
	ClassOK Class = iota + 1
	// ClassRateLimited: too fast; the channel waits RetryAfter, no attempt is used.
	ClassRateLimited
	// ClassTransient: the provider does not work as it should; the same message may succeed
	// later.
	ClassTransient
	// ClassPermanentRecipient: this address will not work.
	ClassPermanentRecipient
	// ClassPermanentContent: this message will not be taken.
	ClassPermanentContent
	// ClassOptedOut: the recipient refuses messages of this sender.
	ClassOptedOut
	// ClassWindowClosed: the provider's conversation window is over.
	ClassWindowClosed
	// ClassConfig: the channel's settings or credentials are wrong; it is paused
	// and its messages stay queued.
	ClassConfig
	// ClassBilling: the provider account has no balance; as ClassConfig.
	ClassBilling
	// ClassUnknown belongs to Unknown.
	ClassUnknown
	// ClassDeferred: the provider works and does not take this recipient's message yet (a full
	// mailbox, greylisting); it is tried again later, and the channel goes on.
	ClassDeferred
	// ClassRefused: the provider refuses this recipient's message for good, for a reason that
	// may be the sender's. It is tried once more; where many recipients are refused alike,
	// the channel is.
	ClassRefused
)

// String returns the word used in the database, metrics and logs.
func (c Class) String() string {
	words := [...]string{
		"invalid", "ok", "rate_limited", "transient", "permanent_recipient", "permanent_content",
		"opted_out", "window_closed", "config", "billing", "unknown", "deferred", "refused",
	}
	if int(c) >= len(words) {
		return words[0]
	}
	return words[c]
}

// Result is the outcome of one attempt. No field holds a secret or the
// recipient's address.
type Result struct {
	Outcome Outcome
	Class   Class
	// ProviderIDs are the provider's names for the message, one per part. Set when
	// the outcome is Accepted, and when it is Unknown if the id is ours.
	ProviderIDs []string
	// RetryAfter is the provider's hint; 0 when it gave none.
	RetryAfter time.Duration
	// Code and SubCode are the provider's own, or a fixed lower-case word for what
	// happened before it answered ("connect_failed").
	Code, SubCode string
	// Text is one line for the account's users, at most MaxText bytes.
	Text string
	// RawExcerpt is what the provider said, for support, at most MaxExcerpt bytes.
	RawExcerpt string
}

// Fail returns a Result that says the message did not leave.
func Fail(class Class, code, text string) Result {
	return Result{Outcome: NotSent, Class: class, Code: code, Text: text}
}

// Lost returns the Result of a message that was handed over without an answer.
func Lost(code, text string) Result {
	return Result{Outcome: Unknown, Class: ClassUnknown, Code: code, Text: text}
}

// Beside puts what the provider said, cleaned, beside our sentence.
func Beside(ours, theirs string) string {
	if theirs == "" {
		return ours
	}
	return truncate(ours+": "+theirs, MaxText)
}

// ClampRetryAfter brings a provider's hint into the accepted range; 0 and less
// mean no hint.
func ClampRetryAfter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return min(max(d, MinRetryAfter), MaxRetryAfter)
}
