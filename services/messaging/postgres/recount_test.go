package postgres

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/services/messaging"
)

// falsify makes counters wrong in the ways that the table allows.
var falsify = []string{
	"pending_count = pending_count + 2, total_recipients = total_recipients + 2",
	"sent_count = sent_count + 3, total_recipients = total_recipients + 3",
	"failed_count = failed_count + 1, sent_count = sent_count - 1",
	"cancelled_count = cancelled_count + 4, total_recipients = total_recipients + 4, skipped_count = skipped_count + 1",
	"unknown_count = unknown_count + 5, delivered_count = delivered_count + 1",
}

// TestRecountBesideTraffic is catalogue F-71: counters are made wrong and put right,
// by two operators at once, while eight hands go on sending, cancelling and retrying.
func TestRecountBesideTraffic(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.New(t, Migrations()...))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var writers, operators sync.WaitGroup
	for i := range historyWriters {
		writers.Go(func() { h.write(rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	var mu sync.Mutex
	repaired, done := 0, make(chan struct{})
	for i := range 2 {
		operators.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(100+i)))
			for {
				select {
				case <-done:
					return
				default:
				}
				h.exec("UPDATE group_messages SET " + falsify[r.IntN(len(falsify))] + " WHERE id = '" + h.sends[r.IntN(historySends)].ID + "'")
				n := h.recountAll(t)
				mu.Lock()
				repaired += n
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	close(done)
	operators.Wait()
	require.Empty(t, h.problems)
	require.Positive(t, repaired)
	h.recountAll(t)
	require.Zero(t, h.recountAll(t), "a recount changes nothing that is right")
	problems, err := CheckLedger(t.Context(), h.admin)
	require.NoError(t, err)
	require.Empty(t, problems)
	t.Logf("%d repairs during %d steps", repaired, h.steps.Load())
}

// recountAll recounts every send of all accounts and returns how many were wrong.
func (h *history) recountAll(t *testing.T) (wrong int) {
	t.Helper()
	refs := h.refs(t, "")
	require.Len(t, refs, historySends)
	for _, ref := range refs {
		r, err := h.work.Recount(t.Context(), ref, false)
		require.NoError(t, err)
		if r.Repaired {
			wrong++
		}
	}
	return wrong
}

func (h *history) refs(t *testing.T, account string) []SendRef {
	t.Helper()
	refs, err := h.work.SendsAfter(t.Context(), account, uuid.Nil.String(), 1000)
	require.NoError(t, err)
	return refs
}

// TestRecount: what a recount says and does, one case at a time.
func TestRecount(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.New(t, Migrations()...))
	ctx, f := t.Context(), h.open[0]
	ref := SendRef{ID: f.Group.ID, AccountID: f.Group.AccountID}
	status := func() (s string) {
		require.NoError(t, h.admin.QueryRow(ctx, "SELECT status FROM group_messages WHERE id = $1", ref.ID).Scan(&s))
		return s
	}
	for _, own := range h.refs(t, ref.AccountID) {
		require.Equal(t, ref.AccountID, own.AccountID)
	}
	b := FanoutBatch{Cursor: messaging.NewID(), Skips: []messaging.Skip{{ID: messaging.NewID(), ContactID: messaging.NewID(), Reason: messaging.SkipNoAddress}}}
	for range 3 {
		contact := messaging.NewID()
		b.Messages = append(b.Messages, messaging.Addressee{ContactID: contact, Address: contact + "@example.org"})
	}
	_, err := h.work.WriteFanout(ctx, f, b, 0)
	require.NoError(t, err)
	require.NoError(t, h.work.FinishFanout(ctx, f))
	right := SendCounters{Total: 3, Pending: 3, Skipped: 1}

	t.Run("right counters stay", func(t *testing.T) {
		r, err := h.work.Recount(ctx, ref, false)
		require.NoError(t, err)
		require.Equal(t, &Recounted{SendRef: ref, Counted: right, Rows: right}, r)
	})
	t.Run("a dry run only tells", func(t *testing.T) {
		h.exec("UPDATE group_messages SET pending_count = 0, sent_count = 3, status = 'completed', completed_at = now() WHERE id = '" + ref.ID + "'")
		r, err := h.work.Recount(ctx, ref, true)
		require.NoError(t, err)
		require.True(t, r.Differs())
		require.False(t, r.Repaired)
		require.Equal(t, messaging.GroupCompleted, status())
	})
	t.Run("a send that ended too early goes on", func(t *testing.T) {
		r, err := h.work.Recount(ctx, ref, false)
		require.NoError(t, err)
		require.True(t, r.Repaired)
		require.Equal(t, messaging.GroupProcessing, status())
	})
	t.Run("a send that cannot end ends", func(t *testing.T) {
		h.exec("UPDATE messages SET status = 'sent' WHERE group_message_id = '" + ref.ID + "'")
		_, err := h.work.Recount(ctx, ref, false)
		require.NoError(t, err)
		require.Equal(t, messaging.GroupCompleted, status())
		var events int
		require.NoError(t, h.admin.QueryRow(ctx, "SELECT count(*) FROM outbox_events WHERE event_type = 'group_message.completed' AND aggregate_id = $1", ref.ID).Scan(&events))
		require.Equal(t, 1, events)
	})
	t.Run("rows are counted although others hold them", func(t *testing.T) {
		tx, err := h.admin.Begin(ctx)
		require.NoError(t, err)
		defer func() { require.NoError(t, tx.Rollback(context.WithoutCancel(ctx))) }()
		_, err = tx.Exec(ctx, "SELECT FROM group_messages g, messages m WHERE g.id = m.group_message_id FOR UPDATE")
		require.NoError(t, err)
		r, err := h.work.Recount(ctx, ref, false)
		require.NoError(t, err)
		require.False(t, r.Differs())
		h.exec("UPDATE channels SET name = name") // what it does not concern goes on too
	})
	t.Run("it gives up a send that others hold for long", func(t *testing.T) {
		h.exec("UPDATE group_messages SET unknown_count = 1 WHERE id = '" + ref.ID + "'")
		tx, err := h.admin.Begin(ctx)
		require.NoError(t, err)
		defer func() { require.NoError(t, tx.Rollback(context.WithoutCancel(ctx))) }()
		_, err = tx.Exec(ctx, "SELECT FROM group_messages FOR UPDATE")
		require.NoError(t, err)
		_, err = h.work.Recount(ctx, ref, false)
		require.Error(t, err)
	})
	t.Run("months that are not kept are left alone", func(t *testing.T) {
		h.exec("UPDATE group_messages SET started_at = '2019-01-01Z' WHERE id = '" + ref.ID + "'")
		r, err := h.work.Recount(ctx, ref, false)
		require.NoError(t, err)
		require.Nil(t, r)
	})
}
