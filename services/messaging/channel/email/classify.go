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
	case aboutSender(s, text):
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

// aboutSender reports whether a reply, temporary or for good, is about who sends: the address,
// the account, what it may send today, or what its domain proves of it (RFC 7372: 5.7.20 to
// 5.7.27). It is the same for every recipient, at whatever stage it comes.
func aboutSender(s status, text []byte) bool {
	switch {
	case s.subject == 1 && (s.detail == 7 || s.detail == 8), s == status{5, 4, 5}:
		return true
	case s.class == 5 && s.subject == 7 && s.detail >= 20 && s.detail <= 27:
		return true
	}
	return says(text, ofSender) || says(text, ofLimit) && says(text, ofTime) && !says(text, ofMailbox)
}

// What servers say in words where the status says less.
var (
	// ofSender: the account may not send, not as this sender or not any more today, or the
	// server does not relay for it.
	ofSender = []string{
		"relay access denied", "relaying denied", "relay denied", "unable to relay", "cannot relay", "not permitted to relay", "relay not permitted", "relaying not allowed", "rcpthosts",
		"sender address rejected", "sender rejected", "sender verify failed", "not owned by user", "sending limit", "sending quota", "relay limit", "message quota", "relay quota",
		"permissions to send as", "permission to send as", "sendasdenied", "not one of your addresses", "verified sender", "address is not verified", "failed the check",
		"sending paused", "sending is paused", "sending has been", "account is suspended", "account has been suspended", "account suspended", "unusual sending activity",
		"sender is unauthenticated", "permanently deferred", "credits exceeded", "exceeded the number of recipients", "quota exceeded for this account",
	}
	// ofLimit, ofTime: so many in so long, which is the account's, unless it is the mailbox's.
	ofLimit   = []string{"limit", "quota", "exceeded", "too many"}
	ofTime    = []string{"daily", "hourly", "per day", "per hour", "today", "monthly", "per month", "24 hours"}
	ofMailbox = []string{"mailbox", "over quota", "recipient's", "receiving"}
	// ofRecipient: there is no such mailbox.
	ofRecipient = []string{
		"no such user", "no such mailbox", "no such recipient", "no such address", "no mailbox", "user unknown", "unknown user", "unknown recipient", "recipient unknown",
		"user not found", "recipient not found", "mailbox not found", "does not exist", "doesn't exist", "mailbox unavailable", "mailbox name not allowed",
		"invalid recipient", "invalid mailbox", "not a valid mailbox", "not our customer", "account has been disabled", "mailbox disabled",
	}
	// ofContent: this text is not wanted.
	ofContent = []string{
		"spam", "virus", "malware", "content", "unsolicited", "bulk", "attachment", "message rejected", "blocked url", "phish", "message size", "too large", "too big", "line too long", "header",
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
	case greylists(s, text):
		return channel.ClassDeferred
	case aboutSender(s, text), at == stageAuth && code == 432: // RFC 4954, section 4.7.12: the user has to do something
		return channel.ClassConfig
	case at == stageAuth: // nobody's message
		return channel.ClassRateLimited
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
	case stageData, stageEnd:
		if (policy || s == status{}) && !says(text, ofContent) {
			return channel.ClassRefused
		}
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
	case [2]int{7, 124}, [2]int{7, 129}, [2]int{7, 133}, [2]int{7, 134}, [2]int{7, 135}, [2]int{7, 136}: // groups and mailboxes of Exchange that take mail of some only
		return true
	}
	return false
}
