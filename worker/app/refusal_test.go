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
