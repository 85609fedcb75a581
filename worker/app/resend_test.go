package app_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
	"github.com/turumba/turumba/worker/app"
)

// half refuses every second person and keeps the fourth waiting for ever.
func half(m channel.Message) channel.Result {
	n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(m.To, "p"), "@example.org"))
	switch {
	case n == 4:
		return channel.Lost("eof", "gone")
	case n%2 == 1:
		return channel.Result{Outcome: channel.Rejected, Class: channel.ClassPermanentRecipient, Code: "x", Text: "no"}
	}
	return accepted(m)
}

func (w *world) resend(id string, includeUnknown bool, statuses ...string) (g *messaging.GroupMessage, err error) {
	ctx, scope := w.t.Context(), []string{w.account}
	err = w.store.DB().InTx(ctx, scope, func(tx *pg.Tx) error {
		g, err = w.store.ResendGroupMessage(ctx, tx, scope, id, messaging.Resending{IncludeUnknown: includeUnknown, Statuses: statuses}, messaging.Allowance{})
		return err
	})
	return g, err
}

// TestResendOnlyFailed ends a worker in the middle of a resend, too.
func TestResendOnlyFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 2400
	w.people(n, nil)
	w.provider.set(half)
	first := w.queue()
	_, err := w.resend(first, false)
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_STATE), "%v", err)
	stop := w.start()
	old := w.final(first)
	require.EqualValues(t, n/2+1, old.Failed)
	require.EqualValues(t, 1, old.Unknown)
	stop()

	w.provider.set(accepted)
	w.suppress("p7@example.org")
	w.exec("UPDATE templates SET body = 'Another text.'")
	g, err := w.resend(first, false)
	require.NoError(t, err)
	require.EqualValues(t, n/2, g.Addresses)
	_, err = w.resend(first, false)
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_STATE), "once: %v", err)

	w.exec("ALTER TABLE group_messages ADD CONSTRAINT dead CHECK (resend_of_id IS NULL OR total_recipients < 1000)")
	stop = w.start(app.RoleFanout)
	w.until(g.ID, "it stands still", func(*messaging.GroupMessage) bool {
		return w.count("SELECT count(*) FROM fanout_jobs WHERE epoch > 0 AND lease_until IS NULL") == 1
	})
	stop()
	require.Equal(t, 999, w.count("SELECT count(*) FROM messages WHERE group_message_id = $1", g.ID))
	w.exec("ALTER TABLE group_messages DROP CONSTRAINT dead")
	w.exec("UPDATE fanout_jobs SET not_before = now()")
	w.start()

	g = w.final(g.ID)
	require.Equal(t, messaging.GroupCompleted, g.Status)
	require.EqualValues(t, n/2-1, g.Sent)
	require.EqualValues(t, 1, g.Skipped)
	require.Equal(t, 1, w.skipped(messaging.SkipOptedOut))
	distinct, again := w.provider.received()
	require.Equal(t, n, distinct)
	require.Equal(t, n/2-1, again, "only they got a second one")
	require.Zero(t, w.count(`
		SELECT count(*) FROM messages m JOIN messages o ON o.group_message_id = $2 AND lower(o.delivery_address) = lower(m.delivery_address)
		WHERE m.group_message_id = $1 AND (o.status <> 'permanently_failed' OR o.error_code = 'outcome_unknown'
			OR o.contact_id <> m.contact_id OR o.vars::jsonb <> m.vars::jsonb)`, g.ID, first))
	m, err := w.store.Messages(t.Context(), []string{w.account}, listOne(g.ID))
	require.NoError(t, err)
	require.Equal(t, "Dear P1, Adama.", *m.Data[0].Body, "as it was when it failed")
	_, err = w.resend(g.ID, true)
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_STATE), "nothing failed: %v", err)
}

// TestResendByStatus: what a cancelled send did not reach is resent apart from what it failed
// to reach, each of them once.
func TestResendByStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fannedOut(10)
	c := w.claim()
	require.True(t, w.pass(c, 6, nil))
	ends := sent(c, 6)
	for i := 4; i < 6; i++ {
		ends[i] = messaging.Outcome{MessageID: c.MessageIDs[i], Ordinal: i, Status: messaging.MessagePermanentlyFailed, Code: "permanent_recipient", Attempt: "rejected", Class: "permanent_recipient"}
	}
	w.cancel(id)
	require.NoError(t, w.work.EndChunk(t.Context(), c, ends, postgres.Rest{}))
	w.start()
	old := w.until(id, "all have ended", (*messaging.GroupMessage).Final)
	require.Equal(t, []int32{4, 2, 4}, []int32{old.Sent, old.Failed, old.Cancelled})

	cancelled, err := w.resend(id, false, messaging.ResendCancelled)
	require.NoError(t, err)
	require.EqualValues(t, 4, cancelled.Addresses)
	require.EqualValues(t, 4, w.final(cancelled.ID).Sent)
	for _, again := range [][]string{{messaging.ResendCancelled}, {messaging.ResendFailed, messaging.ResendCancelled}} {
		_, err = w.resend(id, false, again...)
		require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_STATE), "%v: %v", again, err)
	}
	failed, err := w.resend(id, false)
	require.NoError(t, err, "what failed was not resent yet")
	require.EqualValues(t, 2, w.final(failed.ID).Sent)
	_, err = w.resend(id, false)
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_STATE), "%v", err)
	distinct, again := w.provider.received()
	require.Equal(t, []int{6, 0}, []int{distinct, again}, "four were sent before, by hand")
}

func TestResendOfUnknownOutcomes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(6, nil)
	w.provider.set(half)
	id := w.queue()
	w.start()
	w.final(id)
	w.provider.set(accepted)
	g, err := w.resend(id, true)
	require.NoError(t, err)
	require.NoError(t, w.store.DeleteGroupMessage(t.Context(), []string{w.account}, id), "its messages stay")
	require.EqualValues(t, 4, w.final(g.ID).Sent)
	_, again := w.provider.received()
	require.Equal(t, 4, again)
}
