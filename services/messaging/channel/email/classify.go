package email

import (
	"bytes"
	"slices"

	"github.com/turumba/turumba/services/messaging/channel"
)

// stage is the point of the dialogue a reply belongs to. The same code means
// different things at different stages.
type stage uint8

const (
	stageGreeting stage = iota
	stageHello
	stageStartTLS
	stageAuth
	stageReset
	stageMail
	stageRcpt
	stageData
	stageEnd
)

// String returns the command, for excerpts.
func (s stage) String() string {
	return [...]string{"CONNECT", "EHLO", "STARTTLS", "AUTH", "RSET", "MAIL", "RCPT", "DATA", "END"}[s]
}

// classify maps a refusal (4xx or 5xx) to its class: what it is about decides who waits. The
// enhanced status (RFC 3463) comes before the stage, since it says what the code alone does
// not. testdata/replies.csv has the replies that are known, each with its source.
func classify(at stage, code int, s status, text []byte) channel.Class {
	if code < 500 {
		return classifyTemporary(at, code, s, text)
	}
	switch {
	case at < stageReset:
		return channel.ClassConfig
	case code == 530 || code == 534 || code == 535 || code == 538 || s == status{5, 7, 3}:
		return channel.ClassConfig
	case s == status{5, 1, 7} || s == status{5, 1, 8} || s == status{5, 4, 5} || says(text, ofSender):
		return channel.ClassConfig
	case s == status{5, 2, 2}:
		return channel.ClassDeferred
	case s == status{5, 3, 4} || s == status{5, 2, 3} || s.class == 5 && s.subject == 6 || code == 555:
		return channel.ClassPermanentContent
	case recipientStatus(s) && at != stageMail:
		return channel.ClassPermanentRecipient
	}
	return classifyByStage(at, code, s, text)
}

// What servers say in words where the status says less.
var (
	// ofSender: the account may not send, not as this sender or not any more today, or the
	// server does not relay for it.
	ofSender = []string{
		"relay access denied", "relaying denied", "relay denied", "unable to relay", "cannot relay", "not permitted to relay", "relay not permitted", "relaying not allowed", "rcpthosts",
		"sender address rejected", "sender rejected", "not owned by user", "sending limit", "sending quota", "relay limit",
	}
	// ofRecipient: there is no such mailbox.
	ofRecipient = []string{
		"no such user", "no such mailbox", "no such recipient", "no such address", "no mailbox", "user unknown", "unknown user", "unknown recipient", "recipient unknown",
		"user not found", "recipient not found", "mailbox not found", "does not exist", "doesn't exist", "mailbox unavailable", "mailbox name not allowed",
		"invalid recipient", "invalid mailbox", "not a valid mailbox", "not our customer", "account has been disabled", "mailbox disabled",
	}
	greylisting = []string{"greylist", "graylist", "grey list", "gray list", "grey-list", "gray-list", "postgrey"}
)

// says reports whether the text has one of the words, in large or small letters.
func says(text []byte, words []string) bool {
	text = bytes.ToLower(text)
	return slices.ContainsFunc(words, func(word string) bool { return bytes.Contains(text, []byte(word)) })
}

// classifyTemporary maps a 4xx. What the server says of its load and of the sender's pace
// asks the channel to slow down; what it says of one recipient is that recipient's alone.
func classifyTemporary(at stage, code int, s status, text []byte) channel.Class {
	switch {
	case at == stageAuth:
		return channel.ClassTransient
	case greylists(s, text):
		return channel.ClassDeferred
	case code == 421 || s.class == 4 && (s.subject == 3 || s.subject == 7) || s == status{4, 5, 3}:
		return channel.ClassRateLimited
	case at == stageRcpt || s.class == 4 && (s.subject == 1 || s.subject == 2) && at > stageRcpt:
		return channel.ClassDeferred
	}
	return channel.ClassTransient
}

// greylists reports whether a recipient is refused for now only because the server does not
// know the pair yet (RFC 6647): those that do say it in words, with 4.2.0, 4.7.0 or 4.7.1.
func greylists(s status, text []byte) bool {
	return (s.class == 4 || s == status{}) && says(text, greylisting)
}

// classifyByStage decides where the enhanced status did not. A recipient who is refused for
// none of the reasons of recipients may be refused because of the sender, which shows when
// others are too.
func classifyByStage(at stage, code int, s status, text []byte) channel.Class {
	policy := s.class == 5 && s.subject == 7
	switch at {
	case stageMail:
		if policy || code == 550 || code == 553 || code == 501 {
			return channel.ClassConfig
		}
	case stageRcpt:
		switch {
		case code == 552: // RFC 5321, section 4.5.3.1.10: as 452
			return channel.ClassDeferred
		case code == 500 || code == 502 || code == 503 || code == 504:
			return channel.ClassPermanentContent
		case policy || s == status{} && code != 551 && code != 556 && code != 501 && !says(text, ofRecipient):
			return channel.ClassRefused
		}
		return channel.ClassPermanentRecipient
	}
	return channel.ClassPermanentContent
}

// recipientStatus reports whether the status names the mailbox of the recipient.
func recipientStatus(s status) bool {
	if s.class != 5 {
		return false
	}
	switch [2]int{s.subject, s.detail} {
	case [2]int{1, 1}, [2]int{1, 2}, [2]int{1, 3}, [2]int{1, 6}, [2]int{1, 10}, [2]int{2, 1}:
		return true
	}
	return false
}
