package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
)

// queueAddresses writes the page that the addresses of a chunk of a send are found by.
func queueAddresses(step *pgx.Batch, c *Chunk, addresses []string) {
	step.Queue(`
		INSERT INTO message_addresses (account_id, group_message_id, created_at, first_id, last_id, addresses)
		VALUES ($1, $2, $3, $4, $5, address_page($6))`,
		c.AccountID, c.GroupMessageID, c.First, c.MessageIDs[0], c.MessageIDs[len(c.MessageIDs)-1], "\n"+strings.Join(addresses, "\n")+"\n")
}

// eraseAddresses writes the pages of erased messages again, from what the messages hold
// now. The pages are locked first: of two erasures in one page, the second sees what the
// first did.
func eraseAddresses(ctx context.Context, tx *pg.Tx, accountID string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		SELECT first_id::text FROM message_addresses p
		WHERE account_id = $1 AND created_at >= uuid7_time($3) AND created_at <= uuid7_time($4)
			AND EXISTS (SELECT FROM unnest($2::uuid[]) AS e (id) WHERE e.id BETWEEN p.first_id AND p.last_id)
		ORDER BY first_id FOR UPDATE`, accountID, ids, slices.Min(ids), slices.Max(ids))
	if err != nil {
		return fmt.Errorf("find pages of addresses: %w", err)
	}
	pages, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("find pages of addresses: %w", err)
	}
	for _, first := range pages {
		_, err := tx.Exec(ctx, `
			UPDATE message_addresses p SET addresses = address_page(E'\n' || array_to_string(ARRAY (
				SELECT delivery_address FROM messages m
				WHERE m.account_id = $1 AND m.group_message_id = p.group_message_id AND m.created_at = uuid7_time($2)
					AND m.id BETWEEN p.first_id AND p.last_id
				ORDER BY m.id), E'\n') || E'\n')
			WHERE account_id = $1 AND created_at = uuid7_time($2) AND first_id = $2`, accountID, first)
		if err != nil {
			return fmt.Errorf("erase in a page of addresses: %w", err)
		}
	}
	return nil
}
