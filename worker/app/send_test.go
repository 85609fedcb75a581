package app_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

func TestSendAccountsForEverybody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 1203
	w.people(n, func(i int, r *accountv1.Recipient) {
		switch i {
		case 10:
			r.Email = ""
		case 700, 1202: // other chunks than the first of their address
			r.Email = "P1@example.org"
		case 20:
			r.Metadata = nil
		case 30:
			r.Metadata.Fields["city"] = structpb.NewStringValue(strings.Repeat("x", messaging.MaxText))
		}
	})
	w.directory.failAfter = 1 // the stream breaks once and is taken up again
	id := w.queue("00000000-0000-7000-8000-000000000001")
	w.start()
	g := w.final(id)
	require.Equal(t, messaging.GroupCompleted, g.Status)
	require.EqualValues(t, n-6, g.Total)
	require.EqualValues(t, n-6, g.Sent)
	require.EqualValues(t, 6, g.Skipped)
	distinct, again := w.provider.received()
	require.Equal(t, n-6, distinct)
	require.Zero(t, again)
	for reason, want := range map[string]int{messaging.SkipNoAddress: 1, messaging.SkipDuplicateAddress: 2, messaging.SkipUnresolved: 1, messaging.SkipTooLong: 1, messaging.SkipExcluded: 1} {
		require.Equal(t, want, w.count("SELECT count(*) FROM group_message_skips WHERE reason = $1", reason), reason)
	}
	require.Equal(t, n-6, w.count("SELECT count(*) FROM messages WHERE provider_message_id = 'id-' || id AND attempts = 1 AND sent_at IS NOT NULL"))
	require.Zero(t, w.count("SELECT (SELECT count(*) FROM dispatch_chunks) + (SELECT count(*) FROM message_due) + (SELECT count(*) FROM fanout_jobs)"))
	m, err := w.store.Messages(t.Context(), []string{w.account}, listOne(id))
	require.NoError(t, err)
	require.Equal(t, "Dear P1, Adama.", *m.Data[0].Body, "the body is rendered on read")
}

// TestNamesOfProviders: the name that a provider gives a message is kept as it is, however
// long.
func TestNamesOfProviders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	names := map[string]string{} // by address
	w.people(300, func(i int, r *accountv1.Recipient) {
		n := []int{1, 63, 64, 200}[i*4/300] // whole windows of short ones too
		names[r.GetEmail()] = strings.Repeat("n", n-1) + string(rune('a'+i%26))
		if i%7 == 0 {
			names[r.GetEmail()] = strings.Repeat("ስ", n/3) // three bytes each
		}
	})
	w.provider.set(func(m channel.Message) channel.Result {
		return channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK, ProviderIDs: []string{names[m.To]}}
	})
	id := w.queue()
	w.start()
	require.EqualValues(t, 300, w.final(id).Sent)
	for address, name := range names {
		require.Equal(t, 1, w.count("SELECT count(*) FROM messages WHERE delivery_address = $1 AND provider_message_id = $2", address, name), "%s: %s", address, name)
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(200, nil)
	var mu sync.Mutex
	tries := map[string]int{}
	fail := func(class channel.Class) channel.Result {
		return channel.Result{Outcome: channel.Rejected, Class: class, Code: "x", Text: "no"}
	}
	w.provider.set(func(m channel.Message) channel.Result {
		mu.Lock()
		defer mu.Unlock()
		tries[m.To]++
		switch n := tries[m.To]; {
		case m.To == "p1@example.org":
			return fail(channel.ClassPermanentRecipient)
		case m.To == "p2@example.org" && n < 3:
			return fail(channel.ClassTransient)
		case m.To == "p3@example.org":
			return fail(channel.ClassTransient)
		case m.To == "p4@example.org":
			return channel.Lost("eof", "gone")
		case m.To == "p5@example.org" && n == 1:
			return channel.Result{Outcome: channel.Rejected, Class: channel.ClassRateLimited, RetryAfter: time.Second}
		case m.To == "p7@example.org":
			return fail(channel.ClassOptedOut)
		}
		return accepted(m)
	})
	w.suppress("p6@example.org")
	id := w.queue()
	w.start()
	g := w.final(id)
	require.Equal(t, messaging.GroupPartiallyFailed, g.Status)
	require.EqualValues(t, 195, g.Sent)
	require.EqualValues(t, 4, g.Failed)
	require.EqualValues(t, 1, g.Skipped)
	require.Equal(t, 1, w.count("SELECT count(*) FROM group_message_skips WHERE reason = 'opted_out'"))
	require.EqualValues(t, 1, g.Unknown)
	row := func(address string) string {
		var s string
		require.NoError(t, w.admin.QueryRow(t.Context(), `
			SELECT format('%s %s %s %s', status, coalesce(error_code, '-'), attempts, (SELECT count(*) FROM message_attempts a WHERE a.message_id = m.id))
			FROM messages m WHERE delivery_address = $1`, address).Scan(&s))
		return s
	}
	require.Equal(t, "permanently_failed permanent_recipient 1 1", row("p1@example.org"))
	require.Equal(t, "sent - 3 2", row("p2@example.org"))
	require.Equal(t, "permanently_failed transient 3 3", row("p3@example.org"))
	require.Equal(t, "permanently_failed outcome_unknown 1 1", row("p4@example.org"))
	require.Equal(t, "sent - 1 0", row("p5@example.org"), "throttling uses no attempt")
	require.Zero(t, tries["p6@example.org"], "a suppressed address is not written to")
	require.Equal(t, "permanently_failed opted_out 1 1", row("p7@example.org"))
	require.Equal(t, 1, w.count("SELECT count(*) FROM suppressions WHERE reason = 'opted_out' AND address = 'p7@example.org' AND channel_type = 'email'"))
}

// TestSubjectLineOfTheChannel: its variables get values although the template has
// none of them.
func TestSubjectLineOfTheChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(1, nil)
	_, err := w.store.UpdateTemplate(t.Context(), []string{w.account}, w.template.ID, func(tpl *messaging.Template) error {
		tpl.Subject, tpl.Body = "", "Welcome."
		return tpl.Prepare()
	})
	require.NoError(t, err)
	_, err = w.store.UpdateChannel(t.Context(), []string{w.account}, w.channel.ID, func(c *messaging.Channel) error {
		c.Credentials.SubjectTemplate = "{FIRST_NAME}: news from {ACCOUNT_NAME}"
		return nil
	})
	require.NoError(t, err)
	sent := make(chan channel.Message, 1)
	w.provider.set(func(m channel.Message) channel.Result {
		sent <- m
		return accepted(m)
	})
	id := w.queue()
	w.start()
	require.EqualValues(t, 1, w.final(id).Sent)
	require.Equal(t, "P0: news from School", (<-sent).Subject)
}

func TestSuppressedIsStoppedAtTheGate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fannedOut(10)
	w.suppress("p6@example.org")
	single := w.single("P6@Example.org")
	w.create(single)
	w.start()
	g := w.final(id)
	require.EqualValues(t, 9, g.Sent)
	require.EqualValues(t, 1, g.Failed)
	m := w.becomes(single, messaging.MessagePermanentlyFailed)
	require.Equal(t, messaging.CodeOptedOut, m.ErrorCode)
	require.Zero(t, m.Attempts)
	distinct, _ := w.provider.received()
	require.Equal(t, 9, distinct)
}

// suppress keeps the account from writing to an address.
func (w *world) suppress(address string) {
	w.t.Helper()
	w.tx(func(ctx context.Context, tx *pg.Tx) error {
		return w.store.CreateSuppression(ctx, tx, &messaging.Suppression{
			ID: messaging.NewID(), AccountID: w.account, ChannelType: messaging.TypeEmail, Address: address, Reason: messaging.SuppressedManually,
		})
	})
}

func TestConfigErrorHoldsUntilMended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(300, nil)
	w.provider.set(func(channel.Message) channel.Result {
		return channel.Fail(channel.ClassConfig, "535", "the mail server refused the login")
	})
	id := w.queue()
	w.start()
	require.Eventually(t, func() bool {
		c, err := w.store.Channel(t.Context(), []string{w.account}, w.channel.ID)
		require.NoError(t, err)
		return c.Status == messaging.ChannelError && c.ErrorMessage == "the mail server refused the login"
	}, patience, 10*time.Millisecond)
	g := w.until(id, "all are queued", func(g *messaging.GroupMessage) bool { return g.FanoutDone })
	require.EqualValues(t, 300, g.Pending)
	require.Zero(t, w.count("SELECT count(*) FROM messages WHERE attempts > 0"), "a wrong setting uses no attempt")
	w.provider.set(accepted)
	_, err := w.store.UpdateChannel(t.Context(), []string{w.account}, w.channel.ID, func(c *messaging.Channel) error {
		c.Mend()
		return nil
	})
	require.NoError(t, err)
	require.EqualValues(t, 300, w.final(id).Sent)
}

func TestCancelStopsAndSettles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(2000, nil)
	w.provider.hold = make(chan struct{})
	id := w.queue()
	w.start()
	require.Eventually(t, func() bool { n, _ := w.provider.received(); return n > 0 }, patience, time.Millisecond)
	w.cancel(id)
	close(w.provider.hold)
	g := w.final(id)
	require.Equal(t, messaging.GroupCancelled, g.Status)
	distinct, again := w.provider.received()
	require.Zero(t, again)
	require.EqualValues(t, distinct, g.Sent, "what was called is counted as sent")
	require.LessOrEqual(t, distinct, 128, "no window is called after the cancel")
	require.Equal(t, g.Total, g.Sent+g.Cancelled)
	require.Eventually(t, func() bool {
		return w.count("SELECT count(*) FROM dispatch_chunks")+w.count("SELECT count(*) FROM fanout_jobs") == 0
	}, patience, 10*time.Millisecond)
	w.check()
}

func TestDisabledChannelHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(100, nil)
	w.enable(false)
	id := w.queue()
	w.start()
	w.until(id, "the recipients are written", func(g *messaging.GroupMessage) bool { return g.FanoutDone })
	require.Eventually(t, func() bool { return w.count("SELECT count(*) FROM dispatch_chunks WHERE not_before > now()") == 1 }, patience, time.Millisecond)
	n, _ := w.provider.received()
	require.Zero(t, n)
	w.enable(true)
	require.EqualValues(t, 100, w.final(id).Sent)
}

func TestSuspendedAccountHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(2000, nil)
	w.provider.hold = make(chan struct{})
	id := w.queue()
	w.start()
	require.Eventually(t, func() bool { n, _ := w.provider.received(); return n > 0 }, patience, time.Millisecond)
	w.directory.block(w.account)
	require.Eventually(t, func() bool { return w.count("SELECT count(*) FROM blocked_accounts") == 1 }, patience, 10*time.Millisecond)
	close(w.provider.hold)
	require.Eventually(t, func() bool {
		return w.count("SELECT count(*) FROM dispatch_chunks WHERE state = 'leased'") == 0
	}, patience, 10*time.Millisecond)
	stopped, again := w.provider.received()
	require.Zero(t, again)
	require.LessOrEqual(t, stopped, 128, "no window is called after the suspension")
	w.directory.block()
	g := w.final(id)
	require.EqualValues(t, 2000, g.Sent, "what waited goes on")
	distinct, again := w.provider.received()
	require.Equal(t, 2000, distinct)
	require.Zero(t, again)
	w.check()
}

func TestDeletedChannelFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(100, nil)
	w.enable(false)
	id := w.queue()
	w.start()
	w.until(id, "the recipients are written", func(g *messaging.GroupMessage) bool { return g.FanoutDone })
	require.NoError(t, w.store.DeleteChannel(t.Context(), []string{w.account}, w.channel.ID, true))
	g := w.final(id)
	require.Equal(t, messaging.GroupFailed, g.Status)
	require.Equal(t, 100, w.count("SELECT count(*) FROM messages WHERE error_code = 'channel_deleted' AND failed_at IS NOT NULL"))
}

func TestStopInTheMiddleLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(3000, nil)
	id := w.queue()
	for i := range 3 {
		stop := w.start()
		require.Eventually(t, func() bool { n, _ := w.provider.received(); return n > (i+1)*500 }, patience, time.Millisecond)
		stop()
		w.check()
	}
	w.start()
	w.start() // a second worker shares the work
	g := w.final(id)
	require.EqualValues(t, 3000, g.Sent)
	_, again := w.provider.received()
	require.Zero(t, again)
}

func TestSendsOfSeveralAccountsStayApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(50, nil)
	first := w.queue()
	account := w.account
	w.account = messaging.NewID()
	w.setUpAccount()
	second := w.queue()
	w.start()
	require.EqualValues(t, 50, w.final(second).Sent)
	w.account = account
	require.EqualValues(t, 50, w.final(first).Sent)
	require.Equal(t, 50, w.count("SELECT count(*) FROM messages WHERE account_id = $1", account))
}

func TestTemplateOfARunningSendIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(10, nil)
	w.enable(false)
	id := w.queue()
	w.start()
	w.until(id, "the recipients are written", func(g *messaging.GroupMessage) bool { return g.FanoutDone })
	_, err := w.store.UpdateTemplate(t.Context(), []string{w.account}, w.template.ID, func(tp *messaging.Template) error {
		tp.Body = "changed"
		return tp.Prepare()
	})
	require.NoError(t, err)
	var mu sync.Mutex
	var texts []string
	w.provider.set(func(m channel.Message) channel.Result {
		mu.Lock()
		defer mu.Unlock()
		texts = append(texts, m.Subject+"|"+m.Text)
		return accepted(m)
	})
	w.enable(true)
	w.final(id)
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, texts, 10)
	for _, text := range texts {
		name, _, _ := strings.Cut(strings.TrimPrefix(text, "Hello "), "|")
		require.Equal(t, fmt.Sprintf("Hello %s|Dear %s, Adama.", name, name), text)
	}
}
