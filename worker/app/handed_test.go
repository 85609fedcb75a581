package app_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
	"github.com/turumba/turumba/worker/app"
)

const (
	leasedChunks = "SELECT count(*) FROM dispatch_chunks WHERE state = 'leased'"
	readyChunks  = "SELECT count(*) FROM dispatch_chunks WHERE state = 'ready'"
	chunkEvents  = "SELECT count(*) FROM outbox_events WHERE event_type LIKE 'message.dispatch.%'"
)

// TestChunksGoOnInMemory holds the provider, so that chunks pile up: they are all in
// work in this process. After its stop they are ready for anybody, at once.
func TestChunksGoOnInMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(3000, nil)
	w.provider.hold = make(chan struct{})
	answer := sync.OnceFunc(func() { close(w.provider.hold) })
	id := w.queue()
	stop := w.start()
	t.Cleanup(answer) // or nothing ends where something else fails
	w.until(id, "the recipients are written", func(g *messaging.GroupMessage) bool { return g.FanoutDone })
	// Where the fan-out took long, those that waited for 500 ms were given back (ADR 0045).
	require.Equal(t, 6, w.count("SELECT count(*) FROM dispatch_chunks"))
	require.GreaterOrEqual(t, w.count(leasedChunks), 2)
	require.LessOrEqual(t, w.count("SELECT ("+leasedChunks+") + ("+chunkEvents+")"), 6, "nobody needs to know of those in memory")
	require.Eventually(t, func() bool { return w.count("SELECT count(*) FROM dispatch_chunks WHERE calling_upto > 0") >= 1 }, patience, time.Millisecond)

	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	require.Eventually(t, func() bool { return w.count(readyChunks) >= 4 }, patience, time.Millisecond, "those that wait are let go, and what is not called of the others")
	answer()
	<-stopped
	require.Zero(t, w.count(leasedChunks))
	w.check()

	w.start()
	g := w.final(id)
	require.EqualValues(t, 3000, g.Sent)
	distinct, again := w.provider.received()
	require.Equal(t, 3000, distinct)
	require.Zero(t, again)
}

// TestChunksWaitBehindOthers writes a send while chunks of another account are ready
// in the lane: its chunks are ready too and take their turns.
func TestChunksWaitBehindOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fannedOut(1000)
	w.account = messaging.NewID()
	w.setUpAccount()
	id := w.queue()
	born := func() []*postgres.Handed {
		job, err := w.work.ClaimFanout(t.Context(), time.Minute)
		require.NoError(t, err)
		f, err := w.work.StartFanout(t.Context(), *job, time.Minute)
		require.NoError(t, err)
		h, err := w.work.WriteFanout(t.Context(), f, postgres.FanoutBatch{
			Cursor: messaging.NewID(), Messages: []messaging.Addressee{{ContactID: messaging.NewID(), Address: "a@example.org"}},
		}, time.Minute)
		require.NoError(t, err)
		require.NoError(t, w.work.FinishFanout(t.Context(), f))
		return h
	}
	require.Empty(t, born(), "others are ready")
	require.Equal(t, 3, w.count(readyChunks))
	w.exec("UPDATE dispatch_chunks SET not_before = now() + interval '1 hour' WHERE account_id <> $1", w.account)
	w.start(app.RoleDispatch, app.RoleRelay, app.RoleUpkeep) // the fan-out is this test
	require.EqualValues(t, 1, w.final(id).Sent)

	id = w.queue()
	list := born()
	require.Len(t, list, 1)
	h := list[0]
	require.NotNil(t, h, "nobody waits")
	require.Len(t, h.Messages, 1)
	require.EqualValues(t, 1, h.Epoch)
	require.NoError(t, w.work.EndChunk(t.Context(), h.Chunk, nil, postgres.Rest{}))
	require.EqualValues(t, 1, w.final(id).Sent)
}
