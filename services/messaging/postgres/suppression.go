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

const suppressionColumns = `id, account_id, channel_type, address, reason, note, coalesce(created_by_user_id::text, '') AS created_by_user_id, created_at`

var (
	errSuppression = apierr.NotFound("suppression")
	errSuppressed  = apierr.New(errorv1.Reason_REASON_CONFLICT, "the address is suppressed already")
)

func suppressionSpec(tokenKey []byte) (*query.Spec, error) {
	return query.SpecFor((&messagingv1.Suppression{}).ProtoReflect().Descriptor(), query.Table{
		From: "suppressions", Select: []string{suppressionColumns}, TokenKey: tokenKey,
	})
}

// CreateSuppression stores a suppression; CONFLICT where the address has one.
func (s *Store) CreateSuppression(ctx context.Context, tx *pg.Tx, v *messaging.Suppression) error {
	v.CreatedAt = tx.Now
	_, err := tx.Exec(ctx, `
		INSERT INTO suppressions (id, account_id, channel_type, address, reason, note, created_by_user_id, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, nullif($7, '')::uuid, $8)`,
		v.ID, v.AccountID, v.ChannelType, v.Address, v.Reason, v.Note, v.CreatedByUserID, tx.Now)
	if pg.IsUnique(err, "suppressions_pkey") {
		return errSuppressed
	}
	if err != nil {
		return fmt.Errorf("insert suppression: %w", err)
	}
	return nil
}

// EnsureSuppression stores a suppression unless the address has one.
func (s *Store) EnsureSuppression(ctx context.Context, tx *pg.Tx, v *messaging.Suppression) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO suppressions (id, account_id, channel_type, address, reason, created_at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (account_id, channel_type, address) DO NOTHING`, v.ID, v.AccountID, v.ChannelType, v.Address, v.Reason, tx.Now)
	if err != nil {
		return fmt.Errorf("insert suppression: %w", err)
	}
	return nil
}

// Suppression returns one suppression of the scope.
func (s *Store) Suppression(ctx context.Context, scope []string, id string) (*messaging.Suppression, error) {
	return pg.Read(ctx, s.db, scope, pg.One[messaging.Suppression](errSuppression),
		"SELECT "+suppressionColumns+" FROM suppressions WHERE account_id = ANY ($1::uuid[]) AND id = $2", scope, id)
}

// Suppressions returns a page of the scope's suppressions.
func (s *Store) Suppressions(ctx context.Context, scope []string, r query.Request) (*query.Page[*messaging.Suppression], error) {
	return list[messaging.Suppression](ctx, s, s.suppressions, r, scope)
}

// DeleteSuppression removes a suppression of the scope.
func (s *Store) DeleteSuppression(ctx context.Context, scope []string, id string) error {
	return s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		tag, err := tx.Exec(ctx, "DELETE FROM suppressions WHERE account_id = ANY ($1::uuid[]) AND id = $2", scope, id)
		if err != nil {
			return fmt.Errorf("delete suppression: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return errSuppression
		}
		return nil
	})
}

const selectSuppressed = "SELECT address FROM suppressions WHERE account_id = $1 AND channel_type = $2 AND address = ANY ($3)"

// Suppressed returns those of the addresses, by their keys, that the account must not
// write to.
func (s *Store) Suppressed(ctx context.Context, accountID, channelType string, keys []string) (map[string]bool, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	return pg.Read(ctx, s.db, []string{accountID}, collectSet, selectSuppressed, accountID, channelType, keys)
}

// suppress keeps the addresses of messages from being written to again, whose
// recipients take no messages of the sender as the provider says.
func suppress(ctx context.Context, tx *pg.Tx, c *Chunk, messageIDs []string) error {
	if len(messageIDs) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		SELECT DISTINCT delivery_address FROM messages
		WHERE id = ANY ($1::uuid[]) AND created_at >= $2 AND created_at <= $3 AND account_id = $4`, messageIDs, c.First, c.Last, c.AccountID)
	if err != nil {
		return fmt.Errorf("read opted-out addresses: %w", err)
	}
	addresses, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read opted-out addresses: %w", err)
	}
	ids := make([]string, len(addresses))
	for i, a := range addresses {
		ids[i], addresses[i] = messaging.NewID(), messaging.AddressKey(c.ChannelType, a)
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO suppressions (id, account_id, channel_type, address, reason, created_at)
		SELECT id, $1, $2, address, $3, $4 FROM unnest($5::uuid[], $6::text[]) AS n (id, address) ON CONFLICT DO NOTHING`,
		c.AccountID, c.ChannelType, messaging.SuppressedOptedOut, tx.Now, ids, addresses)
	if err != nil {
		return fmt.Errorf("suppress opted-out addresses: %w", err)
	}
	return nil
}
