package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault goes wrong with a share of the messages, on every face.
type Fault struct {
	// Kind is what happens; see FaultKinds.
	Kind string `json:"kind"`
	// Rate is the share of messages that it happens to, above 0 and up to 1.
	Rate float64 `json:"rate"`
	// From is the sender whose messages it happens to; empty for everybody's.
	From string `json:"from,omitempty"`
	// To begins the addresses of the recipients that it happens to; empty for everybody.
	To string `json:"to,omitempty"`
	// RetryAfter is the hint of an answer that has one, in seconds; 0 for none.
	RetryAfter int `json:"retry_after,omitempty"`
	// LatencyMS is a wait before anything happens, at most ten minutes.
	LatencyMS int `json:"latency_ms,omitempty"`
	// FlapMS lets the fault come and go, for so long each; 0 for a fault that stays.
	FlapMS int `json:"flap_ms,omitempty"`
}

// FaultKind is one entry of FaultKinds.
type FaultKind struct {
	// Name is the kind.
	Name string
	// Meaning is one line for people.
	Meaning string
	// Phone is what the HTTP face does, Mail what SMTP does.
	Phone PhoneScript
	Mail  Script
}

// faultKinds is the table of faults; it never changes.
var faultKinds = [...]FaultKind{
	{"slow", "nothing but the wait", PhoneScript{}, Script{Stage: StageEnd, Accept: true}},
	{"silent", "accepts and journals, then never answers", PhoneScript{Accept: true, Silent: true}, Script{Stage: StageEnd, Accept: true, Silent: true}},
	{"reset", "accepts and journals, then resets instead of answering", PhoneScript{Accept: true, Reset: true}, Script{Stage: StageEnd, Accept: true, Reset: true}},
	{"drop", "resets and takes nothing: after the request, or before the mail", PhoneScript{Reset: true}, Script{Stage: StageData, Reset: true}},
	{"unavailable", "503, or 451", errorPhone(http.StatusServiceUnavailable, 20503, "Service Unavailable"), Script{Stage: StageEnd, Reply: "451 try again later"}},
	{"throttled", "429, or 451 4.7.0", errorPhone(http.StatusTooManyRequests, 20429, "Too Many Requests"), Script{Stage: StageEnd, Reply: "451 4.7.0 too many messages"}},
	{"refused", "400 for the recipient, or 550 5.1.1", errorPhone(http.StatusBadRequest, 21211, "Invalid 'To' Phone Number"), Script{Stage: StageEnd, Reply: "550 5.1.1 no such user"}},
	{"unauthorized", "401, or 530 5.7.0", errorPhone(http.StatusUnauthorized, 20003, "Authenticate"), Script{Stage: StageData, Reply: "530 5.7.0 login required"}},
	{"unpaid", "402, or 530 5.7.0", errorPhone(http.StatusPaymentRequired, 0, "Payment Required"), Script{Stage: StageData, Reply: "530 5.7.0 pay first"}},
	{"html", "accepts and journals, then answers 200 with a page of HTML", garbage(http.StatusOK, "<html>welcome</html>"), noReply()},
	{"truncated", "accepts and journals, then answers 201 with half of its JSON", garbage(http.StatusCreated, `{"sid": "SM0123`), noReply()},
	{"no_id", "accepts and journals, then answers 201 without an id", garbage(http.StatusCreated, `{"status": "queued"}`), noReply()},
	{"huge", "accepts and journals, then answers 201 with 10 MiB", PhoneScript{Accept: true, Status: http.StatusCreated, Body: `{"status": "queued", "body": "`, Fill: 10 << 20}, noReply()},
	{"bomb", "accepts and journals, then answers 201 with 4 MiB in a few kB of gzip", PhoneScript{Accept: true, Status: http.StatusCreated, Body: `{"status": "queued", "body": "`, Fill: 4 << 20, Gzip: true}, noReply()},
	{"broken", "502 with a page of HTML, or a reply that is none", PhoneScript{Status: http.StatusBadGateway, Body: "<html>bad gateway</html>"}, Script{Stage: StageEnd, Reply: "<html>bad gateway</html>"}},
}

func errorPhone(status, code int, message string) PhoneScript {
	return PhoneScript{Status: status, Code: code, Message: message}
}

func garbage(status int, body string) PhoneScript {
	return PhoneScript{Accept: true, Status: status, Body: body}
}

// noReply is the only garbage that SMTP has.
func noReply() Script { return Script{Stage: StageEnd, Accept: true, Reply: "<html>welcome</html>"} }

// FaultKinds returns what can go wrong.
func FaultKinds() []FaultKind { return slices.Clone(faultKinds[:]) }

func kindOf(name string) (FaultKind, bool) {
	for i := range faultKinds {
		if faultKinds[i].Name == name {
			return faultKinds[i], true
		}
	}
	return FaultKind{}, false
}

// problem is what is wrong with the fault itself.
func (f Fault) problem() error {
	_, known := kindOf(f.Kind)
	switch {
	case !known:
		return fmt.Errorf("there is no fault %q", f.Kind)
	case !(f.Rate > 0 && f.Rate <= 1):
		return errors.New("the rate of a fault must be above 0 and at most 1")
	case f.RetryAfter < 0 || f.LatencyMS < 0 || f.LatencyMS > maxLatencyMS || f.FlapMS < 0:
		return errors.New("the times of a fault must not be negative, nor a wait longer than ten minutes")
	}
	return nil
}

// meets reports whether it happens to a message of the sender to the recipient now.
func (f Fault) meets(now time.Time, from, to string) bool {
	there := f.FlapMS == 0 || now.UnixMilli()/int64(f.FlapMS)%2 == 0
	meant := (f.From == "" || f.From == from) && strings.HasPrefix(to, f.To)
	return there && meant && rand.Float64() < f.Rate
}

func (f Fault) delay() time.Duration { return time.Duration(f.LatencyMS) * time.Millisecond }

// phone is what the HTTP face does; the zero script for no fault.
func (f Fault) phone() PhoneScript {
	kind, _ := kindOf(f.Kind)
	script := kind.Phone
	script.Delay = f.delay()
	if f.RetryAfter > 0 {
		script.RetryAfter = strconv.Itoa(f.RetryAfter)
	}
	return script
}

// mail is what SMTP does; the zero script for no fault.
func (f Fault) mail() Script {
	kind, _ := kindOf(f.Kind)
	script := kind.Mail
	script.Delay = f.delay()
	return script
}
