package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

const (
	// endedAt is when a message that has ended got its first outcome.
	endedAt = "CASE status WHEN 'cancelled' THEN updated_at ELSE coalesce(sent_at, failed_at, delivered_at, updated_at) END"
	// sendOver says that a send is over for good, since before $2.
	sendOver = `body_erased_at IS NULL AND created_at < $2 AND coalesce(completed_at, deleted_at, updated_at) < $2
		AND (status IN ('completed', 'partially_failed', 'failed') OR status = 'cancelled' AND pending_count = 0 OR status = 'draft' AND deleted_at IS NOT NULL)`
	// waitForEnd is when a message is looked at again that has not ended, and lookAgain
	// the longest time until then: the account may have come to keep texts for less long.
	waitForEnd = time.Hour
	lookAgain  = 24 * time.Hour
)

// retention is a step of erasing what an account keeps no longer.
type retention struct {
	tx        *pg.Tx
	accountID string
	keep      time.Duration
	before    time.Time // what ended earlier is erased
	// progress
	Position     string
	SendID       string
	SendPosition string
}

// Retain erases a stretch of what the account's messages and sends hold that ended longer
// ago than they are kept, and returns how many messages that were; done says that all
// that is due is erased. Single messages are passed once, in the order of their ids; those that
// have not ended wait aside. A send goes as a whole, by the time it ended, since its
// messages share its text. One worker at a time works on an account.
func (s *Store) Retain(ctx context.Context, accountID string, keep time.Duration) (erased int, done bool, err error) {
	err = s.db.InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		r := &retention{tx: tx, accountID: accountID, keep: keep, before: tx.Now.Add(-keep)}
		erased, done = 0, false
		err := r.begin(ctx)
		if errors.Is(err, pgx.ErrNoRows) { // another worker is at it
			done = true
			return nil
		}
		if err != nil {
			return err
		}
		done = true
		for _, step := range []func(context.Context) (int, bool, error){r.waiting, r.singles, r.sends} {
			n, over, err := step(ctx)
			if err != nil {
				return err
			}
			erased, done = erased+n, done && over
		}
		return r.end(ctx)
	})
	return erased, done, err
}

func (r *retention) begin(ctx context.Context) error {
	if _, err := r.tx.Exec(ctx, "INSERT INTO retention_progress (account_id) VALUES ($1) ON CONFLICT DO NOTHING", r.accountID); err != nil {
		return fmt.Errorf("begin a retention: %w", err)
	}
	err := r.tx.QueryRow(ctx, `
		SELECT position::text, coalesce(send_id::text, ''), coalesce(send_position::text, '') FROM retention_progress
		WHERE account_id = $1 FOR UPDATE SKIP LOCKED`, r.accountID).Scan(&r.Position, &r.SendID, &r.SendPosition)
	if err != nil {
		return fmt.Errorf("read how far the retention is: %w", err)
	}
	return nil
}

func (r *retention) end(ctx context.Context) error {
	_, err := r.tx.Exec(ctx, "UPDATE retention_progress SET position = $2, send_id = nullif($3, '')::uuid, send_position = nullif($4, '')::uuid WHERE account_id = $1",
		r.accountID, r.Position, r.SendID, r.SendPosition)
	if err != nil {
		return fmt.Errorf("store how far the retention is: %w", err)
	}
	return nil
}

// waiting looks again at single messages that were passed too early.
func (r *retention) waiting(ctx context.Context) (erased int, over bool, err error) {
	rows, err := r.tx.Query(ctx, "SELECT message_id::text FROM retention_waits WHERE account_id = $1 AND look_at <= $2 ORDER BY look_at LIMIT $3", r.accountID, r.tx.Now, lookLimit)
	if err != nil {
		return 0, false, fmt.Errorf("find waiting messages: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, false, fmt.Errorf("find waiting messages: %w", err)
	}
	if len(ids) == 0 {
		return 0, true, nil
	}
	if _, err := r.tx.Exec(ctx, "DELETE FROM retention_waits WHERE message_id = ANY ($1::uuid[])", ids); err != nil {
		return 0, false, fmt.Errorf("take waiting messages: %w", err)
	}
	erased, err = r.erase(ctx, ids)
	return erased, len(ids) < lookLimit, err
}

// singles passes the next single messages.
func (r *retention) singles(ctx context.Context) (erased int, over bool, err error) {
	s, err := lookAt(ctx, r.tx, r.accountID, r.Position, r.before, "(group_message_id IS NULL AND body_erased_at IS NULL)")
	if err != nil {
		return 0, false, err
	}
	r.Position = s.last
	erased, err = r.erase(ctx, s.hits)
	return erased, s.end, err
}

// erase erases the single messages whose time is over and lets the others wait.
func (r *retention) erase(ctx context.Context, ids []string) (int, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	rows, err := r.tx.Query(ctx, `
		SELECT id::text, CASE WHEN `+ended+` THEN `+endedAt+` END FROM messages
		WHERE id = ANY ($1::uuid[]) AND created_at >= uuid7_time($2) AND created_at <= uuid7_time($3) AND account_id = $4 AND body_erased_at IS NULL`,
		ids, slices.Min(ids), slices.Max(ids), r.accountID)
	if err != nil {
		return 0, fmt.Errorf("read when messages ended: %w", err)
	}
	wait := map[string]time.Time{} // when each is looked at again
	var due []string
	var id string
	var at *time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error {
		wait[id] = r.lookAt(at)
		if at != nil && !at.After(r.before) {
			due = append(due, id)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read when messages ended: %w", err)
	}
	erased, err := eraseMessages(ctx, r.tx, r.accountID, due, false)
	if err != nil {
		return 0, err
	}
	for _, id := range erased {
		delete(wait, id)
	}
	return len(erased), r.wait(ctx, wait)
}

// lookAt is when to look again at a message that ended at a time; nil for one that has not.
func (r *retention) lookAt(ended *time.Time) time.Time {
	if ended == nil || !ended.After(r.before) { // it was queued again in this moment
		return r.tx.Now.Add(waitForEnd)
	}
	at := ended.Add(r.keep)
	if latest := r.tx.Now.Add(lookAgain); at.After(latest) {
		return latest
	}
	return at
}

func (r *retention) wait(ctx context.Context, at map[string]time.Time) error {
	if len(at) == 0 {
		return nil
	}
	ids, times := make([]string, 0, len(at)), make([]time.Time, 0, len(at))
	for id, t := range at {
		ids, times = append(ids, id), append(times, t)
	}
	_, err := r.tx.Exec(ctx, `
		INSERT INTO retention_waits (message_id, account_id, look_at)
		SELECT id, $1, at FROM unnest($2::uuid[], $3::timestamptz[]) AS n (id, at)
		ON CONFLICT (message_id) DO UPDATE SET look_at = excluded.look_at`, r.accountID, ids, times)
	if err != nil {
		return fmt.Errorf("let messages wait: %w", err)
	}
	return nil
}

// oldSend is a send whose time is over.
type oldSend struct {
	ID         string
	TemplateID string
	StartedAt  *time.Time
}

// sends goes on with the oldest send whose time is over: its messages first, so that
// none of them ever lacks the text it is shown with.
func (r *retention) sends(ctx context.Context) (erased int, over bool, err error) {
	rows, err := r.tx.Query(ctx, "SELECT id::text, template_id::text, started_at FROM group_messages WHERE account_id = $1 AND "+sendOver+" ORDER BY created_at, id LIMIT 1", r.accountID, r.before)
	if err != nil {
		return 0, false, fmt.Errorf("find an old send: %w", err)
	}
	g, err := optional(pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[oldSend]))
	if err != nil || g == nil {
		return 0, true, err
	}
	if g.StartedAt == nil {
		return 0, false, r.eraseSend(ctx, g)
	}
	if r.SendID != g.ID {
		r.SendID, r.SendPosition = g.ID, messaging.FirstIDAt(*g.StartedAt)
	}
	s, err := lookAt(ctx, r.tx, r.accountID, r.SendPosition, *g.StartedAt, "(group_message_id = $5 AND body_erased_at IS NULL)", g.ID)
	if err != nil {
		return 0, false, err
	}
	ids, err := eraseMessages(ctx, r.tx, r.accountID, s.hits, false)
	if err != nil {
		return 0, false, err
	}
	r.SendPosition = s.last
	if s.end {
		r.SendID, r.SendPosition = "", ""
		err = r.eraseSend(ctx, g)
	}
	return len(ids), false, err
}

// eraseSend erases the text of a send and what else it has, unless somebody opened it
// again. The template that was made from its text goes with it.
func (r *retention) eraseSend(ctx context.Context, g *oldSend) error {
	own, err := r.lockOwnTemplate(ctx, g)
	if err != nil {
		return err
	}
	tag, err := r.tx.Exec(ctx, `
		UPDATE group_messages SET snapshot = NULL, custom_values = '{}', metadata = NULL, body_erased_at = $3, updated_at = $3
		WHERE account_id = $1 AND id = $4 AND `+sendOver, r.accountID, r.before, r.tx.Now, g.ID)
	if err != nil {
		return fmt.Errorf("erase a send: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	if err := deleteRecipients(ctx, r.tx, r.accountID, g.ID); err != nil {
		return err
	}
	var files []string
	if own {
		if files, err = r.deleteTemplate(ctx, g); err != nil {
			return err
		}
	}
	rows, err := r.tx.Query(ctx, "DELETE FROM group_message_files WHERE account_id = $1 AND group_message_id = $2 RETURNING digest", r.accountID, g.ID)
	if err != nil {
		return fmt.Errorf("let go of a send's files: %w", err)
	}
	kept, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("let go of a send's files: %w", err)
	}
	return dropFiles(ctx, r.tx, r.accountID, append(files, kept...))
}

// lockOwnTemplate reports whether the send's template was made from its text; if so,
// nobody else can begin to use it meanwhile.
func (r *retention) lockOwnTemplate(ctx context.Context, g *oldSend) (bool, error) {
	tag, err := r.tx.Exec(ctx, "SELECT FROM templates WHERE account_id = $1 AND id = $2 AND category = $3 FOR UPDATE", r.accountID, g.TemplateID, messaging.CategoryAuto)
	if err != nil {
		return false, fmt.Errorf("lock the send's template: %w", err)
	}
	return tag.RowsAffected() > 0, nil
}

// deleteTemplate removes the template unless another send needs it, and returns the
// digests of its files.
func (r *retention) deleteTemplate(ctx context.Context, g *oldSend) ([]string, error) {
	files, err := attachmentsOf(ctx, r.tx, r.accountID, g.TemplateID)
	if err != nil {
		return nil, err
	}
	_, err = r.tx.Exec(ctx, `
		DELETE FROM templates WHERE account_id = $1 AND id = $2
			AND NOT EXISTS (SELECT FROM group_messages WHERE account_id = $1 AND template_id = $2 AND body_erased_at IS NULL)`, r.accountID, g.TemplateID)
	if err != nil {
		return nil, fmt.Errorf("delete the send's template: %w", err)
	}
	digests := make([]string, len(files))
	for i, a := range files {
		digests[i] = a.Digest
	}
	return digests, nil
}
