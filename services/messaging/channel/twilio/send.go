package twilio

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/turumba/turumba/services/messaging/channel"
)

const (
	// maxText is the longest text in characters.
	maxText = 1600
	// maxReply is the longest answer that is read.
	maxReply = 256 << 10
	apiPath  = "/2010-04-01/Accounts/"
	agent    = "turumba"
)

// reply is what Twilio answered.
type reply struct {
	status int
	header http.Header
	body   []byte
	// torn says that the body ended early or was too long.
	torn bool
}

// Send sends one message. Up to Connections calls run at once; others wait.
func (s *sender) Send(ctx context.Context, m channel.Message) channel.Result {
	if res, ok := check(&m); !ok {
		return res
	}
	if code := s.begin(ctx); code != "" {
		return fail(channel.ClassTransient, code)
	}
	defer func() { <-s.slots }()
	r, failed := s.call(ctx, http.MethodPost, s.messagesPath(), s.form(&m))
	if failed != nil {
		return *failed
	}
	return s.understand(r, &m)
}

// begin waits for a slot; a code says why there is none.
func (s *sender) begin(ctx context.Context) (code string) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return codeCancelled
	case <-s.shutdown:
		return codeClosed
	}
	select {
	case <-s.shutdown:
		code = codeClosed
	default:
		if ctx.Err() != nil {
			code = codeCancelled
		}
	}
	if code != "" {
		<-s.slots
	}
	return code
}

// check finds what Twilio would refuse anyway; not ok means the Result is final.
func check(m *channel.Message) (channel.Result, bool) {
	switch {
	case !phone.MatchString(m.To):
		return refuse(channel.ClassPermanentRecipient, codeRecipient), false
	case strings.TrimSpace(m.Text) == "" || !utf8.ValidString(m.Text):
		return refuse(channel.ClassPermanentContent, codeInvalid), false
	case utf8.RuneCountInString(m.Text) > maxText:
		return refuse(channel.ClassPermanentContent, codeTooBig), false
	}
	return channel.Result{}, true
}

func (s *sender) messagesPath() string { return s.set.AccountSID + "/Messages.json" }

func (s *sender) form(m *channel.Message) url.Values {
	form := url.Values{"To": {m.To}, "Body": {m.Text}}
	if s.set.From != "" {
		form.Set("From", s.set.From)
	}
	if s.set.MessagingServiceSID != "" {
		form.Set("MessagingServiceSid", s.set.MessagingServiceSID)
	}
	return form
}

// call makes one request; a Result says why there is no answer.
func (s *sender) call(ctx context.Context, method, path string, form url.Values) (reply, *channel.Result) {
	short, cancel := context.WithTimeout(ctx, s.cfg.Timeouts.Call)
	defer cancel()
	var handed atomic.Bool
	r, err := http.NewRequestWithContext(watch(short, &handed), method, s.set.BaseURL+apiPath+path, strings.NewReader(form.Encode()))
	if err != nil { // the settings were checked
		res := fail(channel.ClassConfig, codeConnect)
		return reply{}, &res
	}
	r.SetBasicAuth(s.user, s.password)
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", agent)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	got, err := s.http.Do(r)
	if err != nil {
		res := silence(ctx, short, handed.Load(), err)
		return reply{}, &res
	}
	defer func() { _ = got.Body.Close() }() // it was only read
	body, err := io.ReadAll(io.LimitReader(got.Body, maxReply+1))
	return reply{status: got.StatusCode, header: got.Header, body: body, torn: err != nil || len(body) > maxReply}, nil
}

// watch notes when the request may have left. The transport asks for another
// connection only where it knows that nothing was written to the first.
func watch(ctx context.Context, handed *atomic.Bool) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { handed.Store(false) },
		WroteHeaders: func() { handed.Store(true) },
	})
}
