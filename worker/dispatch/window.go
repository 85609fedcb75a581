package dispatch

import (
	"context"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// sentWindow is what one passage of the gate let be called.
type sentWindow struct {
	with    *equipment
	now     func() time.Time
	limits  *callLimits
	gate    postgres.Gate
	probing bool
	span    trace.Span
	// left of its n messages have no outcome yet, failed were not sent.
	n, left, failed int
	last            string // the message that was taken last
}

// launch lets the messages be called that the gate was passed for, and returns how many
// those are.
func (r *runner) launch(work context.Context, list []postgres.ChunkMessage, g postgres.Gate) int {
	calls := r.callsFor(len(list))
	w := &sentWindow{with: r.equipment, now: r.cfg.Clock.Now, limits: r.limits, gate: g, probing: r.probing}
	for i := range list {
		if !g.Withdrawn[list[i].ID] {
			calls = append(calls, call{ChunkMessage: &list[i], window: w})
		}
	}
	w.n, w.left = len(calls), len(calls)
	if _, w.span = r.traceWindow(work); w.n == 0 {
		endWindow(w)
	}
	r.flight.add(calls)
	return len(calls)
}

// callsFor is room for n calls, that of the last ones if all of them have been taken.
func (r *runner) callsFor(n int) []call {
	if n > cap(r.calls) || !r.flight.empty() {
		r.calls = make([]call, 0, n)
	}
	return r.calls[:0]
}

// take moves what became of calls to the outcomes that wait for the gate, and returns
// those.
func (r *runner) take() []messaging.Outcome {
	done := r.flight.take()
	if len(done) == 0 {
		return nil
	}
	r.outcomes = append(r.outcomes, make([]messaging.Outcome, len(done))...)
	taken := r.outcomes[len(r.outcomes)-len(done):]
	for i, c := range done {
		taken[i] = c.outcome
		taken[i].Ordinal = c.place
		if !c.silent.Load() {
			r.unstored++
		}
		c.window.count(c.outcome)
	}
	r.cfg.Metrics.outcomes(r.channel, taken)
	return taken
}

// count takes in an outcome of the window, and ends its span with the last.
func (w *sentWindow) count(o messaging.Outcome) {
	if o.Status != messaging.MessageSent {
		w.failed++
	}
	if w.last, w.left = o.MessageID, w.left-1; w.left == 0 {
		endWindow(w)
	}
}

// settle sends a message, or gives it up where it must not be sent. urgent says that the
// runner should see to it now.
func (r *runner) settle(c *call) (o messaging.Outcome, urgent bool) {
	if code := r.refusal(c); code != "" {
		return messaging.Outcome{MessageID: c.ID, Status: messaging.MessagePermanentlyFailed, Code: code, Expiring: c.NotAfter != nil}, false
	}
	return r.sendOne(c)
}

// nextWindow is how many messages the next window of a quick channel has, after one that
// took so long.
func nextWindow(took time.Duration) int {
	if took < quickWindow {
		return wideWindow
	}
	return window
}

// refusal is why a message is given up without being sent; empty if it is sent.
func (r *runner) refusal(c *call) string {
	suppressed := c.window.gate.Suppressed
	switch {
	case len(suppressed) > 0 && suppressed[messaging.AddressKey(r.chunk.ChannelType, c.Address)]:
		return messaging.CodeOptedOut
	case c.NotAfter != nil && c.NotAfter.Before(c.began):
		return messaging.CodeExpired
	}
	return ""
}

// sendOne calls the provider, unless another call has found out meanwhile that the
// channel must wait.
func (r *runner) sendOne(c *call) (o messaging.Outcome, urgent bool) {
	with := c.window.with
	if wait, why := with.line.valve.held(c.began); wait > 0 && !c.window.probing {
		return messaging.Held(c.ID, why, wait), true
	}
	ctx := c.window.limits.at(c.began)
	res := r.call(ctx, with, c.ChunkMessage)
	ended := r.cfg.Clock.Now()
	took := ended.Sub(c.began)
	r.observe(ctx, with, c.ID, res, took)
	o = messaging.Decide(with.line.valve.judge(res, c.ID, c.Address, c.Attempts > 0), with.channel, c.Attempts, rand.Float64())
	o.MessageID, o.Expiring = c.ID, c.NotAfter != nil
	if o.Slow {
		o.RetryIn = with.line.valve.rests(ended)
	}
	if c.silent.Load() { // the channel has been judged without it
		return o, false
	}
	if with.line.valve.note(o, took, ended) {
		r.tripped.Store(&o)
		return o, true
	}
	return o, o.Refused() || o.Class == channel.ClassRateLimited.String()
}

// call hands a message to the adapter. A panic in there is the message's affair alone: nobody
// knows whether it left.
func (r *runner) call(ctx context.Context, with *equipment, m *postgres.ChunkMessage) (res channel.Result) {
	defer func() {
		if p := recover(); p != nil {
			r.panicked(ctx, p)
			res = channel.Lost("internal_error", "a fault of ours while the message was sent")
		}
	}()
	return with.line.sender.Send(ctx, r.render(with, m))
}

func (r *runner) render(with *equipment, m *postgres.ChunkMessage) channel.Message {
	out := channel.Message{ID: m.ID, AccountID: r.chunk.AccountID, ChannelID: with.channel.ID, To: m.Address, CreatedAt: m.CreatedAt}
	switch {
	case with.renderer != nil:
		text := with.renderer.Render(m.Values)
		out.Subject, out.Text, out.HTML = text.Subject, text.Text, text.HTML
	case m.Body != nil:
		out.Subject, out.Text, out.HTML = m.Subject, *m.Body, m.HTML
	}
	if with.renderer != nil {
		out.Headers, out.Attachments = r.wayOut(with, m), with.files
	}
	if out.Subject == "" && with.subject != nil {
		out.Subject = with.subject.Render(m.Values).Subject
	}
	return out
}

// wayOut is the one-click way out of group sends (RFC 8058), where the channel can show
// it.
func (r *runner) wayOut(with *equipment, m *postgres.ChunkMessage) []channel.Header {
	if !r.cfg.Adapters.Capabilities(with.channel.ChannelType, with.channel.Provider).Unsubscribe {
		return nil
	}
	link := r.cfg.Unsubscriber.URL(messaging.WayOut{AccountID: r.chunk.AccountID, ChannelType: with.channel.ChannelType, Address: m.Address})
	if link == "" {
		return nil
	}
	return []channel.Header{{Name: "List-Unsubscribe", Value: "<" + link + ">"}, {Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"}}
}
