package app_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/worker/app"
)

// queueTo makes a send to addresses, and to contacts without every third, that starts
// at once.
func (w *world) queueTo(to []messaging.Recipient, groups ...string) string {
	w.t.Helper()
	w.directory.excluded = uuid.NewString()
	g := &messaging.GroupMessage{
		ID: messaging.NewID(), AccountID: w.account, ChannelID: w.channel.ID, TemplateID: w.template.ID, Status: messaging.GroupQueued,
		ContactGroupIDs: groups, ExcludeContactGroupIDs: []string{w.directory.excluded}, CustomValues: map[string]string{"CITY": "Jimma"},
	}
	w.tx(func(ctx context.Context, tx *pg.Tx) error {
		return w.store.CreateGroupMessage(ctx, tx, g, to, messaging.Allowance{})
	})
	return g.ID
}

// addresses are n recipients: the first is no address, the second takes that of the
// fourth, the third that of the second contact.
func addresses(n int) []messaging.Recipient {
	to := make([]messaging.Recipient, n)
	for i := range to {
		to[i] = messaging.Recipient{Given: fmt.Sprintf("a%d@example.org", i), Name: fmt.Sprintf("A%d Last", i)}
	}
	to[0].Given, to[1].Given = "nowhere", "A3@example.org"
	to[2].Given, to[2].Values = "P1@example.org", map[string]string{"CITY": "Adama"}
	return to
}

func (w *world) skipped(reason string) int {
	w.t.Helper()
	return w.count("SELECT count(*) FROM group_message_skips WHERE reason = $1", reason)
}

func TestAddressesAndContacts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(1200, nil)
	id := w.queueTo(addresses(1100), uuid.NewString())
	w.start()
	g := w.final(id)
	require.Equal(t, messaging.GroupCompleted, g.Status)
	require.Equal(t, 1, w.skipped(messaging.SkipInvalidAddress))
	require.Equal(t, 2, w.skipped(messaging.SkipDuplicateAddress))
	require.Equal(t, 400, w.skipped(messaging.SkipExcluded))
	require.EqualValues(t, 403, g.Skipped)
	require.EqualValues(t, 2300-403, g.Sent)
	_, again := w.provider.received()
	require.Zero(t, again)
	require.Equal(t, 1098, w.count("SELECT count(*) FROM messages WHERE contact_id IS NULL"))
	require.Equal(t, 1, w.count("SELECT count(*) FROM messages WHERE delivery_address = 'P1@example.org' AND vars->>'CITY' = 'Adama'"), "the address wins, with its values")
	require.Equal(t, 1, w.count("SELECT count(*) FROM messages WHERE delivery_address = 'a500@example.org' AND vars->>'CITY' = 'Jimma' AND vars->>'FIRST_NAME' = 'A500'"))
	require.Equal(t, 1, w.count("SELECT count(*) FROM group_message_skips WHERE contact_id IS NULL AND delivery_address = 'nowhere'"))
}

// TestFanoutGoesOnAmongAddresses ends a worker at every stretch of its way: what is
// written stays, and the next one begins behind it.
func TestFanoutGoesOnAmongAddresses(t *testing.T) {
	t.Parallel()
	for _, at := range []int{1000, 1098, 1598, 1700} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.people(1200, nil)
			id := w.queueTo(addresses(1100), uuid.NewString())
			// The transaction that writes beyond is refused, as by a worker that died in it.
			w.exec(fmt.Sprintf(`ALTER TABLE group_messages ADD CONSTRAINT dead CHECK (total_recipients <= %d)`, at))
			stop := w.start(app.RoleFanout)
			w.until(id, "it stands still", func(g *messaging.GroupMessage) bool {
				return w.count("SELECT count(*) FROM fanout_jobs WHERE epoch > 0 AND lease_until IS NULL") == 1
			})
			stop()
			written := w.count("SELECT count(*) FROM messages")
			require.Positive(t, written)
			w.exec("ALTER TABLE group_messages DROP CONSTRAINT dead")
			w.exec("UPDATE fanout_jobs SET not_before = now()")
			w.start()
			g := w.final(id)
			require.EqualValues(t, 2300-403, g.Sent)
			require.EqualValues(t, 403, g.Skipped)
			distinct, again := w.provider.received()
			require.Equal(t, 2300-403, distinct)
			require.Zero(t, again)
		})
	}
}
