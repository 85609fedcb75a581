package postgres

import (
	"context"
	"fmt"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
)

const channelColumns = `id, account_id, name, channel_type, provider, status, is_enabled, settings, secrets, sealed, sender_name,
	default_country_code, rate_limit, priority, retry_count, retry_interval, connections, on_unknown, send_epoch,
	last_verified_at, error_message, paused_until, circuit_until, circuit_trips, throttle, created_at, updated_at`

var errChannel = apierr.NotFound("channel")

func uuidColumn(expr string) query.Column {
	return query.Column{
		Expr: expr, Kind: query.KindUUID,
		Operators: []optionsv1.Operator{optionsv1.Operator_OPERATOR_EQ},
	}
}

func channelSpec(tokenKey []byte) (*query.Spec, error) {
	return query.SpecFor((&messagingv1.Channel{}).ProtoReflect().Descriptor(), query.Table{
		From: "channels", Select: []string{channelColumns}, TokenKey: tokenKey,
		Columns: map[string]query.Column{
			"name": {NotNull: true},
			// What messaging.Channel.ShownStatus says.
			"status": {Expr: `CASE WHEN NOT is_enabled THEN 'disabled' WHEN status <> 'error' AND paused_until > now() THEN 'rate_limited'
				WHEN status = 'connected' AND circuit_until IS NOT NULL THEN 'disconnected' ELSE status END`},
		},
	})
}

// CreateChannel stores a channel. QUOTA_EXCEEDED when the account may have no more.
func (s *Store) CreateChannel(ctx context.Context, tx *pg.Tx, c *messaging.Channel, q messaging.Quotas) error {
	if err := roomForChannel(ctx, tx, c.AccountID, q); err != nil {
		return err
	}
	c.CreatedAt, c.UpdatedAt, c.SendEpoch = tx.Now, tx.Now, 1
	_, err := tx.Exec(ctx, `
		INSERT INTO channels (id, account_id, name, channel_type, provider, status, is_enabled, settings, secrets, sealed, sender_name,
			default_country_code, rate_limit, priority, retry_count, retry_interval, connections, on_unknown, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $19)`,
		c.ID, c.AccountID, c.Name, c.ChannelType, c.Provider, c.Status, c.IsEnabled, c.Credentials, c.Secrets, c.Sealed, c.SenderName,
		c.DefaultCountryCode, c.RateLimit, c.Priority, c.RetryCount, c.RetryInterval, c.Connections, c.OnUnknown, tx.Now)
	if err != nil {
		return fmt.Errorf("insert channel: %w", err)
	}
	return event(ctx, tx, "channel.created", "channel", c.ID, c.AccountID, map[string]string{"channel_type": c.ChannelType, "provider": c.Provider})
}

// Channel returns one channel of the scope.
func (s *Store) Channel(ctx context.Context, scope []string, id string) (*messaging.Channel, error) {
	return pg.Read(ctx, s.db, scope, pg.One[messaging.Channel](errChannel),
		"SELECT "+channelColumns+" FROM channels WHERE account_id = ANY ($1::uuid[]) AND id = $2", scope, id)
}

// Channels returns a page of the scope's channels.
func (s *Store) Channels(ctx context.Context, scope []string, r query.Request) (*query.Page[*messaging.Channel], error) {
	return list[messaging.Channel](ctx, s, s.channels, r, scope)
}

// UpdateChannel lets change alter the channel and stores it. Running sends
// notice at their next window, and an error or a pause is forgotten: what was
// wrong may be mended.
func (s *Store) UpdateChannel(ctx context.Context, scope []string, id string, change func(*messaging.Channel) error) (*messaging.Channel, error) {
	var c *messaging.Channel
	err := s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		var err error
		c, err = lockOne[messaging.Channel](ctx, tx, errChannel, "SELECT "+channelColumns+" FROM channels WHERE account_id = ANY ($1::uuid[]) AND id = $2 FOR UPDATE", scope, id)
		if err != nil {
			return err
		}
		if err := change(c); err != nil {
			return err
		}
		c.SendEpoch++
		c.UpdatedAt = tx.Now
		return s.writeChannel(ctx, tx, c)
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (s *Store) writeChannel(ctx context.Context, tx *pg.Tx, c *messaging.Channel) error {
	_, err := tx.Exec(ctx, `
		UPDATE channels SET name = $3, status = $4, is_enabled = $5, settings = $6, secrets = $7, sealed = $8, sender_name = $9,
			default_country_code = $10, rate_limit = $11, priority = $12, retry_count = $13, retry_interval = $14, connections = $15,
			on_unknown = $16, send_epoch = $17, last_verified_at = $18, error_message = $19, paused_until = $20, updated_at = $21,
			circuit_until = $22, circuit_trips = $23, circuit_probe = NULL, throttle = $24
		WHERE account_id = $1 AND id = $2`,
		c.AccountID, c.ID, c.Name, c.Status, c.IsEnabled, c.Credentials, c.Secrets, c.Sealed, c.SenderName,
		c.DefaultCountryCode, c.RateLimit, c.Priority, c.RetryCount, c.RetryInterval, c.Connections,
		c.OnUnknown, c.SendEpoch, c.LastVerifiedAt, c.ErrorMessage, c.PausedUntil, c.UpdatedAt,
		c.CircuitUntil, c.CircuitTrips, c.Throttle)
	if err != nil {
		return fmt.Errorf("update channel: %w", err)
	}
	if err := releaseChannel(ctx, tx, c.ID); err != nil {
		return err
	}
	return event(ctx, tx, "channel.updated", "channel", c.ID, c.AccountID, map[string]string{"status": c.ShownStatus(tx.Now)})
}

// releaseChannel lets everything that waits for the channel go on at once.
func releaseChannel(ctx context.Context, tx *pg.Tx, id string) error {
	_, err := tx.Exec(ctx, "UPDATE dispatch_chunks SET not_before = now() WHERE channel_id = $1 AND not_before > now()", id)
	if err != nil {
		return fmt.Errorf("release the channel's chunks: %w", err)
	}
	return nil
}

// DeleteChannel removes a channel of the scope. IN_USE while messages wait for it, unless it
// is forced: then they fail.
func (s *Store) DeleteChannel(ctx context.Context, scope []string, id string, force bool) error {
	return s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		var accountID string
		err := tx.QueryRow(ctx, "SELECT account_id::text FROM channels WHERE account_id = ANY ($1::uuid[]) AND id = $2 FOR UPDATE", scope, id).Scan(&accountID)
		if err != nil {
			return pg.NoRows(err, errChannel)
		}
		if !force {
			if err := notInUse(ctx, tx, accountID, id); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, "DELETE FROM channels WHERE account_id = $1 AND id = $2", accountID, id); err != nil {
			return fmt.Errorf("delete channel: %w", err)
		}
		if err := releaseChannel(ctx, tx, id); err != nil {
			return err
		}
		return event(ctx, tx, "channel.deleted", "channel", id, accountID, nil)
	})
}

// notInUse is IN_USE while something waits for the channel: a send that runs, a message that
// waits for its turn, or for another attempt. What a cancelled send left does not count.
func notInUse(ctx context.Context, tx *pg.Tx, accountID, id string) error {
	const left = " AND NOT EXISTS (SELECT FROM group_messages g WHERE g.account_id = $1 AND g.id = w.group_message_id AND g.status = 'cancelled')"
	var sends, messages bool
	err := tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM group_messages WHERE account_id = $1 AND channel_id = $2 AND status IN ('scheduled', 'queued', 'processing')),
			EXISTS (SELECT FROM dispatch_chunks w WHERE channel_id = $2`+left+`) OR EXISTS (SELECT FROM message_due w WHERE channel_id = $2`+left+")",
		accountID, id).Scan(&sends, &messages)
	switch {
	case err != nil:
		return fmt.Errorf("find what waits for a channel: %w", err)
	case sends:
		return apierr.New(errorv1.Reason_REASON_IN_USE, "sends of the channel are running; let them end, cancel them, or delete it with force=true, and what is left fails")
	case messages:
		return apierr.New(errorv1.Reason_REASON_IN_USE, "messages wait for the channel; let them go, cancel them, or delete it with force=true, and they fail")
	}
	return nil
}
