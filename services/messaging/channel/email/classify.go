package email

import "github.com/turumba/turumba/services/messaging/channel"

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

// classify maps a refusal (4xx or 5xx) to its class.
func classify(at stage, code int, s status) channel.Class {
	switch {
	case code < 500:
		return channel.ClassTransient
	case at < stageReset:
		return channel.ClassConfig
	case code == 530 || code == 534 || code == 535 || code == 538 || s == status{5, 7, 3}:
		return channel.ClassConfig
	case s == status{5, 1, 7} || s == status{5, 1, 8}:
		return channel.ClassConfig
	case s == status{5, 2, 2}:
		return channel.ClassTransient
	case s == status{5, 3, 4} || s == status{5, 2, 3} || s.class == 5 && s.subject == 6 || code == 555:
		return channel.ClassPermanentContent
	case recipientStatus(s) && at != stageMail:
		return channel.ClassPermanentRecipient
	}
	return classifyByStage(at, code, s)
}

// classifyByStage decides where the enhanced status did not.
func classifyByStage(at stage, code int, s status) channel.Class {
	policy := s.class == 5 && s.subject == 7
	switch at {
	case stageMail:
		if policy || code == 550 || code == 553 || code == 501 {
			return channel.ClassConfig
		}
	case stageRcpt:
		if code == 552 {
			return channel.ClassTransient
		}
		if !policy && code != 500 && code != 502 && code != 503 && code != 504 {
			return channel.ClassPermanentRecipient
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
	}
	return false
}
