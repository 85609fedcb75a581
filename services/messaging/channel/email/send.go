package email

import (
	"context"
	"crypto/tls"
	"sync"
	"time"

	"github.com/turumba/turumba/services/messaging/channel"
)

// sender is the open channel: its settings and its pool of connections.
type sender struct {
	cfg    Config
	set    channel.EmailSettings
	from   identity
	tls    *tls.Config
	redact *channel.Redactor
	// slots holds one token per connection in use.
	slots chan struct{}
	// shutdown is closed by Close; background counts the goroutine it ends.
	shutdown   chan struct{}
	background sync.WaitGroup

	// freed is told when a connection was given back or closed.
	freed chan struct{}

	mu      sync.Mutex
	idle    []*wire // the one used last is at the end
	open    int     // connections that are idle or in use
	closed  bool
	sweeps  bool // the sweeper runs
	refusal channel.Result
	// refusedUntil is until when refusal stands for another login.
	refusedUntil time.Time
	// crowdedUntil is until when the server takes no more connections than are open.
	crowdedUntil time.Time
}

// envelope is what SMTP needs beside the content.
type envelope struct {
	from      *identity
	to        address
	messageID string
}

func (e *envelope) utf8() bool { return e.from.addr.utf8 || e.to.utf8 }

// Send sends one message. Up to Connections calls run at once; others wait.
func (s *sender) Send(ctx context.Context, m channel.Message) channel.Result {
	env, res, ok := s.address(&m)
	if !ok {
		return res
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return fail(channel.ClassTransient, codeCancelled)
	}
	defer func() { <-s.slots }()
	w, failed := s.take(ctx)
	if failed != nil {
		return *failed
	}
	res, next := w.deliver(ctx, &m, &env)
	if next == stale {
		s.release(w, drop)
		if w, failed = s.fresh(ctx); failed != nil {
			return *failed
		}
		res, next = w.deliver(ctx, &m, &env)
	}
	s.release(w, next)
	return res
}

// address works out the envelope; not ok means the Result is final.
func (s *sender) address(m *channel.Message) (envelope, channel.Result, bool) {
	to, err := parseAddress(m.To)
	if err != nil {
		return envelope{}, badRecipient(codeRecipient), false
	}
	from := &s.from
	if m.FromEmail != "" || m.FromName != "" || m.ReplyTo != "" {
		own, err := newIdentity(orElse(m.FromEmail, s.set.FromEmail), orElse(m.FromName, s.set.FromName), orElse(m.ReplyTo, s.set.ReplyTo))
		if err != nil {
			return envelope{}, invalid(err), false
		}
		from = &own
	}
	if !messageID(m.ID) {
		return envelope{}, invalid(errID), false
	}
	return envelope{from: from, to: to, messageID: m.ID + "@" + from.addr.domain}, channel.Result{}, true
}

// messageID reports whether s can be the left side of a Message-ID and a part
// of a boundary.
func messageID(s string) bool {
	for i := range len(s) {
		if !alphanumeric(s[i]) && s[i] != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 50
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
