package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

const rekeyBatch = 100

// RekeySuppressions brings the addresses of suppressions of before one normaliser into
// today's form, and returns how many it looked at. It goes on where it was, whoever did the
// last one.
func (s *Store) RekeySuppressions(ctx context.Context) (done int, err error) {
	for {
		n, err := s.rekeySome(ctx)
		if done += n; err != nil || n < rekeyBatch {
			return done, err
		}
	}
}

type rekeyed struct{ ID, AccountID string }

func (s *Store) rekeySome(ctx context.Context) (int, error) {
	db := s.db.Within(partitionLimit)
	rows, err := db.Query(ctx, "SELECT suppression_id::text AS id, account_id::text FROM suppression_rekeys ORDER BY suppression_id LIMIT $1", rekeyBatch)
	if err != nil {
		return 0, fmt.Errorf("find suppressions to rekey: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[rekeyed])
	if err != nil {
		return 0, fmt.Errorf("find suppressions to rekey: %w", err)
	}
	for _, one := range list {
		if err := db.InTx(ctx, []string{one.AccountID}, func(tx *pg.Tx) error { return rekeySuppression(ctx, tx, one) }); err != nil {
			return 0, err
		}
	}
	return len(list), nil
}

// rekeySuppression rewrites the address of one suppression. Where the address in its new
// form has one already, that one stands for both.
func rekeySuppression(ctx context.Context, tx *pg.Tx, one rekeyed) error {
	if _, err := tx.Exec(ctx, "DELETE FROM suppression_rekeys WHERE suppression_id = $1", one.ID); err != nil {
		return fmt.Errorf("note that a suppression is rekeyed: %w", err)
	}
	var channelType, address string
	err := tx.QueryRow(ctx, "SELECT channel_type, address FROM suppressions WHERE account_id = $1 AND id = $2 FOR UPDATE", one.AccountID, one.ID).Scan(&channelType, &address)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read a suppression: %w", err)
	}
	key := rekeyedAddress(channelType, address)
	if key == address {
		return nil
	}
	_, err = tx.Exec(ctx, `
		WITH one AS (DELETE FROM suppressions WHERE account_id = $1 AND id = $2 RETURNING *)
		INSERT INTO suppressions (account_id, channel_type, address, reason, created_at, id, note, created_by_user_id)
		SELECT account_id, channel_type, $3, reason, created_at, id, note, created_by_user_id FROM one ON CONFLICT (account_id, channel_type, address) DO NOTHING`,
		one.AccountID, one.ID, key)
	if err != nil {
		return fmt.Errorf("rekey a suppression: %w", err)
	}
	return nil
}

// rekeyedAddress is the key of an address. What cannot be read stays as it is: nothing has
// such an address.
func rekeyedAddress(channelType, address string) string {
	if normal, err := messaging.CheckAddress(channelType, address, ""); err == nil {
		return messaging.AddressKey(channelType, normal)
	}
	return address
}
