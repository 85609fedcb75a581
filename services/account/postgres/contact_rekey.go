package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	account "github.com/turumba/turumba/services/account"
)

const (
	rekeyBatch = 100
	rekeyLimit = 20 * time.Second
)

// Rekey brings the keys of some contacts of before one normaliser into today's form, and
// returns the duplicates that it found; left is whether there may be more. It goes on where
// it was, whoever did the last one.
func (s *Store) Rekey(ctx context.Context) (duplicates []string, left bool, err error) {
	db := s.db.Within(rekeyLimit)
	rows, err := db.Query(ctx, "SELECT contact_id::text AS id, account_id::text FROM contact_rekeys ORDER BY contact_id LIMIT $1", rekeyBatch)
	if err != nil {
		return nil, false, fmt.Errorf("find contacts to rekey: %w", err)
	}
	type contact struct{ ID, AccountID string }
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[contact])
	if err != nil {
		return nil, false, fmt.Errorf("find contacts to rekey: %w", err)
	}
	for _, c := range list {
		duplicate, err := account.Rekey(ctx, s, c.AccountID, c.ID)
		if err != nil {
			return duplicates, true, err
		}
		if duplicate != "" {
			duplicates = append(duplicates, duplicate)
		}
		if _, err := db.Exec(ctx, "DELETE FROM contact_rekeys WHERE contact_id = $1", c.ID); err != nil {
			return duplicates, true, fmt.Errorf("note that a contact is rekeyed: %w", err)
		}
	}
	return duplicates, len(list) == rekeyBatch, nil
}
