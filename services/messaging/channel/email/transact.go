package email

import (
	"context"
	"strconv"
	"time"

	"github.com/turumba/turumba/services/messaging/channel"
)

// graceForReply is how long an answer is awaited after the connection broke while
// the content was being written; servers that refuse early often send one.
const graceForReply = time.Second

// fate says what to do with a connection after a transaction.
type fate uint8

const (
	// keep: the connection can carry the next message.
	keep fate = iota
	// drop: the connection is of no more use.
	drop
	// stale: the connection died before the content was asked for; the message may
	// be tried once more on a new one.
	stale
)

// step is one command of a transaction: where it ends in the buffer.
type step struct {
	at  stage
	end int
}

// deliver sends one message over the connection.
func (w *wire) deliver(ctx context.Context, m *channel.Message, env *envelope) (channel.Result, fate) {
	if res, ok := w.prepare(m, env); !ok {
		return res, keep
	}
	stop := w.watch(ctx)
	res, next := w.transact(ctx, env)
	if !stop() && next == keep {
		next = drop
	}
	if cap(w.content.buffer) > keepBuffer {
		w.content.buffer = nil
	}
	clear(w.content.inserts) // files belong to their send
	clear(w.pieces)
	return res, next
}

// prepare builds the content and the commands; not ok means the Result is final.
func (w *wire) prepare(m *channel.Message, env *envelope) (channel.Result, bool) {
	if env.utf8() && !w.ext.utf8 {
		return badRecipient(codeNoUTF8), false
	}
	if err := w.content.compose(m, env.from, env.to.full, env.messageID, w.ext.eightBit); err != nil {
		return invalid(err), false
	}
	size := w.content.size()
	if size > maxMessage || w.ext.size > 0 && int64(size) > w.ext.size {
		return tooBig(), false
	}
	w.content.buffer = append(w.content.buffer, ".\r\n"...)
	w.compose(env, size)
	return channel.Result{}, true
}

// compose writes the commands up to DATA into the buffer.
func (w *wire) compose(env *envelope, size int) {
	w.steps = w.steps[:0]
	b := w.commands[:0]
	if w.sent > 0 {
		b = append(b, "RSET\r\n"...)
		w.steps = append(w.steps, step{stageReset, len(b)})
	}
	b = append(append(append(b, "MAIL FROM:<"...), env.from.addr.full...), '>')
	if w.ext.sizeGiven {
		b = strconv.AppendInt(append(b, " SIZE="...), int64(size), 10)
	}
	if w.ext.eightBit {
		b = append(b, " BODY=8BITMIME"...)
	}
	if env.utf8() {
		b = append(b, " SMTPUTF8"...)
	}
	b = append(b, "\r\n"...)
	w.steps = append(w.steps, step{stageMail, len(b)})
	b = append(append(append(b, "RCPT TO:<"...), env.to.full...), ">\r\n"...)
	w.steps = append(w.steps, step{stageRcpt, len(b)})
	b = append(b, "DATA\r\n"...)
	w.steps = append(w.steps, step{stageData, len(b)})
	w.commands = b
}

// transact runs the commands and then sends the content.
func (w *wire) transact(ctx context.Context, env *envelope) (channel.Result, fate) {
	reused := w.sent > 0
	w.sent++
	failed, next, err := w.negotiate(ctx, env)
	if err != nil {
		res := fail(channel.ClassTransient, ioCode(ctx, err))
		if reused && res.Code == codeLost {
			return res, stale
		}
		return res, drop
	}
	if failed != nil {
		return *failed, next
	}
	return w.sendContent(ctx, env)
}

// negotiate writes the commands, all at once where the server allows it, and
// reads their replies. No failure and no error means that the server waits for
// the content.
func (w *wire) negotiate(ctx context.Context, env *envelope) (failed *channel.Result, next fate, err error) {
	if err := w.within(ctx, w.s.cfg.Timeouts.Command); err != nil {
		return nil, drop, err
	}
	if w.ext.pipelining {
		if _, err := w.conn.Write(w.commands); err != nil {
			return nil, drop, err
		}
	}
	start := 0
	for _, st := range w.steps {
		if !w.ext.pipelining {
			if failed != nil {
				break
			}
			if _, err := w.conn.Write(w.commands[start:st.end]); err != nil {
				return nil, drop, err
			}
			start = st.end
		}
		r, err := w.read()
		if err != nil {
			if failed != nil {
				return failed, max(next, drop), nil
			}
			return nil, drop, err
		}
		failed, next = w.judge(st.at, r, env, failed, next)
	}
	return failed, next, nil
}

// judge folds one reply into the result of the negotiation so far.
func (w *wire) judge(at stage, r reply, env *envelope, failed *channel.Result, next fate) (*channel.Result, fate) {
	good := r.code/100 == 2
	if at == stageData {
		good = r.code == 354
	}
	switch {
	case failed == nil && good:
		return nil, keep
	case failed == nil:
		res := refused(w.s.redact, at, r, env.to.full)
		return &res, w.fateAfter(at, r.code)
	case r.code == 421 || r.code == 354:
		// After a refusal, 354 would make any further byte content.
		return failed, max(next, drop)
	default:
		return failed, next
	}
}

// fateAfter says what a refusal means for the connection: a server that ends the
// session (421), or that refuses RSET, has taken nothing of this message.
func (w *wire) fateAfter(at stage, code int) fate {
	reused := w.sent > 1
	switch {
	case at == stageReset, code == 421 && at == stageMail && reused:
		return stale
	case code == 421 || code < 400:
		return drop
	default:
		return keep
	}
}

// sendContent sends the content with its final dot and waits for the answer.
func (w *wire) sendContent(ctx context.Context, env *envelope) (channel.Result, fate) {
	if err := w.within(ctx, w.s.cfg.Timeouts.DataEnd); err != nil {
		return fail(channel.ClassTransient, ioCode(ctx, err)), drop
	}
	if whole, err := w.write(); err != nil {
		if !whole {
			return w.brokenContent(ctx, env, err), drop
		}
		return w.lost(ctx, env, err), drop
	}
	r, err := w.read()
	switch {
	case err != nil:
		return w.lost(ctx, env, err), drop
	case r.code/100 == 2:
		return w.accepted(env, r), keep
	case r.code < 400:
		return w.lost(ctx, env, errProtocol), drop
	}
	return refused(w.s.redact, stageEnd, r, env.to.full), w.fateAfter(stageEnd, r.code)
}

// write sends the content piece by piece; whole says that the final dot left, even
// where an error came with it.
func (w *wire) write() (whole bool, err error) {
	w.pieces = w.content.pieces(w.pieces[:0])
	last := len(w.pieces) - 1
	for i, piece := range w.pieces {
		n, err := w.conn.Write(piece)
		if err != nil {
			return i == last && n == len(piece), err
		}
	}
	return true, nil
}

// brokenContent is the result when the final dot did not leave. A refusal that
// the server sent before closing is worth more than "connection lost".
func (w *wire) brokenContent(ctx context.Context, env *envelope, cause error) channel.Result {
	if w.within(ctx, graceForReply) == nil {
		if r, err := w.read(); err == nil && r.code >= 400 {
			return refused(w.s.redact, stageEnd, r, env.to.full)
		}
	}
	return fail(channel.ClassTransient, ioCode(ctx, cause))
}

func (w *wire) lost(ctx context.Context, env *envelope, err error) channel.Result {
	code := ioCode(ctx, err)
	res := channel.Lost(code, textOf(code))
	res.ProviderIDs = []string{env.messageID}
	return res
}

// accepted keeps the server's last words: most relays name their queue id there.
func (w *wire) accepted(env *envelope, r reply) channel.Result {
	s, text := cutStatus(r.text)
	return channel.Result{
		Outcome:     channel.Accepted,
		Class:       channel.ClassOK,
		ProviderIDs: []string{env.messageID},
		Code:        replyCode(r.code),
		SubCode:     s.String(),
		Text:        w.s.redact.Clean(string(text), channel.MaxText, env.to.full),
	}
}

// replyCode spares the usual answer its conversion.
func replyCode(code int) string {
	if code == 250 {
		return "250"
	}
	return strconv.Itoa(code)
}
