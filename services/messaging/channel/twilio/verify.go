package twilio

import (
	"context"
	"net/http"
	"strconv"

	"github.com/turumba/turumba/services/messaging/channel"
)

// Verify asks for the account, which sends nothing and costs nothing. A standard API
// key may not read accounts, so it asks for one message of the past instead.
func (s *sender) Verify(ctx context.Context) channel.Result {
	if code := s.begin(ctx); code != "" {
		return fail(channel.ClassTransient, code)
	}
	defer func() { <-s.slots }()
	path := s.set.AccountSID + ".json"
	if s.set.APIKeySID != "" {
		path = s.messagesPath() + "?PageSize=1"
	}
	r, failed := s.call(ctx, http.MethodGet, path, nil)
	switch {
	case failed == nil:
		return s.judge(r)
	case ctx.Err() != nil:
		return fail(channel.ClassTransient, codeCancelled)
	default: // a forbidden address looks like a closed port
		return fail(channel.ClassTransient, codeConnect)
	}
}

// judge repeats what Twilio says of the credentials; nothing else that the far end said.
func (s *sender) judge(r reply) channel.Result {
	a, ok := parse(r)
	switch {
	case r.status == http.StatusOK && ok && (s.set.APIKeySID != "" || a.Status == "active"):
		return channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK}
	case r.status == http.StatusOK && ok && a.SID == s.set.AccountSID:
		return fail(channel.ClassConfig, codeInactive)
	case r.status == http.StatusUnauthorized || r.status == http.StatusForbidden || r.status == http.StatusNotFound:
		said := ""
		if ok && number(a.Code) != 0 { // an error of Twilio's API
			said = s.redact.Clean(a.Message, channel.MaxText)
		}
		return channel.Fail(channel.ClassConfig, strconv.Itoa(r.status), channel.Beside("Twilio refused the credentials", said))
	case r.status == http.StatusTooManyRequests:
		return channel.Fail(channel.ClassTransient, strconv.Itoa(r.status), "Twilio asks to slow down")
	default:
		return fail(channel.ClassTransient, codeConnect)
	}
}
