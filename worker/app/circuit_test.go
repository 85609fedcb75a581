package app_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// another is a second channel of the same type.
func (w *world) another(priority int32) *messaging.Channel {
	w.t.Helper()
	c := *w.channel
	c.ID, c.Name, c.Priority = messaging.NewID(), "Second", priority
	w.tx(func(ctx context.Context, tx *pg.Tx) error { return w.store.CreateChannel(ctx, tx, &c, nil) })
	return &c
}

// connections gives the channel so many.
func (w *world) connections(n int32) {
	w.t.Helper()
	w.tune(func(c *messaging.Channel) { c.Connections = n })
}

func (w *world) tune(change func(*messaging.Channel)) {
	w.t.Helper()
	_, err := w.store.UpdateChannel(w.t.Context(), []string{w.account}, w.channel.ID, func(c *messaging.Channel) error {
		change(c)
		return nil
	})
	require.NoError(w.t, err)
}

func byType(m *messaging.Message) { m.ByType = true }

func (w *world) reread(c *messaging.Channel) *messaging.Channel {
	w.t.Helper()
	got, err := w.store.Channel(w.t.Context(), []string{w.account}, c.ID)
	require.NoError(w.t, err)
	return got
}

// TestCircuit: a provider that is away is called a handful of times, then by one message
// at a time; when it is back everything goes out (catalogue F-54).
func TestCircuit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(300, nil)
	w.connections(4)
	w.tune(func(c *messaging.Channel) { c.RetryCount = 20 }) // a probe uses an attempt, and may meet one message again and again
	var down atomic.Bool
	down.Store(true)
	w.provider.set(func(m channel.Message) channel.Result {
		if down.Load() {
			return channel.Fail(channel.ClassTransient, "connect_failed", "away")
		}
		return accepted(m)
	})
	id := w.queue()
	w.start()
	w.start()
	require.Eventually(t, func() bool { return w.reread(w.channel).CircuitTrips >= 3 }, patience, 5*time.Millisecond)
	c := w.reread(w.channel)
	require.Equal(t, messaging.ChannelDisconnected, c.ShownStatus(clock.System().Now()))
	require.NotEmpty(t, c.ErrorMessage)
	calls, _ := w.provider.called()
	require.LessOrEqual(t, len(calls), 2*(5+3)+4, "two workers, five failures and three in flight each, then one at a time")
	down.Store(false)
	g := w.final(id)
	require.Equal(t, []any{messaging.GroupCompleted, int32(300), int32(0)}, []any{g.Status, g.Sent, g.Failed})
	c = w.reread(w.channel)
	require.Nil(t, c.CircuitUntil)
	require.Zero(t, c.CircuitTrips)
	require.Equal(t, messaging.ChannelConnected, c.Status)
	_, most := w.provider.called()
	require.LessOrEqual(t, most, 2*4, "each worker keeps to the channel's connections")
}

// TestFailOver: a message that named only the type goes by the next channel when its own
// is refused or away; one that named the channel waits for it (decision D11).
func TestFailOver(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]channel.Result{
		"config":  channel.Fail(channel.ClassConfig, "535", "the mail server refused the login"),
		"billing": {Outcome: channel.Rejected, Class: channel.ClassBilling, Code: "402", Text: "no balance"},
		"away":    channel.Fail(channel.ClassTransient, "connect_failed", "away"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			second := w.another(-1)
			var down atomic.Bool
			down.Store(true)
			w.provider.set(func(m channel.Message) channel.Result {
				if m.ChannelID == w.channel.ID && down.Load() {
					return broken
				}
				return accepted(m)
			})
			var list []*messaging.Message
			for range 8 {
				list = append(list, w.single("a@example.org", byType))
			}
			named := w.single("b@example.org")
			w.create(append(list, named)...)
			w.start()
			for _, m := range list {
				require.Equal(t, second.ID, w.becomes(m, messaging.MessageSent).ChannelID, "by the channel that was really used")
			}
			got := w.message(named.ID)
			require.Equal(t, w.channel.ID, got.ChannelID)
			require.NotEqual(t, messaging.MessageSent, got.Status)

			down.Store(false)
			w.exec("UPDATE channels SET circuit_until = now() WHERE circuit_until > now()") // its rest is over
			require.Equal(t, w.channel.ID, w.becomes(named, messaging.MessageSent).ChannelID)
			c := w.reread(w.channel)
			require.Equal(t, messaging.ChannelConnected, c.Status)
			require.Empty(t, c.ErrorMessage)
		})
	}
}

// TestFailOverBothWays: what was moved comes back when its new channel breaks as well
// and the old one works again.
func TestFailOverBothWays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second := w.another(-1)
	works := atomic.Pointer[string]{}
	works.Store(new(string))
	w.provider.set(func(m channel.Message) channel.Result {
		if m.ChannelID == *works.Load() {
			return accepted(m)
		}
		return channel.Fail(channel.ClassConfig, "535", "the mail server refused the login")
	})
	m := w.single("a@example.org", byType)
	w.create(m)
	w.start()
	require.Eventually(t, func() bool {
		return w.reread(w.channel).Status == messaging.ChannelError && w.reread(second).Status == messaging.ChannelError
	}, patience, 5*time.Millisecond)
	works.Store(&w.channel.ID)
	_, err := w.store.UpdateChannel(t.Context(), []string{w.account}, w.channel.ID, func(c *messaging.Channel) error {
		c.Mend()
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, w.channel.ID, w.becomes(m, messaging.MessageSent).ChannelID)
}

// TestThrottling: while a provider wants peace nobody calls it, in any process; without
// a hint the channel goes on at half its rate (catalogue F-51, F-52).
func TestThrottling(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(60, nil)
	w.connections(4)
	var n atomic.Int64
	w.provider.set(func(m channel.Message) channel.Result {
		if n.Add(1) == 21 {
			return channel.Result{Outcome: channel.Rejected, Class: channel.ClassRateLimited, Code: "429"}
		}
		return accepted(m)
	})
	id := w.queue()
	w.start()
	w.start()
	g := w.final(id)
	require.EqualValues(t, 60, g.Sent)
	calls, _ := w.provider.called()
	quiet := 0
	for i := 1; i < len(calls); i++ {
		if calls[i].Sub(calls[i-1]) > messaging.DefaultPause-100*time.Millisecond {
			quiet++
			require.LessOrEqual(t, i, 21+2*4, "only what was on its way came after the answer")
		}
	}
	require.Equal(t, 1, quiet)
	c := w.reread(w.channel)
	require.NotNil(t, c.Throttle)
	require.Zero(t, w.count("SELECT count(*) FROM message_attempts"), "no attempt was used")
	require.Len(t, calls, 61)
}

// TestInFlight: a slow provider gets no more calls at a time than the channel has
// connections, and another channel does not wait for it (catalogue F-53).
func TestInFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(500, nil)
	w.connections(4)
	quick := w.another(0)
	slow := make(chan struct{})
	w.provider.set(func(m channel.Message) channel.Result {
		if m.ChannelID == w.channel.ID {
			<-slow
		}
		return accepted(m)
	})
	id := w.queue()
	w.start()
	require.Eventually(t, func() bool { _, most := w.provider.called(); return most >= 4 }, patience, time.Millisecond)
	for range 20 {
		m := w.single("a@example.org", func(m *messaging.Message) { m.ChannelID = quick.ID })
		w.create(m)
		w.becomes(m, messaging.MessageSent)
	}
	_, most := w.provider.called()
	require.LessOrEqual(t, most, 4+1, "four connections, and one for the other channel")
	close(slow)
	require.EqualValues(t, 500, w.final(id).Sent)
}

// TestDeletedChannelKeepsHistory: what a channel sent is still told of when it is gone.
func TestDeletedChannelKeepsHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(2, nil)
	id := w.queue()
	m := w.single("a@example.org")
	w.create(m)
	w.start()
	w.final(id)
	w.becomes(m, messaging.MessageSent)
	require.NoError(t, w.store.DeleteChannel(t.Context(), []string{w.account}, w.channel.ID, false))
	for _, of := range append(w.recipients(id), m.ID) {
		got := w.message(of)
		require.Equal(t, []string{messaging.MessageSent, w.channel.ID}, []string{got.Status, got.ChannelID})
	}
	require.EqualValues(t, 2, w.group(id).Sent)
}

// TestAnswersAreKept: whatever comes back while a channel begins to rest is stored. Each
// call that was answered is an attempt of its message, and none is unknown.
func TestAnswersAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(300, nil)
	w.connections(64)
	w.tune(func(c *messaging.Channel) { c.RetryCount = 20 })
	w.provider.set(func(channel.Message) channel.Result {
		_ = clock.Sleep(context.Background(), clock.System(), time.Duration(rand.IntN(60))*time.Millisecond)
		return channel.Fail(channel.ClassTransient, "451", "later")
	})
	id := w.fannedOut(0)
	var singles []*messaging.Message
	for i := range 300 {
		singles = append(singles, w.single(fmt.Sprintf("single%d@example.org", i)))
	}
	w.create(singles...)
	w.start()
	for trips := 0; trips < 20; { // each time somebody mends it
		require.Eventually(t, func() bool { return w.reread(w.channel).CircuitUntil != nil }, patience, time.Millisecond)
		trips++
		w.exec("UPDATE channels SET circuit_until = NULL, circuit_trips = 0")
		w.exec("UPDATE dispatch_chunks SET not_before = now() WHERE state = 'ready'")
		w.exec("UPDATE message_due SET due_at = now()")
	}
	w.provider.set(accepted)
	w.final(id)
	require.Eventually(t, func() bool {
		return w.count("SELECT count(*) FROM messages WHERE status NOT IN ('sent', 'permanently_failed')") == 0
	}, patience, 20*time.Millisecond)
	w.provider.mu.Lock()
	defer w.provider.mu.Unlock()
	for to, calls := range w.provider.sent {
		require.Equal(t, calls, w.count("SELECT attempts FROM messages WHERE delivery_address = $1", to), to)
	}
	require.Zero(t, w.count("SELECT count(*) FROM messages WHERE error_code = 'outcome_unknown'"))
}

// TestPanicInAnAdapter: the message is unknown, and all others are sent.
func TestPanicInAnAdapter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.provider.set(func(m channel.Message) channel.Result {
		if m.To == "b@example.org" {
			panic("a fault")
		}
		return accepted(m)
	})
	list := []*messaging.Message{w.single("a@example.org"), w.single("b@example.org"), w.single("c@example.org")}
	w.create(list...)
	w.start()
	for i, status := range []string{messaging.MessageSent, messaging.MessagePermanentlyFailed, messaging.MessageSent} {
		w.becomes(list[i], status)
	}
	require.Equal(t, messaging.CodeOutcomeUnknown, w.message(list[1].ID).ErrorCode)
}

// TestChannelInUse: a channel that something waits for is deleted only by force, and then what
// waits fails.
func TestChannelInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(1, nil)
	remove := func(force bool) error {
		return w.store.DeleteChannel(t.Context(), []string{w.account}, w.channel.ID, force)
	}
	inUse := func(detail string) {
		t.Helper()
		err := remove(false)
		require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_IN_USE), "%v", err)
		require.ErrorContains(t, err, detail)
	}
	send := w.queue()
	inUse("sends of the channel are running")
	w.cancel(send)
	m := w.single("a@example.org")
	w.create(m)
	inUse("messages wait for the channel")

	w.provider.set(func(channel.Message) channel.Result { return refusal(channel.ClassDeferred, "450", "later") })
	stop := w.start()
	w.becomes(m, messaging.MessageFailed)
	stop()
	require.Equal(t, 1, w.count("SELECT count(*) FROM message_due"))
	inUse("messages wait for the channel")

	require.NoError(t, remove(true))
	require.True(t, apierr.HasReason(remove(true), errorv1.Reason_REASON_NOT_FOUND))
	w.start()
	require.Eventually(t, func() bool {
		w.exec("UPDATE message_due SET due_at = now()")
		return w.message(m.ID).Status == messaging.MessagePermanentlyFailed
	}, patience, 20*time.Millisecond)
}
