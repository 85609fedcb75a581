package dispatch

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// sendWindow sends messages side by side, as many as there are connections.
func (r *runner) sendWindow(work context.Context, list []postgres.ChunkMessage, g postgres.Gate) {
	began := r.cfg.Clock.Now()
	work, span := r.traceWindow(work)
	if len(g.Withdrawn) > 0 {
		list = slices.DeleteFunc(slices.Clone(list), func(m postgres.ChunkMessage) bool { return g.Withdrawn[m.ID] })
	}
	r.outcomes = slices.Grow(r.outcomes[:0], len(list))[:len(list)]
	limits := callLimits{work: work}
	sideBySide(len(list), cap(r.line.slots), func(i int) { r.outcomes[i] = r.settle(&limits, list[i], g, began) })
	limits.end()
	endWindow(span, r.outcomes)
	r.cfg.Metrics.outcomes(r.channel, r.outcomes)
	r.took = r.cfg.Clock.Now().Sub(began)
	r.line.window.Store(int32(nextWindow(int(r.line.window.Load()), r.took)))
}

// sideBySide calls do with each of the first n numbers, on at most so many goroutines. Each
// goroutine starts the next one before its first call, so that calls which wait soon have
// all of them, and calls which do not are done by a few.
func sideBySide(n, most int, do func(i int)) {
	var calling sync.WaitGroup
	var taken, started atomic.Int64
	var call func()
	call = func() {
		i := int(taken.Add(1)) - 1
		if i < n-1 && started.Add(1) < int64(most) {
			calling.Go(call)
		}
		for ; i < n; i = int(taken.Add(1)) - 1 {
			do(i)
		}
	}
	calling.Go(call)
	calling.Wait()
}

// settle sends a message, or gives it up where it must not be sent.
func (r *runner) settle(limits *callLimits, m postgres.ChunkMessage, g postgres.Gate, began time.Time) messaging.Outcome {
	if code := r.refusal(m, g, began); code != "" {
		return messaging.Outcome{MessageID: m.ID, Status: messaging.MessagePermanentlyFailed, Code: code, Expiring: m.NotAfter != nil}
	}
	return r.sendOne(limits, m)
}

// callLimits are the contexts of a window's calls. One for each call would cost more than
// many a message.
type callLimits struct {
	work context.Context

	mu    sync.Mutex
	ctx   context.Context // of calls that begin before until
	until time.Time
	ends  []context.CancelFunc
}

// at is the context of a call that begins now.
func (l *callLimits) at(now time.Time) context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx == nil || now.After(l.until) {
		ctx, end := context.WithTimeout(l.work, sendLimit)
		l.ctx, l.until, l.ends = ctx, now.Add(sameLimit), append(l.ends, end)
	}
	return l.ctx
}

func (l *callLimits) end() {
	for _, end := range l.ends {
		end()
	}
}

// nextWindow is how many messages the next window has, after one of n took so long.
func nextWindow(n int, took time.Duration) int {
	switch {
	case took > busyWindow:
		return max(n/2, 1)
	case took < quickWindow:
		return min(n*2, wideWindow)
	case took < busyWindow/4:
		return min(n*2, window)
	}
	return min(n, window)
}

// refusal is why a message is given up without being sent; empty if it is sent.
func (r *runner) refusal(m postgres.ChunkMessage, g postgres.Gate, now time.Time) string {
	switch {
	case len(g.Suppressed) > 0 && g.Suppressed[messaging.AddressKey(r.chunk.ChannelType, m.Address)]:
		return messaging.CodeOptedOut
	case m.NotAfter != nil && m.NotAfter.Before(now):
		return messaging.CodeExpired
	}
	return ""
}

// sendOne calls the provider, unless another call has found out meanwhile that the
// channel must wait.
func (r *runner) sendOne(limits *callLimits, m postgres.ChunkMessage) messaging.Outcome {
	if !r.line.take(limits.work) {
		return messaging.Held(m.ID, codeCircuitOpen, 0)
	}
	defer r.line.free()
	began := r.cfg.Clock.Now()
	if wait, why := r.line.valve.held(began); wait > 0 && !r.probing {
		return messaging.Held(m.ID, why, wait)
	}
	ctx := limits.at(began)
	res := r.line.sender.Send(ctx, r.render(m))
	ended := r.cfg.Clock.Now()
	r.observe(ctx, m, res, ended.Sub(began))
	o := messaging.Decide(res, r.channel, m.Attempts, rand.Float64())
	o.MessageID, o.Ordinal, o.Expiring = m.ID, m.Ordinal, m.NotAfter != nil
	if r.line.valve.note(o, ended) {
		r.tripped.Store(true)
	}
	return o
}

func (r *runner) render(m postgres.ChunkMessage) channel.Message {
	out := channel.Message{ID: m.ID, AccountID: r.chunk.AccountID, ChannelID: r.channel.ID, To: m.Address, CreatedAt: m.CreatedAt}
	switch {
	case r.renderer != nil:
		text := r.renderer.Render(m.Values)
		out.Subject, out.Text, out.HTML = text.Subject, text.Text, text.HTML
	case m.Body != nil:
		out.Subject, out.Text, out.HTML = m.Subject, *m.Body, m.HTML
	}
	if r.renderer != nil {
		out.Headers, out.Attachments = r.wayOut(m), r.files
	}
	if out.Subject == "" && r.subject != nil {
		out.Subject = r.subject.Render(m.Values).Subject
	}
	return out
}

// wayOut is the one-click way out of group sends (RFC 8058), where the channel can show
// it.
func (r *runner) wayOut(m postgres.ChunkMessage) []channel.Header {
	if !r.cfg.Adapters.Capabilities(r.channel.ChannelType, r.channel.Provider).Unsubscribe {
		return nil
	}
	link := r.cfg.Unsubscriber.URL(messaging.WayOut{AccountID: r.chunk.AccountID, ChannelType: r.channel.ChannelType, Address: m.Address})
	if link == "" {
		return nil
	}
	return []channel.Header{{Name: "List-Unsubscribe", Value: "<" + link + ">"}, {Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"}}
}
