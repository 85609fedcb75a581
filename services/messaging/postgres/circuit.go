package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

// Seen is a channel as a worker saw it, and the chunk that it worked on: what it found
// out counts only while that is how the channel still is.
type Seen struct {
	AccountID, ChannelID, ChunkID string
	SendEpoch                     int64
}

// changeSeen lets change alter the channel's condition, unless the channel is not as it
// was seen. A channel that is broken already belongs to the chunk that tries it.
func (s *Store) changeSeen(ctx context.Context, seen Seen, change func(c *messaging.Channel, now time.Time) (event string)) error {
	return s.db.InTx(ctx, []string{seen.AccountID}, func(tx *pg.Tx) error {
		rows, err := tx.Query(ctx, "SELECT "+channelColumns+` FROM channels
			WHERE account_id = $1 AND id = $2 AND send_epoch = $3 AND (circuit_until IS NULL AND status <> 'error' OR circuit_probe = $4)
			FOR UPDATE`, seen.AccountID, seen.ChannelID, seen.SendEpoch, seen.ChunkID)
		if err != nil {
			return fmt.Errorf("lock the channel: %w", err)
		}
		found, err := pg.All[messaging.Channel](rows)
		if err != nil || len(found) == 0 {
			return err
		}
		c := found[0]
		name := change(c, tx.Now)
		if name == "" {
			return nil
		}
		_, err = tx.Exec(ctx, `
			UPDATE channels SET status = $3, error_message = $4, paused_until = $5, circuit_until = $6, circuit_trips = $7, circuit_probe = NULL,
				throttle = $8, updated_at = $9
			WHERE account_id = $1 AND id = $2`,
			c.AccountID, c.ID, c.Status, c.ErrorMessage, c.PausedUntil, c.CircuitUntil, c.CircuitTrips, c.Throttle, tx.Now)
		if err != nil {
			return fmt.Errorf("store the channel's condition: %w", err)
		}
		if c.CircuitUntil == nil {
			if err := releaseChannel(ctx, tx, c.ID); err != nil {
				return err
			}
		}
		return event(ctx, tx, name, "channel", c.ID, c.AccountID, map[string]string{"status": c.ShownStatus(tx.Now)})
	})
}

// BreakChannel lets the channel rest for all workers, because its provider does not
// answer, or refuses it.
func (s *Store) BreakChannel(ctx context.Context, seen Seen, refused bool, why string) error {
	return s.changeSeen(ctx, seen, func(c *messaging.Channel, now time.Time) string {
		c.Break(now, refused, why)
		if refused {
			return "channel.error"
		}
		return "channel.disconnected"
	})
}

// MendChannel says that a message left by a channel that did not work.
func (s *Store) MendChannel(ctx context.Context, seen Seen) error {
	return s.changeSeen(ctx, seen, func(c *messaging.Channel, _ time.Time) string {
		throttle, paused := c.Throttle, c.PausedUntil
		c.Mend()
		c.Status, c.Throttle, c.PausedUntil = messaging.ChannelConnected, throttle, paused
		return "channel.connected"
	})
}

// PauseChannel keeps all workers from the channel until then (throttling). Where slow is
// not 0 the channel also goes on at half its rate; slow is what it really sent per
// minute. A pause that stands already has halved it.
func (s *Store) PauseChannel(ctx context.Context, seen Seen, until time.Time, slow int32) error {
	return s.db.InTx(ctx, []string{seen.AccountID}, func(tx *pg.Tx) error {
		c, err := lockOne[messaging.Channel](ctx, tx, errChannel,
			"SELECT "+channelColumns+" FROM channels WHERE account_id = $1 AND id = $2 FOR UPDATE", seen.AccountID, seen.ChannelID)
		if err != nil {
			return ignore(err, errChannel)
		}
		paused := c.PausedUntil != nil && c.PausedUntil.After(tx.Now)
		if slow > 0 && !paused {
			c.Slow(tx.Now, slow)
		}
		_, err = tx.Exec(ctx, "UPDATE channels SET paused_until = greatest(paused_until, $3), throttle = $4 WHERE account_id = $1 AND id = $2",
			seen.AccountID, seen.ChannelID, until, c.Throttle)
		if err != nil {
			return fmt.Errorf("pause channel: %w", err)
		}
		return nil
	})
}

// ProbeChannel makes the chunk the one that tries a channel which did not work, for at
// most limit; false if another one does.
func (s *Store) ProbeChannel(ctx context.Context, seen Seen, limit time.Duration) (bool, error) {
	won := false
	err := s.db.InTx(ctx, []string{seen.AccountID}, func(tx *pg.Tx) error {
		tag, err := tx.Exec(ctx, `
			UPDATE channels SET circuit_probe = $4, circuit_until = now() + $5::interval
			WHERE account_id = $1 AND id = $2 AND send_epoch = $3 AND circuit_until <= now()`,
			seen.AccountID, seen.ChannelID, seen.SendEpoch, seen.ChunkID, interval(limit))
		if err != nil {
			return fmt.Errorf("try the channel: %w", err)
		}
		won = tag.RowsAffected() == 1
		return nil
	})
	return won, err
}

// LeaveProbe lets another chunk try the channel: this one found nothing out.
func (s *Store) LeaveProbe(ctx context.Context, seen Seen) error {
	return s.db.InTx(ctx, []string{seen.AccountID}, func(tx *pg.Tx) error {
		tag, err := tx.Exec(ctx, "UPDATE channels SET circuit_probe = NULL, circuit_until = now() WHERE account_id = $1 AND id = $2 AND circuit_probe = $3",
			seen.AccountID, seen.ChannelID, seen.ChunkID)
		if err != nil {
			return fmt.Errorf("leave the channel to others: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil
		}
		return releaseChannel(ctx, tx, seen.ChannelID)
	})
}

// FailOver moves what waits on broken channels of a type, and named no channel, to the
// best one that works (decision D11), and returns how many chunks and messages moved.
// Those that wait for their retry need not wait any more.
func (s *Store) FailOver(ctx context.Context, accountID, channelType string) (moved int, err error) {
	err = s.db.InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		err := tx.QueryRow(ctx, `
			WITH mine AS (
				SELECT id, priority, status = 'error' AND circuit_until IS NULL OR coalesce(circuit_until > now(), false) AS broken
				FROM channels WHERE account_id = $1 AND channel_type = $2 AND is_enabled),
			best AS (SELECT id FROM mine WHERE NOT broken ORDER BY priority DESC, id LIMIT 1),
			chunks AS (
				UPDATE dispatch_chunks d SET channel_id = best.id, not_before = now() FROM best
				WHERE d.channel_id IN (SELECT id FROM mine WHERE broken) AND d.by_type AND d.state = 'ready' RETURNING 1),
			due AS (
				UPDATE message_due d SET channel_id = best.id, due_at = now() FROM best
				WHERE d.channel_id IN (SELECT id FROM mine WHERE broken) AND d.by_type RETURNING 1)
			SELECT (SELECT count(*) FROM chunks) + (SELECT count(*) FROM due)`, accountID, channelType).Scan(&moved)
		if err != nil {
			return fmt.Errorf("move messages to another channel: %w", err)
		}
		return nil
	})
	return moved, err
}

// HoldChannel puts off the chunk, which is in work, and the channel's ready ones, as long as
// the channel asks for; false if it may send meanwhile, or is gone. Whoever changes or mends
// the channel has the same lock, so that nothing is put off after it was let go.
func (s *Store) HoldChannel(ctx context.Context, c *Chunk) (held bool, err error) {
	err = s.db.InTx(ctx, []string{c.AccountID}, func(tx *pg.Tx) error {
		channel, err := seenShared(ctx, tx, c)
		if err != nil || channel == nil {
			return err
		}
		delay := channel.HeldFor(tx.Now)
		if held = delay > 0; !held {
			return nil
		}
		_, err = tx.Exec(ctx, `
			UPDATE dispatch_chunks SET not_before = now() + $2::interval
			WHERE id IN (
				SELECT id FROM ( -- what somebody else holds or claims at this moment is seen to by them
					SELECT id FROM dispatch_chunks d WHERE channel_id = $1 AND state = 'ready' AND not_before < now() + $2::interval
					AND NOT EXISTS (SELECT FROM group_messages g WHERE g.account_id = d.account_id AND g.id = d.group_message_id AND g.status = 'cancelled')
					FOR UPDATE SKIP LOCKED) AS ready
				UNION ALL SELECT id FROM dispatch_chunks WHERE id = $3 AND epoch = $4)`, c.ChannelID, interval(delay), c.ID, c.Epoch)
		if err != nil {
			return fmt.Errorf("hold the channel's chunks: %w", err)
		}
		return nil
	})
	return held, err
}

// PutOff puts off the chunk, which is in work, for the channel's rate; false if the channel
// was changed since it was seen at sendEpoch.
func (s *Store) PutOff(ctx context.Context, c *Chunk, sendEpoch int64, delay time.Duration) (held bool, err error) {
	err = s.db.InTx(ctx, []string{c.AccountID}, func(tx *pg.Tx) error {
		channel, err := seenShared(ctx, tx, c)
		if held = err == nil && channel != nil && channel.SendEpoch == sendEpoch; !held {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE dispatch_chunks SET not_before = now() + $3::interval WHERE id = $1 AND epoch = $2", c.ID, c.Epoch, interval(delay))
		if err != nil {
			return fmt.Errorf("put off the chunk: %w", err)
		}
		return nil
	})
	return held, err
}

// seenShared is the chunk's channel, which stays as it is until tx ends; nil if it is gone.
func seenShared(ctx context.Context, tx *pg.Tx, c *Chunk) (*messaging.Channel, error) {
	channel, err := lockOne[messaging.Channel](ctx, tx, errChannel,
		"SELECT "+channelColumns+" FROM channels WHERE account_id = $1 AND id = $2 FOR SHARE", c.AccountID, c.ChannelID)
	return channel, ignore(err, errChannel)
}
