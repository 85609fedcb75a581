package postgres

import (
	"context"
	"fmt"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

// counts is how many messages of a send left pending for a final state;
// lifted ones left failed for sent.
type counts struct {
	sent, failed, cancelled, unknown, lifted int32
}

// count adds to a send's counters, after the rows, and closes the send when its
// last recipient has an outcome, which has an event. Group rows are always the last that a
// transaction locks.
func count(ctx context.Context, tx *pg.Tx, accountID, groupID string, c counts) error {
	if groupID == "" {
		return nil
	}
	var closed bool
	g := &messaging.GroupMessage{ID: groupID, AccountID: accountID}
	err := tx.QueryRow(ctx, `
		UPDATE group_messages SET
			pending_count = pending_count - $3 - $4 - $5,
			sent_count = sent_count + $3 + $7,
			failed_count = failed_count + $4 - $7,
			cancelled_count = cancelled_count + $5,
			unknown_count = unknown_count + $6 - $7,
			updated_at = $8,
			status = CASE WHEN fanout_done AND pending_count - $3 - $4 - $5 = 0
				THEN group_message_end(status, sent_count + $3 + $7, failed_count + $4 - $7, error_message) ELSE status END,
			completed_at = CASE WHEN fanout_done AND pending_count - $3 - $4 - $5 = 0 THEN coalesce(completed_at, $8) ELSE completed_at END
		WHERE account_id = $1 AND id = $2
		RETURNING status, channel_id, template_id, completed_at IS NOT NULL AND completed_at = $8`,
		accountID, groupID, c.sent, c.failed, c.cancelled, c.unknown, c.lifted, tx.Now).
		Scan(&g.Status, &g.ChannelID, &g.TemplateID, &closed)
	if err != nil {
		return fmt.Errorf("count outcomes: %w", err)
	}
	if !closed || g.Status == messaging.GroupCancelled { // the cancellation had its event
		return nil
	}
	return groupEvent(ctx, tx, g, "group_message."+g.Status, messaging.GroupProcessing)
}
