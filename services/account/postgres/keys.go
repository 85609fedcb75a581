package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
)

// Sealed is a table whose rows hold one sealed value each.
type Sealed struct{ table, id, value string }

// The tables with sealed values.
var (
	SealedKeys  = Sealed{"signing_keys", "kid", "private_key"}
	SealedMails = Sealed{"outgoing_mails", "id", "sealed"}
	SealedTotp  = Sealed{"user_totp", "user_id", "secret"}
)

// SealedIDs are the ids of the table's rows, as text and in that order, after one of
// them.
func (s *Store) SealedIDs(ctx context.Context, of Sealed, after string, most int) ([]string, error) {
	rows, err := s.db.Query(ctx, fmt.Sprintf("SELECT %[2]s::text FROM %[1]s WHERE %[2]s::text > $1 ORDER BY 1 LIMIT $2", of.table, of.id), after, most)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", of.table, err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Reseal stores what rewrap makes of a sealed value, unless it says that nothing changed
// or store is false. A row that is gone changes nothing.
func (s *Store) Reseal(ctx context.Context, of Sealed, id string, store bool, rewrap func(sealed []byte) ([]byte, bool, error)) (changed bool, err error) {
	err = s.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		var sealed []byte
		err := tx.QueryRow(ctx, fmt.Sprintf("SELECT %[3]s FROM %[1]s WHERE %[2]s::text = $1 FOR UPDATE", of.table, of.id, of.value), id).Scan(&sealed)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a row of %s: %w", of.table, err)
		}
		var again []byte
		if again, changed, err = rewrap(sealed); err != nil || !changed || !store {
			return err
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf("UPDATE %[1]s SET %[3]s = $2 WHERE %[2]s::text = $1", of.table, of.id, of.value), id, again); err != nil {
			return fmt.Errorf("store a row of %s: %w", of.table, err)
		}
		return nil
	})
	return changed, err
}
