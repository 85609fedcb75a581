package messaging

import (
	"math"
	"strings"
	"time"

	"github.com/turumba/turumba/services/messaging/channel"
)

// Outcome is what becomes of a message after an attempt, or without one.
type Outcome struct {
	MessageID string
	// Ordinal is the message's place in its chunk, where an adapter was asked.
	Ordinal int
	// Status is the state the message gets: sent, failed (tried again after
	// RetryIn), queued (waits RetryIn, no attempt used) or permanently_failed.
	Status string
	// ProviderID is the provider's name for the message.
	ProviderID string
	// Code is our word for a failure, ProviderCode and Text the provider's.
	Code, ProviderCode, Text string
	// Attempt is the outcome word of an attempt that took place; empty for none.
	Attempt string
	// Class is the adapter's class of the attempt.
	Class string
	// RetryIn is how long the message waits when it is failed or queued.
	RetryIn time.Duration
	// Expiring says that the message has a not_after, which somebody watches.
	Expiring bool
	// Slow says that the provider asked to slow down and did not say for how long.
	Slow bool
}

// Unknown reports whether the message may or may not have arrived and is held.
func (o Outcome) Unknown() bool {
	return o.Status == MessagePermanentlyFailed && o.Code == CodeOutcomeUnknown
}

const (
	// MendedCheck is how long messages wait before they try a channel again whose
	// settings or balance are wrong.
	MendedCheck = 5 * time.Second
	// DefaultPause is how long a channel rests when the provider throttles and
	// gives no hint.
	DefaultPause = 2 * time.Second
	// deferral is the least interval of retries for a recipient who is refused for now.
	// Greylisting takes five minutes with Postgrey's default and up to an hour elsewhere
	// (RFC 6647, section 5): three retries span 17 to 35 minutes.
	deferral = 5 * time.Minute
	// maxRetryWait bounds the exponential growth of retry waits.
	maxRetryWait = time.Hour
)

// Decide turns an adapter's result into an outcome (decisions D7 and D8).
// attempts is how many the message has used before this one; random is in [0, 1).
func Decide(r channel.Result, c *Channel, attempts int32, random float64) Outcome {
	o := Outcome{ProviderID: strings.Join(r.ProviderIDs, ","), Code: r.Class.String(), ProviderCode: r.Code, Text: r.Text, Class: r.Class.String(), Attempt: r.Outcome.String()}
	switch r.Class {
	case channel.ClassOK:
		return Outcome{Status: MessageSent, ProviderID: o.ProviderID, Attempt: o.Attempt, Class: o.Class}
	case channel.ClassRateLimited:
		o.Status, o.Attempt, o.RetryIn, o.Slow = MessageQueued, "", Pause(r), r.RetryAfter <= 0
	case channel.ClassConfig, channel.ClassBilling:
		o.Status, o.Attempt, o.RetryIn = MessageQueued, "", MendedCheck
	case channel.ClassTransient, channel.ClassDeferred:
		interval := time.Duration(c.RetryInterval) * time.Second
		if r.Class == channel.ClassDeferred {
			interval = max(interval, deferral)
		}
		if o.Status, o.RetryIn = retry(c, interval, attempts, random); o.Status == MessageFailed {
			o.RetryIn = max(o.RetryIn, r.RetryAfter) // never sooner than the provider asked
		}
	case channel.ClassRefused:
		if o.Status = MessagePermanentlyFailed; attempts == 0 {
			o.Status, o.RetryIn = retry(c, deferral, attempts, random)
		}
	case channel.ClassUnknown:
		return DecideUnknown(c, attempts, random, o)
	case channel.ClassPermanentRecipient, channel.ClassPermanentContent, channel.ClassOptedOut, channel.ClassWindowClosed:
		o.Status = MessagePermanentlyFailed
	default: // an adapter that broke its contract may have sent the message
		return DecideUnknown(c, attempts, random, o)
	}
	return o
}

// DecideUnknown says what becomes of a message that may or may not have
// arrived: held for good, or sent again where the channel says so.
func DecideUnknown(c *Channel, attempts int32, random float64, o Outcome) Outcome {
	o.Code, o.Class, o.Attempt, o.Status = CodeOutcomeUnknown, channel.ClassUnknown.String(), channel.Unknown.String(), MessagePermanentlyFailed
	if o.Text == "" {
		o.Text = "the provider may or may not have taken the message"
	}
	if c != nil && c.OnUnknown == UnknownResend {
		o.Status, o.RetryIn = retry(c, time.Duration(c.RetryInterval)*time.Second, attempts, random)
	}
	return o
}

// Pause is how long a channel rests after the provider throttled it.
func Pause(r channel.Result) time.Duration {
	if r.RetryAfter > 0 {
		return r.RetryAfter
	}
	return DefaultPause
}

// Failing reports whether the outcome says that the provider does not work. An answer
// that never came counts: each further call would be one more that nobody knows of.
func (o Outcome) Failing() bool {
	return o.Class == channel.ClassTransient.String() || o.Class == channel.ClassUnknown.String()
}

// Refused reports whether the provider refuses the channel itself.
func (o Outcome) Refused() bool {
	return o.Class == channel.ClassConfig.String() || o.Class == channel.ClassBilling.String()
}

// WhyItRests is what is said of the channel that the outcome makes rest: the sentence of the
// provider, or of what happened to the call, beside ours.
func (o Outcome) WhyItRests() string {
	switch {
	case o.Refused() && o.Text != "":
		return o.Text
	case o.Refused():
		return "the provider refuses the channel and does not say why (" + o.ProviderCode + ")"
	case o.Text == "":
		return "the provider does not answer; messages wait and are tried again"
	}
	return "the provider does not work: " + o.Text + "; messages wait and are tried again"
}

// Wordless reports whether the outcome is our decision alone, which leaves the message what
// the provider said of it before.
func (o Outcome) Wordless() bool {
	return o.ProviderCode == "" && o.Text == "" && o.Code != CodeOptedOut
}

// Held is the outcome of a message that was not called, because an earlier one found
// out that the channel must wait.
func Held(messageID, why string, wait time.Duration) Outcome {
	return Outcome{MessageID: messageID, Status: MessageQueued, Code: why, RetryIn: wait}
}

// retry is failed while the channel grants retries: the interval, doubled with each attempt,
// half of it for sure and up to the other half by chance, so that messages that failed
// together do not come back together.
func retry(c *Channel, interval time.Duration, attempts int32, random float64) (status string, in time.Duration) {
	if attempts >= c.RetryCount {
		return MessagePermanentlyFailed, 0
	}
	wait := min(float64(interval)*math.Pow(2, float64(attempts)), float64(maxRetryWait))
	return MessageFailed, time.Duration(wait/2 + random*wait/2)
}
