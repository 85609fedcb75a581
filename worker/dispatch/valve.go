package dispatch

import (
	"sync"
	"time"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// codeCircuitOpen is why messages wait that nobody called.
const codeCircuitOpen = "circuit_open"

// valve is what a process knows of a channel from one window to the next, for both
// lanes. It shuts with the first answer that asks for it, so that the rest of a window
// is not called in vain; what other processes must know is in the database.
type valve struct {
	channelID, accountID string
	// changed is told when the channel's pace did; it must not call the valve.
	changed func(*valve, pace)

	mu       sync.Mutex
	breaker  breaker
	refusals refusals
	slowed   throttles
	shut     time.Time // no call before it
	why      string
	timing
}

// held is how long messages wait that must not be called now, and why; 0 if they may.
func (v *valve) held(now time.Time) (wait time.Duration, why string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return max(v.shut.Sub(now), 0), v.why
}

// note takes in what became of a call that took so long, and reports whether the channel
// tripped.
func (v *valve) note(o messaging.Outcome, took time.Duration, now time.Time) (tripped bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.add(took, now)
	v.settle()
	switch {
	case o.Class == channel.ClassRateLimited.String() || o.Refused():
		v.close(now.Add(o.RetryIn), o.Class)
	case v.breaker.add(o.Failing(), o.Class == channel.ClassUnknown.String()):
		v.breaker = breaker{}
		v.close(now.Add(tripPause), codeCircuitOpen)
		return true
	}
	return false
}

// judge takes in the result of a call, and says what it is about where the calls before tell
// more than it does. Where many recipients were refused alike, the channel is: it rests, with
// the provider's sentence, and its messages wait. Where a message is always the one that comes
// too fast, the message is. again is whether the message was tried before.
func (v *valve) judge(res channel.Result, messageID, to string, again bool) channel.Result {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.refusals.add(res, to, again) {
		res.Class = channel.ClassConfig
	}
	if v.slowed.add(res, messageID) {
		res.Class = channel.ClassDeferred
	}
	return res
}

// rests is how long the channel rests, whose provider did not say for how long.
func (v *valve) rests(now time.Time) time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.slowed.rest(now)
}

// tripPause is how long a process by itself calls nobody; the database knows the rest.
const tripPause = time.Second

func (v *valve) close(until time.Time, why string) {
	if until.After(v.shut) {
		v.shut, v.why = until, why
	}
}

// open forgets what went wrong: the channel works.
func (v *valve) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.breaker, v.shut = breaker{}, time.Time{}
}

const (
	// tripRun is how many failures in a row trip a channel, and tripOf how many outcomes
	// are looked back at, half of which failing do too.
	tripRun = 5
	tripOf  = 20
)

// breaker decides when a channel does not work (catalogue F-54).
type breaker struct {
	run    int
	failed [tripOf]bool
	at, n  int
	fails  int
}

// add takes in one outcome and reports whether that was one too many. A provider that
// never answers trips by the run alone: now and then an answer gets lost on the way.
func (b *breaker) add(failed, unknown bool) bool {
	if !failed {
		b.run = 0
	} else {
		b.run++
	}
	if b.failed[b.at] {
		b.fails--
	}
	if b.failed[b.at] = failed && !unknown; b.failed[b.at] {
		b.fails++
	}
	b.at, b.n = (b.at+1)%tripOf, min(b.n+1, tripOf)
	return b.run >= tripRun || failed && b.n == tripOf && b.fails*2 >= tripOf
}
