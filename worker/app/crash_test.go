package app_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
	"github.com/turumba/turumba/worker/app"
)

func listOne(groupID string) query.Request {
	return query.Request{Filters: []string{"group_message_id:eq:" + groupID}, Sorts: []string{"created_at:asc"}, Limit: 1}
}

func (w *world) cancel(id string) {
	w.t.Helper()
	w.tx(func(ctx context.Context, tx *pg.Tx) error {
		_, err := w.store.CancelGroupMessage(ctx, tx, []string{w.account}, id)
		return err
	})
}

func (w *world) enable(on bool) {
	w.t.Helper()
	c, err := w.store.UpdateChannel(w.t.Context(), []string{w.account}, w.channel.ID, func(c *messaging.Channel) error {
		c.IsEnabled = on
		return nil
	})
	require.NoError(w.t, err)
	w.channel = c
}

// fannedOut returns a send whose recipients are written and not sent.
func (w *world) fannedOut(n int) string {
	w.t.Helper()
	w.people(n, nil)
	id := w.queue()
	stop := w.start(app.RoleFanout)
	w.until(id, "the recipients are written", func(g *messaging.GroupMessage) bool { return g.FanoutDone })
	stop()
	return id
}

func (w *world) claim() *postgres.Chunk {
	w.t.Helper()
	c, err := w.work.ClaimChunk(w.t.Context(), postgres.LaneBulk, []string{messaging.TypeEmail}, postgres.Skip{}, time.Minute)
	require.NoError(w.t, err)
	require.NotNil(w.t, c)
	return c
}

func (w *world) pass(c *postgres.Chunk, upto int, outcomes []messaging.Outcome) bool {
	w.t.Helper()
	g, err := w.work.PassGate(w.t.Context(), c, upto, w.channel.SendEpoch, time.Minute, nil, outcomes)
	require.NoError(w.t, err)
	return g.Open
}

// sent are the outcomes of a chunk's first n messages.
func sent(c *postgres.Chunk, n int) []messaging.Outcome {
	out := make([]messaging.Outcome, n)
	for i := range out {
		out[i] = messaging.Outcome{MessageID: c.MessageIDs[i], Ordinal: i, Status: messaging.MessageSent, ProviderID: "of " + c.MessageIDs[i], Attempt: "accepted", Class: "ok"}
	}
	return out
}

// TestLateEnd plays a worker that comes back with its last window when the chunk is given
// up and gone, and the send over.
func TestLateEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fannedOut(100)
	slow := w.claim()
	require.True(t, w.pass(slow, 100, nil))
	w.exec("UPDATE dispatch_chunks SET lease_until = now() - interval '1 second'")
	w.start()
	require.EqualValues(t, 100, w.final(id).Unknown)
	for range 2 {
		require.NoError(t, w.work.EndChunk(t.Context(), slow, sent(slow, 100), postgres.Rest{}))
		g := w.group(id)
		require.EqualValues(t, 100, g.Sent)
		require.Zero(t, g.Failed+g.Unknown)
		w.check()
	}
}

// TestDeadWorker plays a worker that dies between the gate and the outcomes.
func TestDeadWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fannedOut(300)
	dead := w.claim()
	require.True(t, w.pass(dead, 64, nil))
	require.True(t, w.pass(dead, 128, sent(dead, 64)))
	require.EqualValues(t, 64, w.group(id).Sent)
	require.Equal(t, 64, w.countStatus("sending"), "what is called and has no outcome is shown as sending")
	w.check()
	w.exec("UPDATE dispatch_chunks SET lease_until = now() - interval '1 second'")
	w.start()
	g := w.final(id)
	require.EqualValues(t, 64, g.Unknown)
	require.EqualValues(t, 64, g.Failed)
	require.EqualValues(t, 236, g.Sent)
	require.Equal(t, messaging.GroupPartiallyFailed, g.Status)

	// It was not dead: its outcomes lift what was given up, and its gate is shut.
	late := sent(dead, 128)[64:]
	require.False(t, w.pass(dead, 192, late))
	g = w.group(id)
	require.EqualValues(t, 300, g.Sent)
	require.Zero(t, g.Failed+g.Unknown)
	require.Equal(t, messaging.GroupCompleted, g.Status)
	require.Equal(t, 64, w.count("SELECT count(*) FROM message_attempts WHERE outcome = 'reversal'"))
	require.Equal(t, 128, w.count("SELECT count(*) FROM messages WHERE provider_message_id = 'of ' || id"), "each has the name that its provider gave it")
	w.check()
	require.NoError(t, w.work.EndChunk(t.Context(), dead, late, postgres.Rest{}))
	w.check()
}

func (w *world) countStatus(status string) int {
	w.t.Helper()
	page, err := w.store.Messages(w.t.Context(), []string{w.account}, query.Request{
		Filters: []string{"status:eq:" + status, "created_at:ge:" + clock.System().Now().Add(-24*time.Hour).UTC().Format(time.RFC3339), "created_at:le:" + clock.System().Now().Add(24*time.Hour).UTC().Format(time.RFC3339)},
		Limit:   1000,
	})
	require.NoError(w.t, err)
	return len(page.Data)
}

func TestUnknownIsSentAgainWhereTheChannelSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.store.UpdateChannel(t.Context(), []string{w.account}, w.channel.ID, func(c *messaging.Channel) error {
		c.OnUnknown = messaging.UnknownResend
		w.channel = c
		return nil
	})
	require.NoError(t, err)
	id := w.fannedOut(100)
	dead := w.claim()
	require.True(t, w.pass(dead, 64, nil))
	w.exec("UPDATE dispatch_chunks SET lease_until = now() - interval '1 second'")
	w.start()
	g := w.final(id)
	require.EqualValues(t, 100, g.Sent)
	require.Equal(t, 64, w.count("SELECT count(*) FROM message_attempts WHERE outcome = 'unknown'"))
}

// TestGateWithoutAnswer plays a worker whose connection is cut when the gate has committed:
// it calls nobody, and nothing of the chunk counts as called.
func TestGateWithoutAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fannedOut(100)
	c := w.claim()
	require.True(t, w.pass(c, 100, nil))
	c.CallingUpto = 0
	require.NoError(t, w.work.EndChunk(t.Context(), c, nil, postgres.Rest{}))
	w.start()
	g := w.final(id)
	require.EqualValues(t, 100, g.Sent)
	require.Zero(t, g.Unknown)
	w.check()
}

func TestGateStaysShut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fannedOut(100)
	c := w.claim()
	epoch := w.channel.SendEpoch
	w.enable(false)
	require.False(t, w.pass(c, 64, nil), "a channel that is switched off")
	w.enable(true)
	g, err := w.work.PassGate(t.Context(), c, 64, epoch, time.Minute, nil, nil)
	require.NoError(t, err)
	require.False(t, g.Open, "a channel that was changed since it was read")
	require.NoError(t, w.work.PauseChannel(t.Context(), postgres.Seen{AccountID: w.account, ChannelID: w.channel.ID}, clock.System().Now().Add(time.Hour), 0))
	require.False(t, w.pass(c, 64, nil), "a channel that is paused")
	w.exec("UPDATE channels SET paused_until = NULL")
	require.True(t, w.pass(c, 64, nil))
	w.cancel(id)
	require.False(t, w.pass(c, 100, sent(c, 64)), "a send that was cancelled")
	require.EqualValues(t, 64, w.group(id).Sent, "its outcomes are stored nevertheless")
	require.NoError(t, w.work.EndChunk(t.Context(), c, nil, postgres.Rest{Status: messaging.MessageCancelled}))
	require.EqualValues(t, 36, w.group(id).Cancelled)
	w.check()
}

func TestAccountsTakeTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	big := w.account
	w.fannedOut(2000) // four chunks, queued first
	w.account = messaging.NewID()
	w.setUpAccount()
	w.directory.recipients = w.directory.recipients[:1000]
	w.queue()
	stop := w.start(app.RoleFanout)
	require.Eventually(t, func() bool { return w.count("SELECT count(*) FROM dispatch_chunks") == 6 }, patience, time.Millisecond)
	stop()
	var order []bool
	for range 6 {
		order = append(order, w.claim().AccountID == big)
	}
	require.False(t, order[1] && order[2], "the small account does not wait for the big one: %v", order)
	require.Equal(t, []bool{true, true}, order[4:], "and the big one has the rest: %v", order)
}

func TestRateIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reserve := func(key, lane string, rate int32) (int, time.Duration) {
		n, wait, err := w.work.Reserve(t.Context(), key, lane, rate, 500)
		require.NoError(t, err)
		return n, wait
	}
	n, wait := reserve("busy", postgres.LaneBulk, 6000) // 100 a second
	require.Equal(t, 22, n, "a window of 250 ms at 90 %")
	require.Zero(t, wait)
	n, _ = reserve("busy", postgres.LaneBulk, 6000)
	require.Equal(t, 22, n, "the next window may be reserved ahead")
	n, wait = reserve("busy", postgres.LaneBulk, 6000)
	require.Zero(t, n)
	require.Positive(t, wait)
	require.LessOrEqual(t, wait, 250*time.Millisecond)
	n, _ = reserve("busy", postgres.LaneTransactional, 6000)
	require.Equal(t, 1, n, "a send keeps no single message waiting")

	n, _ = reserve("slow", postgres.LaneTransactional, 20)
	require.Equal(t, 1, n)
	n, wait = reserve("slow", postgres.LaneTransactional, 20)
	require.Zero(t, n)
	require.Greater(t, wait, 2*time.Second)

	for _, lane := range []string{postgres.LaneTransactional, postgres.LaneBulk} { // the rate is raised
		n, _ = reserve("raised"+lane, lane, 1)
		require.Equal(t, 1, n)
		_, wait = reserve("raised"+lane, lane, 1)
		require.Greater(t, wait, 50*time.Second)
		n, _ = reserve("raised"+lane, lane, 6000)
		require.Positive(t, n, lane)
	}
}

// TestSinglesPassALimitedSend: a send never leaves a moment in which its channel is idle.
func TestSinglesPassALimitedSend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.store.UpdateChannel(t.Context(), []string{w.account}, w.channel.ID, func(c *messaging.Channel) error {
		limit := int32(600)
		c.RateLimit = &limit
		return nil
	})
	require.NoError(t, err)
	w.people(500, nil)
	id := w.queue()
	w.start()
	w.until(id, "some are sent", func(g *messaging.GroupMessage) bool { return g.Sent > 0 })
	code := w.single("code@example.org")
	w.create(code)
	w.becomes(code, messaging.MessageSent)
	require.Positive(t, w.group(id).Pending, "the send is still running")
	w.cancel(id)
	w.final(id)
}

func TestLimitedChannelSendsAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.store.UpdateChannel(t.Context(), []string{w.account}, w.channel.ID, func(c *messaging.Channel) error {
		limit := int32(6000)
		c.RateLimit = &limit
		return nil
	})
	require.NoError(t, err)
	w.people(100, nil)
	id := w.queue()
	w.start()
	g := w.final(id)
	require.EqualValues(t, 100, g.Sent)
	require.Greater(t, g.CompletedAt.Sub(*g.StartedAt), 500*time.Millisecond, "100 messages at 90 a second")
}

func TestGraphsAreTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, from := range append([]string{""}, messaging.MessageStatuses()...) {
		for _, to := range messaging.MessageStatuses() {
			var allowed bool
			require.NoError(t, w.admin.QueryRow(t.Context(), "SELECT message_status_allowed($1, $2)", from, to).Scan(&allowed))
			require.Equal(t, messaging.MayBecome(from, to), allowed, "%q to %q", from, to)
		}
	}
}
