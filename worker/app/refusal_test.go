package app_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

func refusal(class channel.Class, code, text string) channel.Result {
	return channel.Result{Outcome: channel.Rejected, Class: class, Code: code, Text: text}
}

// TestChannelIsRefused: where a provider refuses one recipient after the other alike, the
// channel rests with the provider's sentence, nobody's message fails for good, and all go out
// once it takes them (catalogue F-05).
func TestChannelIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.connections(4)
	var taken atomic.Bool
	w.provider.set(func(m channel.Message) channel.Result {
		if taken.Load() {
			return accepted(m)
		}
		return refusal(channel.ClassRefused, "554", "blocked for a day")
	})
	var list []*messaging.Message
	for i := range 60 {
		list = append(list, w.single(fmt.Sprintf("a%d@d%d.example", i, i%2)))
	}
	w.create(list...)
	w.start()
	refused := func() bool { return w.reread(w.channel).Status == messaging.ChannelError }
	require.Eventually(t, refused, patience, 5*time.Millisecond)
	require.Equal(t, "blocked for a day", w.reread(w.channel).ErrorMessage)
	for range 3 { // the message that tries it is refused too
		calls, _ := w.provider.called()
		w.exec("UPDATE channels SET circuit_until = now() WHERE circuit_until > now()")
		w.exec("UPDATE dispatch_chunks SET not_before = now() WHERE state = 'ready'")
		require.Eventually(t, func() bool {
			now, _ := w.provider.called()
			return len(now) > len(calls) && w.reread(w.channel).CircuitUntil != nil && w.reread(w.channel).CircuitUntil.After(clock.System().Now())
		}, patience, 5*time.Millisecond)
	}
	require.True(t, refused())
	calls, _ := w.provider.called()
	require.LessOrEqual(t, len(calls), 10+4+3*2, "ten, those in flight, then one at a time")
	require.Zero(t, w.count("SELECT count(*) FROM messages WHERE status = 'permanently_failed'"))

	taken.Store(true)
	w.exec("UPDATE channels SET circuit_until = now() WHERE circuit_until > now()")
	w.exec("UPDATE dispatch_chunks SET not_before = now() WHERE state = 'ready'")
	require.Eventually(t, func() bool {
		w.exec("UPDATE message_due SET due_at = now()")
		return w.count("SELECT count(*) FROM messages WHERE status = 'sent'") == len(list)
	}, patience, 50*time.Millisecond)
	require.Equal(t, messaging.ChannelConnected, w.reread(w.channel).Status)
}

// TestProvidersSentenceOnAChannel: a channel that rests says what its provider said, and goes
// on saying why it was refused, whatever tries meet later.
func TestProvidersSentenceOnAChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.connections(1)
	w.tune(func(c *messaging.Channel) { c.RetryCount = 20 })
	answer := func(res channel.Result) { w.provider.set(func(channel.Message) channel.Result { return res }) }
	says := func(status, text string) {
		t.Helper()
		var c *messaging.Channel
		require.Eventually(t, func() bool {
			c = w.reread(w.channel)
			return c.CircuitUntil != nil && c.ErrorMessage == text
		}, patience, 5*time.Millisecond, "want %s", text)
		require.Equal(t, status, c.Status)
	}
	tried := func(res channel.Result) {
		t.Helper()
		answer(res)
		trips := w.reread(w.channel).CircuitTrips
		require.Eventually(t, func() bool {
			w.exec("UPDATE channels SET circuit_until = now() WHERE circuit_until > now()")
			w.exec("UPDATE dispatch_chunks SET not_before = now() WHERE state = 'ready'")
			w.exec("UPDATE message_due SET due_at = now()")
			return w.reread(w.channel).CircuitTrips > trips
		}, patience, 20*time.Millisecond)
	}
	answer(refusal(channel.ClassTransient, "451", "the spool is full"))
	var list []*messaging.Message
	for i := range 20 {
		list = append(list, w.single(fmt.Sprintf("a%d@example.org", i)))
	}
	w.create(list...)
	w.start()
	says(messaging.ChannelConnected, "the provider does not work: the spool is full; messages wait and are tried again")
	tried(refusal(channel.ClassConfig, "550", "Daily sending limit exceeded"))
	says(messaging.ChannelError, "Daily sending limit exceeded")
	tried(channel.Fail(channel.ClassTransient, "connect_failed", "could not connect"))
	says(messaging.ChannelError, "Daily sending limit exceeded")
	tried(refusal(channel.ClassConfig, "550", ""))
	says(messaging.ChannelError, "the provider refuses the channel and does not say why (550)")
	tried(refusal(channel.ClassBilling, "550", "no balance"))
	says(messaging.ChannelError, "no balance")
}

// TestProvidersSentenceOnAMessage: what the provider said of a message stands beside our word
// for why it waits, and for why it is given up.
func TestProvidersSentenceOnAMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fannedOut(1)
	end := func(o messaging.Outcome) *messaging.Message {
		t.Helper()
		w.exec("UPDATE message_due SET due_at = now()")
		_, err := w.work.ReleaseDue(t.Context())
		require.NoError(t, err)
		c := w.claim()
		require.True(t, w.pass(c, 1, nil))
		o.MessageID = c.MessageIDs[0]
		require.NoError(t, w.work.EndChunk(t.Context(), c, []messaging.Outcome{o}, postgres.Rest{}))
		return w.message(o.MessageID)
	}
	words := func(m *messaging.Message) []string {
		return []string{m.Status, m.ErrorCode, m.ErrorProvider, m.ErrorText}
	}
	full := messaging.Decide(refusal(channel.ClassTransient, "451", "the spool is full"), w.channel, 0, 0)
	require.Equal(t, []string{messaging.MessageFailed, "transient", "451", "the spool is full"}, words(end(full)))
	held := messaging.Held("", "circuit_open", time.Minute)
	require.Equal(t, []string{messaging.MessageQueued, "circuit_open", "451", "the spool is full"}, words(end(held)))
	busy := messaging.Decide(refusal(channel.ClassTransient, "421", ""), w.channel, 0, 0)
	require.Equal(t, []string{messaging.MessageFailed, "transient", "421", ""}, words(end(busy)), "another answer without a text")
	again := messaging.Decide(refusal(channel.ClassDeferred, "450", "come back later"), w.channel, 0, 0)
	require.Equal(t, "come back later", end(again).ErrorText)
	late := messaging.Outcome{Status: messaging.MessagePermanentlyFailed, Code: messaging.CodeExpired}
	require.Equal(t, []string{messaging.MessagePermanentlyFailed, messaging.CodeExpired, "450", "come back later"}, words(end(late)))
}

// TestRecipientsAreDeferred: recipients who are refused for now cost nobody else anything
// (catalogue F-04), however many they are.
func TestRecipientsAreDeferred(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.provider.set(func(m channel.Message) channel.Result {
		if strings.HasSuffix(m.To, "@mistyped.example") {
			return refusal(channel.ClassDeferred, "450", "domain not found")
		}
		return accepted(m)
	})
	var list []*messaging.Message
	for i := range 40 {
		list = append(list, w.single(fmt.Sprintf("a%d@mistyped.example", i)))
	}
	list = append(list, w.single("code@example.org"))
	w.create(list...)
	w.start()
	w.becomes(list[40], messaging.MessageSent)
	for _, m := range list[:40] {
		w.becomes(m, messaging.MessageFailed)
	}
	c := w.reread(w.channel)
	require.Equal(t, messaging.ChannelConnected, c.ShownStatus(clock.System().Now()))
	require.Nil(t, c.CircuitUntil)
	soonest := w.count("SELECT floor(extract(epoch FROM min(due_at) - now())) FROM message_due")
	require.GreaterOrEqual(t, soonest, 100, "half of five minutes at least")
}

// TestRefusedOnce: somebody alone who is refused for what may be the sender's fault is tried
// once more, and then failed for good.
func TestRefusedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.provider.set(func(channel.Message) channel.Result { return refusal(channel.ClassRefused, "550", "access denied") })
	m := w.single("a@example.org")
	w.create(m)
	w.start()
	w.becomes(m, messaging.MessageFailed)
	require.Eventually(t, func() bool {
		w.exec("UPDATE message_due SET due_at = now()")
		return w.message(m.ID).Status == messaging.MessagePermanentlyFailed
	}, patience, 20*time.Millisecond)
	require.EqualValues(t, 2, w.message(m.ID).Attempts)
	require.Equal(t, messaging.ChannelConnected, w.reread(w.channel).Status)
}
