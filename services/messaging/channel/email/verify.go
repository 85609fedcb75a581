package email

import (
	"context"
	"strings"

	"github.com/turumba/turumba/services/messaging/channel"
)

// Verify connects, encrypts, logs in and says goodbye on a connection of its own.
func (s *sender) Verify(ctx context.Context) channel.Result {
	short, cancel := context.WithTimeout(ctx, s.cfg.Timeouts.Verify)
	defer cancel()
	w, failed := s.connect(short)
	if failed == nil {
		w.quit()
		return channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK}
	}
	if failed.Code == codeCancelled && ctx.Err() == nil {
		*failed = fail(channel.ClassTransient, codeConnect)
	}
	return uniform(*failed)
}

// uniform keeps what helps the channel's owner and drops what would turn Verify
// into a port scanner: every failure before a mail server has shown itself is
// the same, and what the far end said is repeated only where it refused the login.
func uniform(res channel.Result) channel.Result {
	if res.Code == codeTLS && res.Class != channel.ClassConfig {
		res.Code = codeConnect
	}
	switch res.Code {
	case codeTLS, codeNoStartTLS, codePlaintext, codeNoAuth, codeCancelled:
		return fail(res.Class, res.Code)
	case "535", "534", "530", "538":
		return login(res, "the mail server refused the login")
	case "454":
		return login(res, "the mail server cannot log in or encrypt right now")
	default:
		return fail(channel.ClassTransient, codeConnect)
	}
}

func login(res channel.Result, text string) channel.Result {
	if strings.HasPrefix(res.RawExcerpt, stageAuth.String()+":") {
		text = channel.Beside(text, res.Text)
	}
	return channel.Result{Outcome: channel.NotSent, Class: res.Class, Code: res.Code, SubCode: res.SubCode, Text: text}
}
