package sim

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Stage is where a script acts.
type Stage uint8

// Stages.
const (
	// StageNone is the ordinary course.
	StageNone Stage = iota
	// StageMail answers MAIL; only for senders.
	StageMail
	// StageRcpt answers RCPT.
	StageRcpt
	// StageData answers DATA instead of 354.
	StageData
	// StageEnd acts after the final dot.
	StageEnd
)

// Script is what one recipient asks for by the prefix of its local part.
type Script struct {
	// Stage is where it acts.
	Stage Stage
	// Reply is the answer; without Accept the message is not taken, with it the answer
	// is not the usual one.
	Reply string
	// HangUp closes the connection after the reply, Reset resets it without one.
	HangUp, Reset bool
	// Accept takes and journals the message; Silent then never answers.
	Accept, Silent bool
	// Delay is a wait before the answer to the final dot.
	Delay time.Duration
}

// prefixes is the table of scripts; it never changes.
var prefixes = [...]Prefix{
	{"nouser-", "550 5.1.1 at RCPT", Script{Stage: StageRcpt, Reply: "550 5.1.1 no such user"}},
	{"full-", "452 4.2.2 at RCPT", Script{Stage: StageRcpt, Reply: "452 4.2.2 mailbox full"}},
	{"quota-", "552 5.2.2 at RCPT", Script{Stage: StageRcpt, Reply: "552 5.2.2 mailbox full"}},
	{"grey-", "451 4.7.1 with a hint of 5 minutes at RCPT", Script{Stage: StageRcpt, Reply: "451 4.7.1 greylisted, try again in 5 minutes"}},
	{"busy-", "421 at RCPT, then closes", Script{Stage: StageRcpt, Reply: "421 4.3.2 too busy, try again in 30 seconds", HangUp: true}},
	{"badfrom-", "550 5.1.8 at MAIL; for senders", Script{Stage: StageMail, Reply: "550 5.1.8 sender refused"}},
	{"rset-before-", "resets before DATA is answered", Script{Stage: StageData, Reset: true}},
	{"nodata-", "451 4.3.2 at DATA", Script{Stage: StageData, Reply: "451 4.3.2 not now"}},
	{"tempfail-", "451 after the final dot", Script{Stage: StageEnd, Reply: "451 local error in processing, try again later"}},
	{"toobig-", "552 5.3.4 after the final dot", Script{Stage: StageEnd, Reply: "552 5.3.4 message too big"}},
	{"spam-", "554 5.7.1 after the final dot", Script{Stage: StageEnd, Reply: "554 5.7.1 message refused as spam"}},
	{"reset-", "accepts and journals, then resets instead of answering", Script{Stage: StageEnd, Accept: true, Reset: true}},
	{"silent-", "accepts and journals, then never answers", Script{Stage: StageEnd, Accept: true, Silent: true}},
}

// Prefixes returns the fixed prefixes and what they do, in the order they are
// looked for. "slow-<milliseconds>-" may stand before any of them and delays the
// answer to the final dot.
func Prefixes() []Prefix { return slices.Clone(prefixes[:]) }

// Prefix is one entry of Prefixes.
type Prefix struct {
	// Text begins the local part.
	Text string
	// Meaning is one line for people.
	Meaning string
	// Script is what happens.
	Script Script
}

// scriptOf returns the script of an address; the zero Script for ordinary ones.
// Ordinary addresses are recognised by having no hyphen.
func scriptOf(address string) Script {
	local, _, _ := strings.Cut(address, "@")
	if strings.IndexByte(local, '-') < 0 {
		return Script{}
	}
	delay, local := cutDelay(local)
	for i := range prefixes {
		if strings.HasPrefix(local, prefixes[i].Text) {
			found := prefixes[i].Script
			found.Delay = delay
			return found
		}
	}
	if delay > 0 {
		return Script{Stage: StageEnd, Accept: true, Delay: delay}
	}
	return Script{}
}

// cutDelay takes "slow-<ms>-" off the front.
func cutDelay(local string) (time.Duration, string) {
	rest, ok := strings.CutPrefix(local, "slow-")
	if !ok {
		return 0, local
	}
	number, rest, _ := strings.Cut(rest, "-")
	ms, err := strconv.ParseUint(number, 10, 20)
	if err != nil {
		return 0, local
	}
	return time.Duration(ms) * time.Millisecond, rest
}
