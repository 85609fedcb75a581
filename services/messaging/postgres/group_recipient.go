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

func deleteRecipients(ctx context.Context, tx *pg.Tx, g *messaging.GroupMessage) error {
	if _, err := tx.Exec(ctx, "DELETE FROM group_message_recipients WHERE account_id = $1 AND group_message_id = $2", g.AccountID, g.ID); err != nil {
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

func toRecipients(rows pgx.Rows) ([]messaging.Recipient, error) {
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r messaging.Recipient, err error) {
		return r, row.Scan(&r.AddressID, &r.Given, &r.Name, &r.Values)
	})
}
