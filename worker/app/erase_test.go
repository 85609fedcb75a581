package app_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

// TestWorkersErase: two workers erase what an account keeps no longer, and what somebody
// asked for; nothing of an account that keeps it for ever.
func TestWorkersErase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old, fresh, asked := w.past(w.account, "old@example.org", 3), w.past(w.account, "fresh@example.org", 1), w.past(w.account, "asked@example.org", 0)
	forEver := w.past(messaging.NewID(), "old@example.org", 3)
	w.directory.keep(map[string]int32{w.account: 2})
	for range 2 {
		w.start()
	}
	e := &messaging.Erasure{ID: messaging.NewID(), AccountID: w.account, Address: "Asked@example.org"}
	w.tx(func(ctx context.Context, tx *pg.Tx) error { return w.store.CreateErasure(ctx, tx, e) })
	require.Eventually(t, func() bool {
		stored, err := w.store.Erasure(t.Context(), []string{w.account}, e.ID)
		require.NoError(t, err)
		return stored.Status == messaging.ErasureCompleted && stored.Erased == 1
	}, patience, 20*time.Millisecond)
	erased := "SELECT count(*) FROM messages WHERE id = $1 AND body_erased_at IS NOT NULL AND message_body IS NULL"
	require.Eventually(t, func() bool { return w.count(erased, old) == 1 }, patience, 20*time.Millisecond)
	require.Equal(t, 1, w.count(erased, asked))
	require.Zero(t, w.count(erased, fresh))
	require.Zero(t, w.count(erased, forEver))
	w.check()
}

// past makes a message of an account that was sent days ago.
func (w *world) past(account, to string, days int) string {
	w.t.Helper()
	at := clock.System().Now().Add(-time.Duration(days) * 24 * time.Hour).Truncate(time.Millisecond)
	id := messaging.IDsAt(at, 0, 1)[0]
	w.exec(`INSERT INTO messages (id, account_id, channel_id, status, delivery_address, message_body, sent_at, created_at, updated_at)
		VALUES ($1, $2, NULL, 'sent', $3, 'x', $4, $4, $4)`, id, account, to, at)
	return id
}
