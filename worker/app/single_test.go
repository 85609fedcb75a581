package app_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// single is a message to one address, not stored yet.
func (w *world) single(to string, change ...func(*messaging.Message)) *messaging.Message {
	body := "Your code is 1234."
	m := &messaging.Message{
		AccountID: w.account, ChannelID: w.channel.ID, ChannelType: messaging.TypeEmail, Direction: messaging.DirectionOutbound,
		Status: messaging.MessageQueued, DeliveryAddress: to, Subject: "Code", Body: &body,
	}
	for _, c := range change {
		c(m)
	}
	return m
}

func (w *world) create(list ...*messaging.Message) {
	w.t.Helper()
	w.tx(func(ctx context.Context, tx *pg.Tx) error { return w.store.CreateMessages(ctx, tx, list, nil) })
}

func (w *world) message(id string) *messaging.Message {
	w.t.Helper()
	m, err := w.store.Message(w.t.Context(), []string{w.account}, id)
	require.NoError(w.t, err)
	return m
}

// becomes waits until the message has the state, and checks the ledger.
func (w *world) becomes(m *messaging.Message, status string) *messaging.Message {
	w.t.Helper()
	var got *messaging.Message
	require.Eventually(w.t, func() bool {
		got = w.message(m.ID)
		return got.Status == status
	}, patience, 5*time.Millisecond, "want %s", status)
	w.check()
	return got
}

func notAfter(in time.Duration) func(*messaging.Message) {
	return func(m *messaging.Message) {
		at := clock.System().Now().Add(in)
		m.NotAfter = &at
	}
}

func TestSingleMessageIsSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mu sync.Mutex
	var got []channel.Message
	w.provider.set(func(m channel.Message) channel.Result {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, m)
		return accepted(m)
	})
	w.start()
	m := w.single("a@example.org", func(m *messaging.Message) { m.HTML = "<b>1234</b>" })
	w.create(m)
	sent := w.becomes(m, messaging.MessageSent)
	require.Equal(t, "Your code is 1234.", *sent.Body)
	require.Equal(t, "Code", sent.Subject)
	require.EqualValues(t, 1, sent.Attempts)
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, got, 1)
	require.Equal(t, []string{"a@example.org", "Code", "Your code is 1234.", "<b>1234</b>"}, []string{got[0].To, got[0].Subject, got[0].Text, got[0].HTML})
	require.Equal(t, 1, w.count("SELECT count(*) FROM outbox_events WHERE event_type = 'message.queued'"))
	require.Zero(t, w.count("SELECT count(*) FROM dispatch_chunks"))
}

func TestNobodyWatchesWhatWasSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.single("a@example.org", notAfter(time.Hour))
	w.create(m)
	require.Equal(t, 1, w.count("SELECT count(*) FROM message_expiries"))
	w.start()
	w.becomes(m, messaging.MessageSent)
	require.Zero(t, w.count("SELECT count(*) FROM message_expiries"))
}

func TestManySinglesShareChunks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var list []*messaging.Message
	for i := range 150 {
		list = append(list, w.single(string(rune('a'+i%26))+"@example.org"))
	}
	w.create(list...)
	require.Equal(t, 3, w.count("SELECT count(*) FROM dispatch_chunks WHERE lane = 'transactional'"))
	w.check()
	w.start()
	for _, m := range list {
		w.becomes(m, messaging.MessageSent)
	}
}

func TestSingleOvertakesASend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(500, nil)
	hold := make(chan struct{})
	w.provider.set(func(m channel.Message) channel.Result {
		if m.To != "otp@example.org" {
			<-hold
		}
		return accepted(m)
	})
	id := w.queue()
	w.start()
	require.Eventually(t, func() bool { n, _ := w.provider.received(); return n >= 64 }, patience, time.Millisecond)
	m := w.single("otp@example.org")
	w.create(m)
	w.becomes(m, messaging.MessageSent)
	require.Zero(t, w.group(id).Sent, "the campaign still stands")
	close(hold)
	w.final(id)
}

func TestExpiredMessageIsNotSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	late := w.single("late@example.org", notAfter(-time.Second))
	w.create(late)
	w.start()
	m := w.becomes(late, messaging.MessagePermanentlyFailed)
	require.Equal(t, messaging.CodeExpired, m.ErrorCode)
	require.NotNil(t, m.FailedAt)
	n, _ := w.provider.received()
	require.Zero(t, n)
}

func TestHeldMessageExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enable(false)
	held, kept := w.single("held@example.org", notAfter(time.Second)), w.single("kept@example.org", notAfter(time.Hour))
	w.create(held, kept)
	w.start()
	require.Equal(t, messaging.CodeExpired, w.becomes(held, messaging.MessagePermanentlyFailed).ErrorCode)
	require.Equal(t, messaging.MessageQueued, w.message(kept.ID).Status)
	w.enable(true)
	w.becomes(kept, messaging.MessageSent)
	n, _ := w.provider.received()
	require.Equal(t, 1, n)
}

func TestRetryExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.store.UpdateChannel(t.Context(), []string{w.account}, w.channel.ID, func(c *messaging.Channel) error {
		c.RetryInterval = 3600
		return nil
	})
	require.NoError(t, err)
	w.provider.set(func(channel.Message) channel.Result { return channel.Fail(channel.ClassTransient, "x", "later") })
	m := w.single("retry@example.org", notAfter(time.Hour))
	w.create(m)
	w.start()
	w.becomes(m, messaging.MessageFailed)
	w.exec("UPDATE message_expiries SET expires_at = now()")
	require.Equal(t, messaging.CodeExpired, w.becomes(m, messaging.MessagePermanentlyFailed).ErrorCode)
	require.Zero(t, w.count("SELECT count(*) FROM message_due"))
}

func TestSingleOfADeletedChannelFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enable(false)
	m := w.single("a@example.org")
	w.create(m)
	require.NoError(t, w.store.DeleteChannel(t.Context(), []string{w.account}, w.channel.ID, true))
	w.start()
	require.Equal(t, messaging.CodeChannelDeleted, w.becomes(m, messaging.MessagePermanentlyFailed).ErrorCode)
}

func TestSingleOfASuspendedAccountHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.directory.block(w.account)
	w.start()
	require.Eventually(t, func() bool { return w.count("SELECT count(*) FROM blocked_accounts") == 1 }, patience, 10*time.Millisecond)
	m := w.single("a@example.org")
	w.create(m)
	require.Eventually(t, func() bool { return w.count("SELECT count(*) FROM outbox_events WHERE published_at IS NULL") == 0 }, patience, 10*time.Millisecond)
	require.Equal(t, messaging.MessageQueued, w.message(m.ID).Status)
	w.directory.block()
	w.becomes(m, messaging.MessageSent)
}
