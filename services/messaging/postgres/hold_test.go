package postgres

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/services/messaging"
)

// addressees makes so many recipients.
func addressees(n int) []messaging.Addressee {
	list := make([]messaging.Addressee, n)
	for i := range list {
		contact := messaging.NewID()
		list[i] = messaging.Addressee{ContactID: contact, Address: contact + "@example.org"}
	}
	return list
}

// written writes recipients of a send; whole says that these were the last.
func (h *history) written(f *Fanout, n int, whole bool) {
	h.t.Helper()
	_, err := h.work.WriteFanout(h.t.Context(), f, FanoutBatch{Cursor: messaging.NewID(), Messages: addressees(n)}, 0)
	require.NoError(h.t, err)
	if whole {
		require.NoError(h.t, h.work.FinishFanout(h.t.Context(), f))
	}
}

// ended is the state of a send and how many of its messages have which state.
func (h *history) ended(f *Fanout) (status string, unknown, pending, total int) {
	h.t.Helper()
	require.NoError(h.t, h.admin.QueryRow(h.t.Context(), "SELECT status, unknown_count, pending_count, total_recipients FROM group_messages WHERE id = $1", f.Group.ID).
		Scan(&status, &unknown, &pending, &total))
	return status, unknown, pending, total
}

// TestHold: while something is held, no statement lets a message leave, not one whose
// chunk was claimed before.
func TestHold(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.New(t, Migrations()...))
	ctx := t.Context()
	h.written(h.open[0], 2, true)
	h.written(h.open[1], 2, true)
	claim := func() *Chunk {
		c, err := h.work.ClaimChunk(ctx, LaneBulk, []string{messaging.TypeEmail}, Skip{}, time.Hour)
		require.NoError(t, err)
		return c
	}
	before := claim()
	require.NotNil(t, before)

	first, err := h.work.Hold(ctx, "first")
	require.NoError(t, err)
	again, err := h.work.Hold(ctx, "second")
	require.NoError(t, err)
	require.Equal(t, first, again, "a hold stays as it is")
	anew, err := h.work.HoldAnew(ctx, "third")
	require.NoError(t, err)
	require.True(t, anew.HeldAt.After(first.HeldAt), "one of a backup is of another day")
	require.Nil(t, claim())
	g, err := h.work.PassGate(ctx, before, 1, h.channel[before.AccountID].SendEpoch, time.Hour, nil, nil)
	require.NoError(t, err)
	require.False(t, g.Open)
	w, err := h.work.ChunkWork(ctx, before)
	require.NoError(t, err)
	require.True(t, w.Blocked)
	h.exec("UPDATE fanout_jobs SET lease_until = NULL")
	job, err := h.work.ClaimFanout(ctx, time.Hour)
	require.NoError(t, err)
	require.Nil(t, job)

	require.NoError(t, h.work.Release(ctx))
	held, err := h.work.Held(ctx)
	require.NoError(t, err)
	require.Nil(t, held)
	require.NotNil(t, claim())
	g, err = h.work.PassGate(ctx, before, 1, h.channel[before.AccountID].SendEpoch, time.Hour, nil, nil)
	require.NoError(t, err)
	require.True(t, g.Open)
}

// TestGiveUp: a release with the time of a backup gives up all that waited then, in a
// chunk, for a retry or to be written at all, and nothing that came later.
func TestGiveUp(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.New(t, Migrations()...))
	ctx := t.Context()
	h.exec(watchCounters)
	whole, part, later := h.open[0], h.open[1], h.open[2:]
	h.written(whole, 3, true)
	h.written(part, 2, false)
	_, err := h.work.BeginGivingUp(ctx, clock.System().Now())
	require.ErrorIs(t, err, errNotHeld)

	// One of the first send waits for its next attempt.
	c, err := h.work.ClaimChunk(ctx, LaneBulk, []string{messaging.TypeEmail}, Skip{}, time.Hour)
	require.NoError(t, err)
	g, err := h.work.PassGate(ctx, c, 1, h.channel[c.AccountID].SendEpoch, time.Hour, nil, nil)
	require.NoError(t, err)
	require.True(t, g.Open)
	retry := messaging.Outcome{MessageID: c.MessageIDs[0], Status: messaging.MessageFailed, Attempt: "failed", RetryIn: time.Hour}
	require.NoError(t, h.work.EndChunk(ctx, c, []messaging.Outcome{retry}, Rest{}))

	// The sends that are left in the queue were queued after the backup.
	_, err = h.work.Hold(ctx, "restore")
	require.NoError(t, err)
	var since time.Time
	require.NoError(t, h.admin.QueryRow(ctx, "SELECT date_trunc('milliseconds', clock_timestamp()) + interval '1 millisecond'").Scan(&since))
	ids := make([]string, len(later))
	for i, f := range later {
		ids[i] = f.Group.ID
	}
	_, err = h.admin.Exec(ctx, "UPDATE fanout_jobs SET created_at = $1::timestamptz + interval '1 minute' WHERE group_message_id = ANY ($2::uuid[])", since, ids)
	require.NoError(t, err)
	hold, err := h.work.BeginGivingUp(ctx, since)
	require.NoError(t, err)
	require.True(t, hold.Since.Equal(since))
	resumed, err := h.work.BeginGivingUp(ctx, since.Add(-time.Hour))
	require.NoError(t, err)
	require.True(t, resumed.Since.Equal(since), "a release that was interrupted keeps its time")
	anew, err := h.work.HoldAnew(ctx, "a worker starts in the middle")
	require.NoError(t, err)
	require.Equal(t, hold, anew)

	would, err := h.work.Waiting(ctx, since)
	require.NoError(t, err)
	require.Equal(t, Waiting{GivenUp: 5, Sends: 1}, would)
	n, err := h.work.GiveUp(ctx)
	require.NoError(t, err)
	require.Equal(t, 5, n)
	left, err := h.work.Left(ctx)
	require.NoError(t, err)
	require.Equal(t, Left{Sends: 1}, left)
	status, unknown, pending, total := h.ended(whole)
	require.Equal(t, []any{messaging.GroupFailed, 3, 0, 3}, []any{status, unknown, pending, total})

	h.written(part, 2, true)
	n, err = h.work.GiveUp(ctx)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	status, unknown, pending, total = h.ended(part)
	require.Equal(t, []any{messaging.GroupFailed, 4, 0, 4}, []any{status, unknown, pending, total})
	left, err = h.work.Left(ctx)
	require.NoError(t, err)
	require.Zero(t, left)

	require.NoError(t, h.work.Release(ctx))
	problems, err := CheckLedger(ctx, h.admin)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// TestGiveUpPart: of a chunk of retries, only what waited at the time is given up.
func TestGiveUpPart(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.New(t, Migrations()...))
	ctx, f := t.Context(), h.open[0]
	h.written(f, 4, true)
	h.exec("DELETE FROM fanout_jobs")
	_, err := h.work.Hold(ctx, "restore")
	require.NoError(t, err)
	// A chunk that also holds later messages, as one of retries may.
	_, err = h.admin.Exec(ctx, "UPDATE dispatch_chunks SET last_created_at = first_created_at + interval '1 hour' WHERE group_message_id = $1", f.Group.ID)
	require.NoError(t, err)
	_, err = h.work.BeginGivingUp(ctx, f.Group.StartedAt.Add(time.Minute))
	require.NoError(t, err)
	n, err := h.work.GiveUp(ctx)
	require.NoError(t, err)
	require.Equal(t, 4, n)
	left, err := h.work.Left(ctx)
	require.NoError(t, err)
	require.Zero(t, left, "what is left in the chunk came later")
	c, err := h.work.ClaimChunk(ctx, LaneBulk, []string{messaging.TypeEmail}, Skip{}, time.Hour)
	require.NoError(t, err)
	require.Nil(t, c, "still held")
}
