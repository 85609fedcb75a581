package postgres

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/services/messaging"
)

// TestNothingIsPutOffAfterItWasLetGo: a worker that found its channel out of order puts its
// chunk off at the moment in which the channel is mended. Whoever comes first, nothing waits
// when both are done.
func TestNothingIsPutOffAfterItWasLetGo(t *testing.T) {
	t.Parallel()
	const rounds, other = 60, "01980000-0000-7000-8000-00000000000f"
	h := newHistory(t, pgtest.New(t, Migrations()...))
	ctx := t.Context()
	account := h.sends[0].AccountID
	id := h.channel[account].ID
	for _, f := range h.open {
		if f.Group.AccountID == account {
			h.written(f, 2, true)
		}
	}
	seen := func(c *Chunk) Seen {
		return Seen{AccountID: account, ChannelID: id, ChunkID: c.ID, SendEpoch: h.channel[account].SendEpoch}
	}
	change := func(c *messaging.Channel) error {
		c.Mend()
		return nil
	}
	broken := "circuit_until = now() + interval '1 minute', status = 'error', circuit_probe = "
	hold := func(c *Chunk) (bool, error) { return h.work.HoldChannel(ctx, c) }
	for name, tc := range map[string]struct {
		state  string
		putOff func(c *Chunk) (bool, error)
		letGo  func(c *Chunk) error
	}{
		"changed": {broken + "NULL", hold, func(*Chunk) error {
			_, err := h.api.UpdateChannel(ctx, []string{account}, id, change)
			return err
		}},
		"mended": {broken + "'" + other + "'", hold, func(c *Chunk) error {
			s := seen(c)
			s.ChunkID = other
			return h.work.MendChannel(ctx, s)
		}},
		"no longer tried": {broken + "'" + other + "'", hold, func(c *Chunk) error {
			s := seen(c)
			s.ChunkID = other
			return h.work.LeaveProbe(ctx, s)
		}},
		"another rate": {"circuit_until = NULL, status = 'connected', circuit_probe = NULL", func(c *Chunk) (bool, error) {
			return h.work.PutOff(ctx, c, h.channel[account].SendEpoch, time.Minute)
		}, func(*Chunk) error {
			_, err := h.api.UpdateChannel(ctx, []string{account}, id, change)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			before := 0
			for range rounds {
				h.exec("UPDATE channels SET " + tc.state + " WHERE id = '" + id + "'")
				h.channel[account] = h.rereadChannel(account)
				var c *Chunk
				require.Eventually(t, func() bool { // who saw the lock a moment before waits for that moment
					var err error
					c, err = h.work.ClaimChunk(ctx, LaneBulk, []string{messaging.TypeEmail}, Skip{}, time.Hour)
					return err == nil && c != nil
				}, time.Minute, time.Millisecond)
				var both sync.WaitGroup
				var heldErr, letErr error
				both.Go(func() {
					held, err := tc.putOff(c)
					if held {
						before++
					}
					if heldErr = err; err == nil {
						heldErr = h.work.EndChunk(ctx, c, nil, Rest{Held: held})
					}
				})
				both.Go(func() { letErr = tc.letGo(c) })
				both.Wait()
				require.NoError(t, heldErr)
				require.NoError(t, letErr)
				var late int
				require.NoError(t, h.admin.QueryRow(ctx, "SELECT count(*) FROM dispatch_chunks WHERE channel_id = $1 AND not_before > now() + interval '1 second'", id).Scan(&late))
				require.Zero(t, late, "chunks that wait for what is done")
			}
			t.Logf("put off before it was let go in %d of %d rounds", before, rounds)
		})
	}
}

func (h *history) rereadChannel(account string) *messaging.Channel {
	h.t.Helper()
	c, err := h.api.Channel(h.t.Context(), []string{account}, h.channel[account].ID)
	require.NoError(h.t, err)
	return c
}

// TestCancelledSendsAreNotPutOff: what is cancelled does not wait for a channel that rests,
// neither its chunks nor the next attempts of its messages.
func TestCancelledSendsAreNotPutOff(t *testing.T) {
	t.Parallel()
	h := newHistory(t, pgtest.New(t, Migrations()...))
	ctx := t.Context()
	account := h.sends[0].AccountID
	for _, f := range h.open {
		if f.Group.AccountID == account {
			h.written(f, 2, true)
		}
	}
	c, err := h.work.ClaimChunk(ctx, LaneBulk, []string{messaging.TypeEmail}, Skip{}, time.Hour)
	require.NoError(t, err)
	other, err := h.work.ClaimChunk(ctx, LaneBulk, []string{messaging.TypeEmail}, Skip{}, time.Hour)
	require.NoError(t, err)
	require.NotEqual(t, c.GroupMessageID, other.GroupMessageID)
	require.NoError(t, h.work.EndChunk(ctx, other, nil, Rest{}))
	cancel := func(id string) {
		require.NoError(t, h.api.DB().InTx(ctx, []string{account}, func(tx *pg.Tx) error {
			_, err := h.api.CancelGroupMessage(ctx, tx, []string{account}, id)
			return err
		}))
	}
	cancel(other.GroupMessageID)
	h.exec("UPDATE channels SET circuit_until = now() + interval '1 minute', status = 'error' WHERE id = '" + c.ChannelID + "'")
	held, err := h.work.HoldChannel(ctx, c)
	require.NoError(t, err)
	require.True(t, held)
	late := func(table, column, of string) (n int) {
		require.NoError(t, h.admin.QueryRow(ctx, "SELECT count(*) FROM "+table+" WHERE group_message_id = $1 AND "+column+" > now()", of).Scan(&n))
		return n
	}
	require.Zero(t, late("dispatch_chunks", "not_before", other.GroupMessageID))
	require.Positive(t, late("dispatch_chunks", "not_before", c.GroupMessageID))

	cancel(c.GroupMessageID)
	c.CallingUpto = 1
	failed := []messaging.Outcome{{MessageID: c.MessageIDs[0], Status: messaging.MessageFailed, Attempt: "failed", Class: "transient", RetryIn: time.Hour}}
	require.NoError(t, h.work.EndChunk(ctx, c, failed, Rest{}))
	due := 0
	require.NoError(t, h.admin.QueryRow(ctx, "SELECT count(*) FROM message_due WHERE group_message_id = $1", c.GroupMessageID).Scan(&due))
	require.Equal(t, 1, due)
	require.Zero(t, late("message_due", "due_at", c.GroupMessageID))
}
