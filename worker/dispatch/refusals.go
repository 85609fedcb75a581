package dispatch

import (
	"hash/maphash"
	"strings"
	"time"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

const (
	// refusedRun is how many recipients who are refused alike, in refusedDomains domains at
	// least, mean that the provider refuses the channel (decision G10).
	refusedRun     = 10
	refusedDomains = 2
)

// refusals are the recipients of a channel who were refused alike since somebody was not.
type refusals struct {
	code, subCode string
	recipients    map[uint64]struct{}
	domains       map[uint64]struct{}
	// whole: there were enough of them, and nobody was served since.
	whole bool
}

// throttles tell a provider that is called too fast from a message that it never takes for
// now, which would make the channel rest again and again.
type throttles struct {
	served uint64
	of     map[string]throttled // by message
	rests  int                  // since somebody was served
	until  time.Time            // of the last one
}

// mostRests is how often a rest becomes twice as long: from 2 s to some four minutes.
const mostRests = 7

// rest is how long a channel rests whose provider says that it is called too fast, and not for
// how long: twice as long as the time before, until somebody is served.
func (f *throttles) rest(now time.Time) time.Duration {
	if !now.Before(f.until) {
		f.until = now.Add(messaging.DefaultPause << min(f.rests, mostRests))
		f.rests++
	}
	return f.until.Sub(now)
}

// throttled is how often a message was refused as too fast though others were served since,
// and how many had been when it was last.
type throttled struct {
	served uint64
	times  int
}

const (
	// unlucky is how often in a row a message may be the one that comes too fast.
	unlucky = 10
	// mostThrottled is how many messages are remembered.
	mostThrottled = 4096
)

// add takes in what became of a call, and reports whether its refusal is about the message
// rather than the pace of the channel.
func (f *throttles) add(res channel.Result, messageID string) bool {
	if res.Class == channel.ClassOK {
		f.served++
		f.rests = 0
	}
	if res.Class != channel.ClassRateLimited {
		delete(f.of, messageID)
		return false
	}
	last, before := f.of[messageID]
	if before && f.served == last.served {
		return false
	}
	if last.times++; last.times > unlucky {
		delete(f.of, messageID)
		return true
	}
	if f.of == nil || len(f.of) >= mostThrottled {
		f.of = map[string]throttled{}
	}
	f.of[messageID] = throttled{served: f.served, times: last.times}
	return false
}

var refusalSeed = maphash.MakeSeed()

// add takes in what became of a call, and reports whether the channel is refused rather than
// the recipient. Who was refused before, when others were served, says nothing new: all of a
// send's come together again when it is time for their next try.
func (f *refusals) add(res channel.Result, to string, again bool) bool {
	switch {
	case res.Class == channel.ClassOK:
		*f = refusals{}
		return false
	case res.Class != channel.ClassRefused:
		return false
	case again && !f.whole:
		return false
	case f.recipients == nil || f.code != res.Code || f.subCode != res.SubCode:
		*f = refusals{code: res.Code, subCode: res.SubCode, recipients: map[uint64]struct{}{}, domains: map[uint64]struct{}{}}
	}
	if !f.whole {
		to = strings.ToLower(to)
		f.recipients[maphash.String(refusalSeed, to)] = struct{}{}
		f.domains[maphash.String(refusalSeed, to[strings.LastIndexByte(to, '@')+1:])] = struct{}{}
		f.whole = len(f.recipients) >= refusedRun && len(f.domains) >= refusedDomains
	}
	return f.whole
}
