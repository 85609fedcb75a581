package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

// insertRecipients stores those who are given by address, in their order.
func insertRecipients(ctx context.Context, tx *pg.Tx, g *messaging.GroupMessage, to []messaging.Recipient) error {
	if len(to) == 0 {
		return nil
	}
	addresses, names, vars := make([]string, len(to)), make([]string, len(to)), make([]map[string]string, len(to))
	for i, r := range to {
		addresses[i], names[i], vars[i] = r.Given, r.Name, values(r.Values)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO group_message_recipients (account_id, group_message_id, id, address, name, vars)
		SELECT $1, $2, id, address, name, vars FROM unnest($3::uuid[], $4::text[], $5::text[], $6::jsonb[]) AS n (id, address, name, vars)`,
		g.AccountID, g.ID, messaging.IDsAt(tx.Now, 0, len(to)), addresses, names, vars)
	if err != nil {
		return fmt.Errorf("insert recipients: %w", err)
	}
	return nil
}

// deleteRecipients forgets who was given by address, once nobody needs to know any more.
func deleteRecipients(ctx context.Context, tx *pg.Tx, accountID, groupID string) error {
	if _, err := tx.Exec(ctx, "DELETE FROM group_message_recipients WHERE account_id = $1 AND group_message_id = $2", accountID, groupID); err != nil {
		return fmt.Errorf("delete recipients: %w", err)
	}
	return nil
}

// AddressRecipients calls each with the recipients of the send that are given by
// address, in their order, from the one after cursor on, in stretches of up to size.
func (s *Store) AddressRecipients(ctx context.Context, g *messaging.GroupMessage, cursor string, size int, each func([]messaging.Recipient) error) error {
	for g.Addresses > 0 {
		list, err := pg.Read(ctx, s.db, []string{g.AccountID}, toRecipients, `
			SELECT id, address, name, vars FROM group_message_recipients
			WHERE account_id = $1 AND group_message_id = $2 AND ($3 = '' OR id > nullif($3, '')::uuid)
			ORDER BY id LIMIT $4`, g.AccountID, g.ID, cursor, size)
		if err != nil || len(list) == 0 {
			return err
		}
		if err := each(list); err != nil {
			return err
		}
		cursor = list[len(list)-1].AddressID
	}
	return nil
}

// FailedRecipients is AddressRecipients of a resend: those whom its old send failed to
// reach for good or was cancelled for, as the resend says, in order of their messages' ids, which the cursor goes by.
func (s *Store) FailedRecipients(ctx context.Context, g *messaging.GroupMessage, cursor string, size int, each func([]messaging.Recipient) error) error {
	for {
		list, err := pg.Read(ctx, s.db, []string{g.AccountID}, toFailed, `
			SELECT id, coalesce(contact_id::text, ''), delivery_address, vars FROM messages
			WHERE account_id = $1 AND created_at = (SELECT started_at FROM group_messages WHERE account_id = $1 AND id = $2)
				AND id > (SELECT coalesce(nullif($3, '')::uuid, uuid7_first(started_at)) FROM group_messages WHERE account_id = $1 AND id = $2)
				AND id <= (SELECT uuid7_last(started_at) FROM group_messages WHERE account_id = $1 AND id = $2) AND group_message_id = $2
				AND (status = 'permanently_failed' AND 'failed' = ANY ($7::text[]) AND ($4 OR error_code IS DISTINCT FROM $5)
					OR status = 'cancelled' AND 'cancelled' = ANY ($7::text[])) AND deleted_at IS NULL AND body_erased_at IS NULL
			ORDER BY id LIMIT $6`, g.AccountID, g.ResendOfID, cursor, g.IncludeUnknown, messaging.CodeOutcomeUnknown, size, g.Resends())
		if err != nil || len(list) == 0 {
			return err
		}
		if err := each(list); err != nil {
			return err
		}
		cursor = list[len(list)-1].AddressID
	}
}

func toFailed(rows pgx.Rows) ([]messaging.Recipient, error) {
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r messaging.Recipient, err error) {
		return r, row.Scan(&r.AddressID, &r.ContactID, &r.Given, &r.Values)
	})
}

func toRecipients(rows pgx.Rows) ([]messaging.Recipient, error) {
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r messaging.Recipient, err error) {
		return r, row.Scan(&r.AddressID, &r.Given, &r.Name, &r.Values)
	})
}
