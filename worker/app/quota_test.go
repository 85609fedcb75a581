package app_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

// today is how many messages count for the day.
func (w *world) today() int64 {
	w.t.Helper()
	n, err := w.store.MessagesToday(w.t.Context(), w.account)
	require.NoError(w.t, err)
	return n
}

// tryQueue makes a send to addresses and members that starts at once, within limits.
func (w *world) tryQueue(to []messaging.Recipient, members, perDay, perCampaign int64) (id string, err error) {
	w.t.Helper()
	g := &messaging.GroupMessage{
		ID: messaging.NewID(), AccountID: w.account, ChannelID: w.channel.ID, TemplateID: w.template.ID, Status: messaging.GroupQueued,
		CustomValues: map[string]string{"CITY": "Jimma"},
	}
	if members > 0 {
		g.ContactGroupIDs = []string{uuid.NewString()}
	}
	a := messaging.Allowance{Members: members, Quotas: messaging.Quotas{messaging.QuotaMessages: perDay, messaging.QuotaRecipients: perCampaign}}
	ctx := w.t.Context()
	return g.ID, w.store.DB().InTx(ctx, []string{w.account}, func(tx *pg.Tx) error { return w.store.CreateGroupMessage(ctx, tx, g, to, a) })
}

func (w *world) exceeds(err error, quota string) {
	w.t.Helper()
	require.True(w.t, apierr.HasReason(err, errorv1.Reason_REASON_QUOTA_EXCEEDED), "%v", err)
	require.Equal(w.t, quota, apierr.From(err).Meta["quota"])
}

// TestSkippedRecipientsAreGivenBack: a send counts whole when it is accepted, and with
// those who got a message when its recipients are written.
func TestSkippedRecipientsAreGivenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(600, nil)
	_, err := w.tryQueue(addresses(10), 600, 609, 0)
	w.exceeds(err, messaging.QuotaMessages)
	_, err = w.tryQueue(addresses(10), 600, 0, 609)
	w.exceeds(err, messaging.QuotaRecipients)
	require.Zero(t, w.today())
	require.Zero(t, w.count("SELECT count(*) FROM fanout_jobs"))

	id, err := w.tryQueue(addresses(10), 600, 1000, 610)
	require.NoError(t, err)
	require.EqualValues(t, 610, w.today())
	_, err = w.tryQueue(addresses(10), 600, 1000, 610)
	w.exceeds(err, messaging.QuotaMessages)
	w.start()
	g := w.final(id)
	require.Positive(t, g.Skipped)
	require.EqualValues(t, g.Total, w.today())
}

// TestCancelledSendsGiveBack: what was never written counts for nothing, deleted or not.
func TestCancelledSendsGiveBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var ids []string
	for range 2 {
		id, err := w.tryQueue(addresses(10), 0, 100, 0)
		require.NoError(t, err)
		ids = append(ids, id)
	}
	require.EqualValues(t, 20, w.today())
	w.tx(func(ctx context.Context, tx *pg.Tx) error {
		_, err := w.store.CancelGroupMessage(ctx, tx, []string{w.account}, ids[0])
		_, err2 := w.store.CancelGroupMessage(ctx, tx, []string{w.account}, ids[1])
		return errors.Join(err, err2)
	})
	require.NoError(t, w.store.DeleteGroupMessage(t.Context(), []string{w.account}, ids[1]))
	w.start("fanout")
	require.Eventually(t, func() bool { return w.today() == 0 }, patience, 10*time.Millisecond)
	require.Zero(t, w.count("SELECT count(*) FROM fanout_jobs"))
}

// TestLateMembersAreCounted: who joined after the send was accepted counts, too.
func TestLateMembersAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(20, nil)
	id, err := w.tryQueue(nil, 15, 100, 0)
	require.NoError(t, err)
	w.start()
	require.EqualValues(t, 20, w.final(id).Sent)
	require.EqualValues(t, 20, w.today())
}

// TestMessagesUpToTheLimit: singles and batches at once, exactly the limit.
func TestMessagesUpToTheLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const most, rivals = 30, 16
	var accepted atomic.Int64
	var wg sync.WaitGroup
	for i := range rivals {
		wg.Go(func() {
			n := 1 + i%4
			list := make([]*messaging.Message, n)
			for k := range list {
				body := "x"
				list[k] = &messaging.Message{
					AccountID: w.account, ChannelID: w.channel.ID, ChannelType: messaging.TypeEmail, Direction: messaging.DirectionOutbound,
					Status: messaging.MessageQueued, DeliveryAddress: fmt.Sprintf("q%d-%d@example.org", i, k), Body: &body,
				}
			}
			err := w.store.DB().InTx(t.Context(), []string{w.account}, func(tx *pg.Tx) error {
				return w.store.CreateMessages(t.Context(), tx, list, messaging.Quotas{messaging.QuotaMessages: most})
			})
			switch {
			case err == nil:
				accepted.Add(int64(n))
			case !apierr.HasReason(err, errorv1.Reason_REASON_QUOTA_EXCEEDED):
				t.Errorf("create messages: %v", err)
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, accepted.Load(), int64(most))
	require.Greater(t, accepted.Load(), int64(most-4), "only what does not fit is refused")
	require.Equal(t, accepted.Load(), w.today())
	require.EqualValues(t, accepted.Load(), w.count("SELECT count(*) FROM messages"))
}
