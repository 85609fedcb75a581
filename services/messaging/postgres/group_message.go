package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
)

const groupColumns = `id, account_id, name, channel_id, template_id, status, contact_group_ids, exclude_contact_ids, exclude_contact_group_ids, address_count, coalesce(resend_of_id::text, '') AS resend_of_id, include_unknown, resend_statuses, custom_values, metadata,
	snapshot, total_recipients, pending_count, sent_count, failed_count, cancelled_count, unknown_count, skipped_count, delivered_count,
	fanout_done, coalesce(created_by_user_id::text, '') AS created_by_user_id, error_message, started_at, completed_at, body_erased_at, created_at, updated_at`

var errGroupMessage = apierr.NotFound("group message")

func groupSpec(tokenKey []byte) (*query.Spec, error) {
	return query.SpecFor((&messagingv1.GroupMessage{}).ProtoReflect().Descriptor(), query.Table{
		From: "group_messages", Select: []string{groupColumns}, Where: "deleted_at IS NULL", TokenKey: tokenKey,
		Columns: map[string]query.Column{"name": {NotNull: true}, "status": {NotNull: true}, "total_recipients": {NotNull: true}},
	})
}

// CreateGroupMessage stores a send. Its channel and template must be of the
// same account; NOT_FOUND if the template is gone. A queued one starts at once, if it is
// allowed to. to are its recipients by address.
func (s *Store) CreateGroupMessage(ctx context.Context, tx *pg.Tx, g *messaging.GroupMessage, to []messaging.Recipient, a messaging.Allowance) error {
	if err := holdTemplate(ctx, tx, g.AccountID, g.TemplateID); err != nil {
		return err
	}
	g.Addresses = int32(len(to))
	if err := insertRecipients(ctx, tx, g, to); err != nil {
		return err
	}
	return s.insertGroup(ctx, tx, g, a)
}

// insertGroup stores a send whose recipients are known, and queues it if it is to start
// at once.
func (s *Store) insertGroup(ctx context.Context, tx *pg.Tx, g *messaging.GroupMessage, a messaging.Allowance) error {
	g.CreatedAt, g.UpdatedAt = tx.Now, tx.Now
	_, err := tx.Exec(ctx, `
		INSERT INTO group_messages (id, account_id, name, channel_id, template_id, status, contact_group_ids, exclude_contact_ids,
			custom_values, metadata, created_by_user_id, created_at, updated_at, exclude_contact_group_ids, address_count, snapshot,
			resend_of_id, include_unknown, resend_statuses)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, nullif($11, '')::uuid, $12, $12, $13, $14, $15, nullif($16, '')::uuid, $17, $18)`,
		g.ID, g.AccountID, g.Name, g.ChannelID, g.TemplateID, g.Status, texts(g.ContactGroupIDs), texts(g.ExcludeContactIDs),
		values(g.CustomValues), g.Metadata, g.CreatedByUserID, tx.Now, texts(g.ExcludeContactGroupIDs), g.Addresses, g.Snapshot,
		g.ResendOfID, g.IncludeUnknown, texts(g.ResendStatuses))
	if err != nil {
		return fmt.Errorf("insert group message: %w", err)
	}
	if err := groupEvent(ctx, tx, g, "group_message.created", ""); err != nil {
		return err
	}
	if g.Status != messaging.GroupQueued {
		return nil
	}
	return s.queue(ctx, tx, g, messaging.GroupDraft, a)
}

// queue leaves the work of a send for the worker. QUOTA_EXCEEDED when it is more than the
// account may send.
func (s *Store) queue(ctx context.Context, tx *pg.Tx, g *messaging.GroupMessage, previous string, a messaging.Allowance) error {
	if err := charge(ctx, tx, g, a); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO fanout_jobs (group_message_id, account_id, not_before, created_at) VALUES ($1, $2, now(), $3)`, g.ID, g.AccountID, tx.Now)
	if err != nil {
		return fmt.Errorf("insert fan-out job: %w", err)
	}
	return groupEvent(ctx, tx, g, "group_message.queued", previous)
}

func groupEvent(ctx context.Context, tx *pg.Tx, g *messaging.GroupMessage, eventType, previous string) error {
	data := map[string]string{"id": g.ID, "account_id": g.AccountID, "channel_id": g.ChannelID, "template_id": g.TemplateID, "status": g.Status}
	if previous != "" {
		data["previous_status"] = previous
	}
	return event(ctx, tx, eventType, "group_message", g.ID, g.AccountID, data)
}

// GroupMessage returns one send of the scope.
func (s *Store) GroupMessage(ctx context.Context, scope []string, id string) (*messaging.GroupMessage, error) {
	return pg.Read(ctx, s.db, scope, pg.One[messaging.GroupMessage](errGroupMessage),
		"SELECT "+groupColumns+" FROM group_messages WHERE account_id = ANY ($1::uuid[]) AND id = $2 AND deleted_at IS NULL", scope, id)
}

// WatchedGroupMessages returns those of the sends that the scope has, in no order.
func (s *Store) WatchedGroupMessages(ctx context.Context, scope, ids []string) ([]*messaging.GroupMessage, error) {
	return pg.Read(ctx, s.db, scope, pg.All[messaging.GroupMessage],
		"SELECT "+groupColumns+" FROM group_messages WHERE account_id = ANY ($1::uuid[]) AND id = ANY ($2::uuid[]) AND deleted_at IS NULL", scope, ids)
}

// SendExists reports whether the account has, or had, the send.
func (s *Store) SendExists(ctx context.Context, accountID, id string) (bool, error) {
	return pg.Read(ctx, s.db, []string{accountID}, func(rows pgx.Rows) (bool, error) { return pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool]) },
		"SELECT EXISTS (SELECT FROM group_messages WHERE account_id = $1 AND id = $2)", accountID, id)
}

// GroupMessages returns a page of the scope's sends.
func (s *Store) GroupMessages(ctx context.Context, scope []string, r query.Request) (*query.Page[*messaging.GroupMessage], error) {
	return list[messaging.GroupMessage](ctx, s, s.groups, r, scope)
}

// lockGroup reads a send of the scope FOR UPDATE.
func lockGroup(ctx context.Context, tx *pg.Tx, scope []string, id string) (*messaging.GroupMessage, error) {
	return lockOne[messaging.GroupMessage](ctx, tx, errGroupMessage,
		"SELECT "+groupColumns+" FROM group_messages WHERE account_id = ANY ($1::uuid[]) AND id = $2 AND deleted_at IS NULL FOR UPDATE", scope, id)
}

var errDraftChanged = apierr.New(errorv1.Reason_REASON_CONFLICT, "somebody else changed the draft at the same time; read it and try again")

// UpdateGroupMessage stores a changed draft, unless it was changed or sent since it was
// read; CONFLICT then, or INVALID_STATE, and NOT_FOUND if its template is gone. With
// replace to are its recipients by address.
func (s *Store) UpdateGroupMessage(ctx context.Context, scope []string, g *messaging.GroupMessage, to []messaging.Recipient, replace bool) error {
	return s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		now, err := lockGroup(ctx, tx, scope, g.ID)
		switch {
		case err != nil:
			return err
		case now.MayChange() != nil:
			return now.MayChange()
		case !now.UpdatedAt.Equal(g.UpdatedAt):
			return errDraftChanged
		}
		if err := holdTemplate(ctx, tx, g.AccountID, g.TemplateID); err != nil {
			return err
		}
		if replace {
			if err := deleteRecipients(ctx, tx, g.AccountID, g.ID); err != nil {
				return err
			}
			if err := insertRecipients(ctx, tx, g, to); err != nil {
				return err
			}
		}
		g.UpdatedAt = tx.Now
		_, err = tx.Exec(ctx, `
			UPDATE group_messages SET name = $3, channel_id = $4, template_id = $5, contact_group_ids = $6, exclude_contact_ids = $7,
				exclude_contact_group_ids = $8, custom_values = $9, metadata = $10, address_count = $11, updated_at = $12
			WHERE account_id = $1 AND id = $2`,
			g.AccountID, g.ID, g.Name, g.ChannelID, g.TemplateID, texts(g.ContactGroupIDs), texts(g.ExcludeContactIDs),
			texts(g.ExcludeContactGroupIDs), values(g.CustomValues), g.Metadata, g.Addresses, tx.Now)
		if err != nil {
			return fmt.Errorf("update group message: %w", err)
		}
		return nil
	})
}

// SendGroupMessage starts a draft, if it is allowed to.
func (s *Store) SendGroupMessage(ctx context.Context, tx *pg.Tx, scope []string, id string, a messaging.Allowance) (*messaging.GroupMessage, error) {
	g, err := lockGroup(ctx, tx, scope, id)
	if err != nil {
		return nil, err
	}
	if err := g.MaySend(); err != nil {
		return nil, err
	}
	previous := g.Status
	g.Status, g.UpdatedAt = messaging.GroupQueued, tx.Now
	if _, err := tx.Exec(ctx, "UPDATE group_messages SET status = $3, updated_at = $4 WHERE account_id = $1 AND id = $2", g.AccountID, g.ID, g.Status, tx.Now); err != nil {
		return nil, fmt.Errorf("queue group message: %w", err)
	}
	return g, s.queue(ctx, tx, g, previous, a)
}

// ResendGroupMessage makes the send that takes up messages of another, those of each status
// once: twice would be two messages for everybody. One that wrote nothing does not count.
func (s *Store) ResendGroupMessage(ctx context.Context, tx *pg.Tx, scope []string, id string, r messaging.Resending, a messaging.Allowance) (*messaging.GroupMessage, error) {
	old, err := lockGroup(ctx, tx, scope, id)
	if err != nil {
		return nil, err
	}
	g, err := old.Resend(r)
	if err != nil {
		return nil, err
	}
	var channel, resent bool
	err = tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM channels WHERE account_id = $1 AND id = $2),
			EXISTS (SELECT FROM group_messages WHERE account_id = $1 AND resend_of_id = $3
				AND coalesce(nullif(resend_statuses, '{}'), '{failed}') && $4::text[] AND NOT (fanout_done AND total_recipients = 0))`,
		g.AccountID, g.ChannelID, old.ID, g.ResendStatuses).Scan(&channel, &resent)
	switch {
	case err != nil:
		return nil, fmt.Errorf("find what a resend needs: %w", err)
	case !channel:
		return nil, apierr.New(errorv1.Reason_REASON_INVALID_STATE, "the group message's channel does not exist any more")
	case resent:
		return nil, apierr.New(errorv1.Reason_REASON_INVALID_STATE, "the group message was resent before; what failed again can be resent from that send")
	}
	if err := s.insertGroup(ctx, tx, g, a); err != nil {
		return nil, err
	}
	return g, keepFiles(ctx, tx, g) // the old send may be deleted before the new one starts
}

// CancelGroupMessage stops a send: no further window of it is called. What
// waits is counted as cancelled by the worker, chunk by chunk.
func (s *Store) CancelGroupMessage(ctx context.Context, tx *pg.Tx, scope []string, id string) (*messaging.GroupMessage, error) {
	g, err := lockGroup(ctx, tx, scope, id)
	if err != nil {
		return nil, err
	}
	if err := g.MayCancel(); err != nil {
		return nil, err
	}
	previous := g.Status
	g.Status, g.UpdatedAt = messaging.GroupCancelled, tx.Now
	if previous != messaging.GroupProcessing {
		g.FanoutDone, g.CompletedAt = true, &tx.Now
	}
	_, err = tx.Exec(ctx, `
		UPDATE group_messages SET status = $3, updated_at = $4, fanout_done = $5, completed_at = $6
		WHERE account_id = $1 AND id = $2`, g.AccountID, g.ID, g.Status, tx.Now, g.FanoutDone, g.CompletedAt)
	if err != nil {
		return nil, fmt.Errorf("cancel group message: %w", err)
	}
	if g.FanoutDone {
		if err := deleteRecipients(ctx, tx, g.AccountID, g.ID); err != nil {
			return nil, err
		}
	}
	// What waits for a time or a paused channel need not wait to be cancelled.
	for _, sql := range []string{
		"UPDATE dispatch_chunks SET not_before = now() WHERE group_message_id = $1 AND not_before > now()",
		"UPDATE message_due SET due_at = now() WHERE group_message_id = $1 AND due_at > now()",
	} {
		if _, err := tx.Exec(ctx, sql, g.ID); err != nil {
			return nil, fmt.Errorf("release what waits: %w", err)
		}
	}
	return g, groupEvent(ctx, tx, g, "group_message.cancelled", previous)
}

// DeleteGroupMessage hides a send that is not running. Its messages stay, its list of
// addresses does not.
func (s *Store) DeleteGroupMessage(ctx context.Context, scope []string, id string) error {
	return s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		g, err := lockGroup(ctx, tx, scope, id)
		if err != nil {
			return err
		}
		if err := g.MayDelete(); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE group_messages SET deleted_at = $3, updated_at = $3 WHERE account_id = $1 AND id = $2", g.AccountID, g.ID, tx.Now)
		if err != nil {
			return fmt.Errorf("delete group message: %w", err)
		}
		return deleteRecipients(ctx, tx, g.AccountID, g.ID)
	})
}

// Skips returns a page of the recipients that a send left out.
func (s *Store) Skips(ctx context.Context, scope []string, groupID string, r query.Request) (*query.Page[*messaging.Skip], error) {
	g, err := s.GroupMessage(ctx, scope, groupID)
	if err != nil {
		return nil, err
	}
	r.Filters = append([]string{"group_message_id:eq:" + groupID}, r.Filters...)
	return list[messaging.Skip](ctx, s, s.skips, r, []string{g.AccountID})
}
