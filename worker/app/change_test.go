package app_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// change is a change of a message's state, as the store has them.
type change func(context.Context, *pg.Tx, []string, string) (*messaging.Message, error)

func (w *world) change(do change, id string) error {
	ctx := w.t.Context()
	return w.store.DB().InTx(ctx, []string{w.account}, func(tx *pg.Tx) error {
		_, err := do(ctx, tx, []string{w.account}, id)
		return err
	})
}

func (w *world) cancelMessage(id string) {
	w.t.Helper()
	require.NoError(w.t, w.change(w.store.CancelMessage, id))
	w.check()
}

func (w *world) retry(id string) {
	w.t.Helper()
	require.NoError(w.t, w.change(w.store.RetryMessage, id))
	w.check()
}

func (w *world) refused(err error, detail string) {
	w.t.Helper()
	require.True(w.t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_STATE), "%v", err)
	require.ErrorContains(w.t, err, detail)
	w.check()
}

// recipients are the ids of a send's messages in their order.
func (w *world) recipients(groupID string) []string {
	w.t.Helper()
	page, err := w.store.Messages(w.t.Context(), []string{w.account}, query.Request{
		Filters: []string{"group_message_id:eq:" + groupID}, Sorts: []string{"created_at:asc"}, Limit: 1000,
	})
	require.NoError(w.t, err)
	ids := make([]string, len(page.Data))
	for i, m := range page.Data {
		ids[i] = m.ID
	}
	return ids
}

func refuse(class channel.Class) func(channel.Message) channel.Result {
	return func(channel.Message) channel.Result {
		return channel.Result{Outcome: channel.Rejected, Class: class, Code: "550", Text: "no"}
	}
}

func TestCancelledMessageIsNotSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.single("a@example.org"), w.single("b@example.org")
	w.create(a, b)
	w.cancelMessage(a.ID)
	w.refused(w.change(w.store.CancelMessage, a.ID), "cancelled")
	w.start()
	w.becomes(b, messaging.MessageSent)
	require.Equal(t, messaging.MessageCancelled, w.message(a.ID).Status)
	n, _ := w.provider.received()
	require.Equal(t, 1, n)
	require.Equal(t, 1, w.count("SELECT count(*) FROM outbox_events WHERE event_type = 'message.cancelled'"))
	w.refused(w.change(w.store.CancelMessage, b.ID), "sent")
}

// TestCancelInTheMiddleOfASend cancels a recipient whose chunk is in work.
func TestCancelInTheMiddleOfASend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(200, nil)
	w.provider.hold = make(chan struct{})
	id := w.queue()
	w.start()
	require.Eventually(t, func() bool { n, _ := w.provider.received(); return n >= 64 }, patience, time.Millisecond)
	ids := w.recipients(id)
	w.cancelMessage(ids[150])
	w.refused(w.change(w.store.CancelMessage, ids[0]), "being handed")
	require.EqualValues(t, 1, w.group(id).Cancelled)
	close(w.provider.hold)
	g := w.final(id)
	require.EqualValues(t, 199, g.Sent)
	require.Equal(t, messaging.GroupCompleted, g.Status)
	n, again := w.provider.received()
	require.Equal(t, 199, n)
	require.Zero(t, again)
}

func TestCancelOfAWaitingRetry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(1, nil)
	w.provider.set(refuse(channel.ClassTransient))
	_, err := w.store.UpdateChannel(t.Context(), []string{w.account}, w.channel.ID, func(c *messaging.Channel) error {
		c.RetryInterval = 3600
		return nil
	})
	require.NoError(t, err)
	id := w.queue()
	w.start()
	var m *messaging.Message
	require.Eventually(t, func() bool {
		ids := w.recipients(id)
		if len(ids) == 1 {
			m = w.message(ids[0])
		}
		return m != nil && m.Status == messaging.MessageFailed
	}, patience, 5*time.Millisecond)
	require.Len(t, m.History, 1)
	w.cancelMessage(m.ID)
	g := w.final(id)
	require.EqualValues(t, 1, g.Cancelled)
	require.Equal(t, messaging.GroupCompleted, g.Status)
	w.exec("UPDATE message_due SET due_at = now()")
	require.Eventually(t, func() bool {
		return w.count("SELECT (SELECT count(*) FROM message_due) + (SELECT count(*) FROM dispatch_chunks)") == 0
	}, patience, 10*time.Millisecond)
	require.Equal(t, messaging.MessageCancelled, w.message(m.ID).Status)
}

func TestRetryReopensTheSend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(10, nil)
	w.provider.set(func(m channel.Message) channel.Result {
		switch m.To {
		case "p1@example.org":
			return refuse(channel.ClassPermanentRecipient)(m)
		case "p2@example.org":
			return channel.Lost("eof", "gone")
		}
		return accepted(m)
	})
	id := w.queue()
	w.start()
	g := w.final(id)
	require.Equal(t, []any{messaging.GroupPartiallyFailed, int32(2), int32(1)}, []any{g.Status, g.Failed, g.Unknown})
	ids := w.recipients(id)
	w.refused(w.change(w.store.RetryMessage, ids[0]), "sent")
	w.provider.set(accepted)
	w.retry(ids[1])
	g = w.until(id, "it ends again", func(g *messaging.GroupMessage) bool { return g.Final() && g.Sent == 9 })
	require.Equal(t, []any{messaging.GroupPartiallyFailed, int32(1), int32(1)}, []any{g.Status, g.Failed, g.Unknown})
	w.retry(ids[2])
	g = w.until(id, "it ends again", func(g *messaging.GroupMessage) bool { return g.Final() && g.Sent == 10 })
	require.Equal(t, []any{messaging.GroupCompleted, int32(0), int32(0)}, []any{g.Status, g.Failed, g.Unknown})
	m := w.message(ids[2])
	require.EqualValues(t, 2, m.Attempts)
	require.Equal(t, "unknown", m.History[0].Outcome)
	require.Equal(t, 2, w.count("SELECT count(*) FROM outbox_events WHERE event_type = 'group_message.processing' AND payload::jsonb #>> '{data,previous_status}' = 'partially_failed'"))
}

func TestRetryRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(200, nil)
	w.provider.set(refuse(channel.ClassPermanentRecipient))
	id := w.queue()
	stop := w.start()
	w.final(id)
	single, late := w.single("a@example.org"), w.single("b@example.org", notAfter(time.Hour))
	w.create(single, late)
	w.becomes(single, messaging.MessagePermanentlyFailed)
	w.becomes(late, messaging.MessagePermanentlyFailed)
	stop()
	ids := w.recipients(id)
	w.retry(ids[0])
	w.cancel(id)
	w.refused(w.change(w.store.RetryMessage, ids[1]), "cancelled or deleted")
	w.exec("UPDATE messages SET not_after = now() - interval '1 second' WHERE id = $1", late.ID)
	w.refused(w.change(w.store.RetryMessage, late.ID), "not_after is over")
	require.NoError(t, w.store.DeleteChannel(t.Context(), []string{w.account}, w.channel.ID, true))
	w.refused(w.change(w.store.RetryMessage, single.ID), "channel does not exist")
	w.start()
	g := w.until(id, "what was retried is cancelled", func(g *messaging.GroupMessage) bool { return g.Pending == 0 })
	require.EqualValues(t, 1, g.Cancelled)
}

func TestDeleteHidesOnlyWhatHasEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.single("a@example.org")
	w.create(m)
	scope := []string{w.account}
	w.refused(w.store.DeleteMessage(t.Context(), scope, m.ID), "queued")
	w.start()
	w.becomes(m, messaging.MessageSent)
	require.NoError(t, w.store.DeleteMessage(t.Context(), scope, m.ID))
	_, err := w.store.Message(t.Context(), scope, m.ID)
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND))
	require.True(t, apierr.HasReason(w.store.DeleteMessage(t.Context(), scope, m.ID), errorv1.Reason_REASON_NOT_FOUND))
	require.Equal(t, 1, w.count("SELECT count(*) FROM messages"))
	w.check()
}

// TestChangesAtRandom cancels, retries and sends at the same time, with a provider
// that does whatever it likes and two workers: the ledger holds at every look.
func TestChangesAtRandom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(900, nil)
	w.provider.set(dealt(
		accepted, accepted, accepted, accepted, refuse(channel.ClassTransient), refuse(channel.ClassPermanentRecipient),
		func(channel.Message) channel.Result { return channel.Lost("eof", "gone") },
	))
	id := w.fannedOut(0)
	ids := w.recipients(id)
	for range 100 {
		m := w.single("single@example.org", notAfter(time.Duration(rand.IntN(3000))*time.Millisecond))
		w.create(m)
		ids = append(ids, m.ID)
	}
	w.start()
	w.start()
	var done atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 400 {
				do := []change{w.store.CancelMessage, w.store.RetryMessage, w.store.RetryMessage}[rand.IntN(3)]
				switch err := w.change(do, ids[rand.IntN(len(ids))]); {
				case err == nil:
					done.Add(1)
				case !apierr.HasReason(err, errorv1.Reason_REASON_INVALID_STATE):
					t.Errorf("a change failed: %v", err)
				}
			}
		})
	}
	wg.Wait()
	g := w.final(id)
	require.EqualValues(t, 900, g.Total)
	require.Greater(t, done.Load(), int64(100))
	require.Eventually(t, func() bool {
		w.check()
		return w.count("SELECT count(*) FROM messages WHERE status IN ('queued', 'failed')") == 0
	}, patience, 50*time.Millisecond)
}

// dealt answers with each of the results once, in an order of chance, and again. Two of
// them fail, so that a channel that fails five times in a row, and rests longer with each
// trip, is no matter of chance: at most four follow on each other.
func dealt(results ...func(channel.Message) channel.Result) func(channel.Message) channel.Result {
	var mu sync.Mutex
	var deal []int
	return func(m channel.Message) channel.Result {
		mu.Lock()
		if len(deal) == 0 {
			deal = rand.Perm(len(results))
		}
		next := deal[0]
		deal = deal[1:]
		mu.Unlock()
		return results[next](m)
	}
}
