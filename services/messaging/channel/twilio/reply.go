package twilio

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/turumba/turumba/services/messaging/channel"
)

// answer is the part of Twilio's JSON that matters, of a message and of an error.
type answer struct {
	SID string `json:"sid"`
	// Status is a word in a message or an account, the HTTP status in an error.
	Status       any         `json:"status"`
	ErrorCode    json.Number `json:"error_code"`
	ErrorMessage string      `json:"error_message"`
	Code         json.Number `json:"code"`
	Message      string      `json:"message"`
}

// parse reads an answer; not ok means that it is none.
func parse(r reply) (a answer, ok bool) {
	if r.torn || json.Unmarshal(r.body, &a) != nil {
		return answer{}, false
	}
	return a, true
}

// number is a code of Twilio's; 0 for none.
func number(n json.Number) int {
	code, err := strconv.Atoi(n.String())
	if err != nil || code < 0 {
		return 0
	}
	return code
}

// understand turns an answer into a Result.
func (s *sender) understand(r reply, m *channel.Message) channel.Result {
	a, ok := parse(r)
	if r.status < 200 || r.status > 299 {
		return s.refused(r, refusal{status: r.status, code: number(a.Code), text: a.Message}, m)
	}
	switch {
	case !ok || !messageSID.MatchString(a.SID):
		return lost(codeProtocol)
	case a.Status == "failed" || a.Status == "undelivered" || a.Status == "canceled":
		// Taken and given up at once: no callback will tell.
		return s.refused(r, refusal{status: http.StatusBadRequest, code: number(a.ErrorCode), text: a.ErrorMessage}, m)
	}
	return channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK, ProviderIDs: []string{a.SID}}
}

// refusal is what Twilio did not like.
type refusal struct {
	status, code int
	text         string
}

// refused says what a refusal means. The text never repeats the recipient's number
// or a secret.
func (s *sender) refused(r reply, why refusal, m *channel.Message) channel.Result {
	hint := retryAfter(r.header.Get("Retry-After"), s.cfg.Clock.Now())
	outcome, class := classify(why.status, why.code, hint > 0)
	code := strconv.Itoa(why.status)
	if why.code != 0 {
		code = strconv.Itoa(why.code)
	}
	digits := strings.TrimPrefix(m.To, "+")
	if outcome == channel.Unknown {
		return channel.Lost(code, channel.Beside("Twilio may or may not have taken the message", s.redact.Clean(why.text, channel.MaxText, m.To, digits)))
	}
	res := channel.Result{Outcome: outcome, Class: class, Code: code, Text: s.redact.Clean(why.text, channel.MaxText, m.To, digits)}
	if why.code != 0 {
		res.SubCode = strconv.Itoa(why.status)
	}
	if res.Text == "" {
		res.Text = "Twilio refused the message"
	}
	res.RawExcerpt = s.redact.Clean(res.SubCode+" "+code+" "+why.text, channel.MaxExcerpt, m.To, digits)
	if class == channel.ClassRateLimited || class == channel.ClassTransient {
		res.RetryAfter = channel.ClampRetryAfter(orElse(hint, pauseOf(why.code)))
	}
	return res
}

func orElse(d, other time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return other
}

// retryAfter reads seconds or a date (RFC 9110); 0 for neither and for the past.
func retryAfter(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
