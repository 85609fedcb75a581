package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

// SendRef names a send.
type SendRef struct {
	ID        string `json:"id"`
	AccountID string `json:"account_id"`
}

// SendCounters are the counters of a send.
type SendCounters struct {
	Total     int32 `json:"total"`
	Pending   int32 `json:"pending"`
	Sent      int32 `json:"sent"`
	Failed    int32 `json:"failed"`
	Cancelled int32 `json:"cancelled"`
	Unknown   int32 `json:"unknown"`
	Skipped   int32 `json:"skipped"`
	Delivered int32 `json:"delivered"`
}

// minus is how far c is from other.
func (c SendCounters) minus(other SendCounters) SendCounters {
	return SendCounters{
		Total: c.Total - other.Total, Pending: c.Pending - other.Pending, Sent: c.Sent - other.Sent, Failed: c.Failed - other.Failed,
		Cancelled: c.Cancelled - other.Cancelled, Unknown: c.Unknown - other.Unknown, Skipped: c.Skipped - other.Skipped, Delivered: c.Delivered - other.Delivered,
	}
}

// Recounted is what a recount found about a send.
type Recounted struct {
	SendRef
	// Counted are the counters as they stood, Rows what the rows said at that moment.
	Counted SendCounters `json:"counted"`
	Rows    SendCounters `json:"rows"`
	// Repaired says that the counters were put right.
	Repaired bool `json:"repaired"`
}

// Differs reports whether the counters were wrong.
func (r *Recounted) Differs() bool { return r.Counted != r.Rows }

// SendsAfter returns started sends in the order of their ids, those after one: of the
// account, or of all where it is empty.
func (s *Store) SendsAfter(ctx context.Context, accountID, after string, limit int) ([]SendRef, error) {
	collect := func(rows pgx.Rows) ([]SendRef, error) { return pgx.CollectRows(rows, pgx.RowToStructByName[SendRef]) }
	if accountID == "" {
		return pg.Read(ctx, s.db, nil, collect, "SELECT id, account_id FROM lookup.sends_after($1, $2)", after, limit)
	}
	return pg.Read(ctx, s.db, []string{accountID}, collect,
		"SELECT id, account_id FROM group_messages WHERE account_id = $1 AND id > $2 AND started_at IS NOT NULL ORDER BY id LIMIT $3", accountID, after, limit)
}

// measureSend reads counters and rows in one statement, hence in one snapshot: they
// are equal in it unless something is wrong, whatever else is being committed. A
// send whose month of messages is not kept any more has nothing to be measured by.
const measureSend = `
	SELECT g.total_recipients, g.pending_count, g.sent_count, g.failed_count, g.cancelled_count, g.unknown_count, g.skipped_count, g.delivered_count,
		r.total, r.pending, r.sent, r.failed, r.cancelled, r.unknown,
		(SELECT count(*) FROM group_message_skips s WHERE s.account_id = g.account_id AND s.group_message_id = g.id), r.delivered
	FROM group_messages g CROSS JOIN LATERAL (
		SELECT count(*) AS total,
			count(*) FILTER (WHERE m.status IN ('scheduled', 'queued', 'sending', 'failed')) AS pending,
			count(*) FILTER (WHERE m.status IN ('sent', 'delivered')) AS sent,
			count(*) FILTER (WHERE m.status = 'permanently_failed') AS failed,
			count(*) FILTER (WHERE m.status = 'cancelled') AS cancelled,
			count(*) FILTER (WHERE m.status = 'permanently_failed' AND m.error_code = 'outcome_unknown') AS unknown,
			count(*) FILTER (WHERE m.status = 'delivered') AS delivered
		FROM messages m WHERE m.account_id = g.account_id AND m.group_message_id = g.id AND m.created_at = g.started_at) AS r
	WHERE g.account_id = $1 AND g.id = $2 AND to_regclass('messages_' || to_char(g.started_at AT TIME ZONE 'UTC', 'YYYYMM')) IS NOT NULL`

// Recount compares the counters of a send with its rows and, unless it is a dry run,
// puts them right; nil where there is no such send. Traffic goes on meanwhile: rows
// are counted without a lock, and what is written is the difference, which stays the
// same however many outcomes are stored in between. Only another recount of the send
// must wait. The send's row is locked for the time of its update.
func (s *Store) Recount(ctx context.Context, ref SendRef, dryRun bool) (*Recounted, error) {
	r := &Recounted{SendRef: ref}
	err := s.db.InTx(ctx, []string{ref.AccountID}, func(tx *pg.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended('recount ' || $1, 0))", ref.ID); err != nil {
			return fmt.Errorf("wait for another recount: %w", err)
		}
		a, b := &r.Counted, &r.Rows
		err := tx.QueryRow(ctx, measureSend, ref.AccountID, ref.ID).Scan(
			&a.Total, &a.Pending, &a.Sent, &a.Failed, &a.Cancelled, &a.Unknown, &a.Skipped, &a.Delivered,
			&b.Total, &b.Pending, &b.Sent, &b.Failed, &b.Cancelled, &b.Unknown, &b.Skipped, &b.Delivered)
		if err != nil {
			return fmt.Errorf("recount: %w", err)
		}
		if !r.Differs() || dryRun {
			return nil
		}
		r.Repaired = true
		return repairSend(ctx, tx, ref, b.minus(*a))
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// repairSend adds the difference to the counters. A send whose last recipient has an
// outcome ends, one that ended too early goes on.
func repairSend(ctx context.Context, tx *pg.Tx, ref SendRef, d SendCounters) error {
	// Who waits long for this row waits in front of others, and so does who keeps it.
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '1s'"); err != nil {
		return fmt.Errorf("bound the time with the send: %w", err)
	}
	g := &messaging.GroupMessage{ID: ref.ID, AccountID: ref.AccountID}
	var previous string
	err := tx.QueryRow(ctx, "SELECT status FROM group_messages WHERE account_id = $1 AND id = $2 FOR UPDATE", ref.AccountID, ref.ID).Scan(&previous)
	if err != nil {
		return fmt.Errorf("lock the send: %w", err)
	}
	err = tx.QueryRow(ctx, `
		UPDATE group_messages SET
			total_recipients = total_recipients + $3, pending_count = pending_count + $4, sent_count = sent_count + $5, failed_count = failed_count + $6,
			cancelled_count = cancelled_count + $7, unknown_count = unknown_count + $8, skipped_count = skipped_count + $9, delivered_count = delivered_count + $10,
			status = CASE WHEN NOT fanout_done OR status = 'cancelled' THEN status
				WHEN pending_count + $4 > 0 THEN 'processing'
				ELSE group_message_end(status, sent_count + $5, failed_count + $6, error_message) END,
			completed_at = CASE WHEN NOT fanout_done THEN completed_at WHEN pending_count + $4 > 0 THEN NULL ELSE coalesce(completed_at, $11) END,
			updated_at = $11
		WHERE account_id = $1 AND id = $2
		RETURNING status, channel_id, template_id`,
		ref.AccountID, ref.ID, d.Total, d.Pending, d.Sent, d.Failed, d.Cancelled, d.Unknown, d.Skipped, d.Delivered, tx.Now).
		Scan(&g.Status, &g.ChannelID, &g.TemplateID)
	if err != nil {
		return fmt.Errorf("repair the counters: %w", err)
	}
	if g.Status == previous {
		return nil
	}
	return groupEvent(ctx, tx, g, "group_message."+g.Status, previous)
}
