package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

// ExpiredChunks returns chunks whose lease is over: whoever held them is dead or
// cut off.
func (s *Store) ExpiredChunks(ctx context.Context, limit int) ([]*Chunk, error) {
	rows, err := s.db.Pool().Query(ctx, "SELECT "+chunkColumns+" FROM dispatch_chunks WHERE state = 'leased' AND lease_until < now() ORDER BY lease_until LIMIT $1", limit)
	if err != nil {
		return nil, fmt.Errorf("find expired leases: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToAddrOfStructByName[Chunk])
}

// RecoverChunk takes an expired chunk from whoever held it. Messages that were
// called and have no result are unknown (decision D8); the rest is ready again.
func (s *Store) RecoverChunk(ctx context.Context, c *Chunk) (unknown int, err error) {
	err = s.db.InTx(ctx, []string{c.AccountID}, func(tx *pg.Tx) error {
		unknown = 0
		err := tx.QueryRow(ctx, `
			UPDATE dispatch_chunks SET state = 'ready', epoch = epoch + 1, lease_until = NULL, not_before = now()
			WHERE id = $1 AND epoch = $2 AND state = 'leased' AND lease_until < now() RETURNING epoch, calling_upto`, c.ID, c.Epoch).Scan(&c.Epoch, &c.CallingUpto)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // its holder was only late
		}
		if err != nil {
			return fmt.Errorf("take the expired chunk: %w", err)
		}
		outcomes, err := unknownOutcomes(ctx, tx, c)
		if err != nil {
			return err
		}
		unknown = len(outcomes)
		if c.CallingUpto == len(c.MessageIDs) {
			if _, err := tx.Exec(ctx, "DELETE FROM dispatch_chunks WHERE id = $1", c.ID); err != nil {
				return fmt.Errorf("delete the called chunk: %w", err)
			}
		}
		return storeOutcomes(ctx, tx, &pgx.Batch{}, c, outcomes, counts{})
	})
	return unknown, err
}

func unknownOutcomes(ctx context.Context, tx *pg.Tx, c *Chunk) ([]messaging.Outcome, error) {
	rows, err := tx.Query(ctx, `
		SELECT id, status, attempts FROM messages
		WHERE id = ANY ($1::uuid[]) AND created_at >= $2 AND created_at <= $3 AND account_id = $4 AND chunk_id = $5 AND status IN ('queued', 'failed')`,
		c.MessageIDs[:c.CallingUpto], c.First, c.Last, c.AccountID, c.ID)
	if err != nil {
		return nil, fmt.Errorf("read unknown messages: %w", err)
	}
	called, err := pgx.CollectRows(rows, pgx.RowToStructByName[changed])
	if err != nil || len(called) == 0 {
		return nil, err
	}
	rows, err = tx.Query(ctx, "SELECT "+channelColumns+" FROM channels WHERE account_id = $1 AND id = $2", c.AccountID, c.ChannelID)
	if err != nil {
		return nil, fmt.Errorf("read the channel: %w", err)
	}
	channel, err := pg.One[messaging.Channel](errChannel)(rows)
	if err != nil && !errors.Is(err, errChannel) {
		return nil, err
	}
	outcomes := make([]messaging.Outcome, len(called))
	for i, m := range called {
		outcomes[i] = messaging.DecideUnknown(channel, m.Attempts, rand.Float64(), messaging.Outcome{MessageID: m.ID})
		outcomes[i].MessageID = m.ID
	}
	return outcomes, nil
}

// partitionOf is the table that messages created at these times are in: the partition of
// their month, or the parent of all where there are two. A statement that names the
// partition opens no other one.
func partitionOf(first, last time.Time) string {
	const month = "messages_200601"
	if name := first.UTC().Format(month); name == last.UTC().Format(month) {
		return name
	}
	return "messages"
}

// dueKey is what messages of one retry chunk have in common.
type dueKey struct {
	ChannelID, ChannelType, GroupMessageID, Lane string
	ByType                                       bool
}

// ReleaseDue makes chunks of the messages whose wait is over and returns how many
// messages there were. Each account has its own transaction.
func (s *Store) ReleaseDue(ctx context.Context) (int, error) {
	rows, err := s.db.Pool().Query(ctx, "SELECT DISTINCT account_id::text FROM (SELECT account_id FROM message_due WHERE due_at <= now() ORDER BY due_at LIMIT 10000) due")
	if err != nil {
		return 0, fmt.Errorf("find due messages: %w", err)
	}
	accounts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, fmt.Errorf("find due messages: %w", err)
	}
	total := 0
	for _, account := range accounts {
		n, err := s.releaseDue(ctx, account)
		if err != nil {
			return total, err
		}
		total += n
		jobs.Progress(ctx)
	}
	return total, nil
}

func (s *Store) releaseDue(ctx context.Context, accountID string) (n int, err error) {
	err = s.db.InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		rows, err := tx.Query(ctx, `
			DELETE FROM message_due WHERE message_id IN (
				SELECT message_id FROM message_due WHERE account_id = $1 AND due_at <= now() ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED)
			RETURNING message_id, channel_id, channel_type, coalesce(group_message_id::text, '') AS group_message_id, lane, by_type`, accountID, MaxChunk)
		if err != nil {
			return fmt.Errorf("take due messages: %w", err)
		}
		due := map[dueKey][]string{}
		var m string
		var k dueKey
		_, err = pgx.ForEachRow(rows, []any{&m, &k.ChannelID, &k.ChannelType, &k.GroupMessageID, &k.Lane, &k.ByType}, func() error {
			due[k] = append(due[k], m)
			n++
			return nil
		})
		if err != nil {
			return fmt.Errorf("take due messages: %w", err)
		}
		for k, ids := range due {
			if err := rechunk(ctx, tx, accountID, k, ids); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

// rechunk puts messages into a new ready chunk.
func rechunk(ctx context.Context, tx *pg.Tx, accountID string, k dueKey, ids []string) error {
	c := &Chunk{
		ID: messaging.NewID(), AccountID: accountID, ChannelID: k.ChannelID, ChannelType: k.ChannelType,
		GroupMessageID: k.GroupMessageID, Lane: k.Lane, ByType: k.ByType, MessageIDs: ids,
	}
	err := tx.QueryRow(ctx, "SELECT min(uuid7_time(id)), max(uuid7_time(id)) FROM unnest($1::uuid[]) AS n (id)", ids).Scan(&c.First, &c.Last)
	if err != nil {
		return fmt.Errorf("read the times of due messages: %w", err)
	}
	if err := insertChunk(ctx, tx, c, 0); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		UPDATE messages SET chunk_id = $5, ordinal = array_position($1::uuid[], id) - 1
		WHERE id = ANY ($1::uuid[]) AND created_at >= $2 AND created_at <= $3 AND account_id = $4 AND status IN ('queued', 'failed')`,
		ids, c.First, c.Last, accountID, c.ID)
	if err != nil {
		return fmt.Errorf("move due messages into a chunk: %w", err)
	}
	return nil
}

// NextDue is how long it is until the next message is due, at most limit.
func (s *Store) NextDue(ctx context.Context, limit time.Duration) (time.Duration, error) {
	var seconds *float64
	err := s.db.Pool().QueryRow(ctx, "SELECT extract(epoch FROM min(due_at) - now())::float8 FROM message_due").Scan(&seconds)
	if err != nil {
		return 0, fmt.Errorf("find the next due message: %w", err)
	}
	if seconds == nil {
		return limit, nil
	}
	return min(max(time.Duration(*seconds*float64(time.Second)), 0), limit), nil
}

// aheadMonths is how many months of message partitions are made ahead.
const aheadMonths = 3

// Upkeep makes the partitions of the time to come and drops what is over. Call
// it at every start, before anything is written, and then every hour. The role
// must be turumba_worker.
func (s *Store) Upkeep(ctx context.Context) error {
	if _, err := s.db.Pool().Exec(ctx, "SELECT messages_upkeep($1)", aheadMonths); err != nil {
		return fmt.Errorf("make message partitions: %w", err)
	}
	if _, err := outbox.Upkeep(ctx, s.db.Pool()); err != nil {
		return err
	}
	return nil
}

// BlockAccounts makes the accounts the only ones that must not send; it reports
// whether that changed anything.
func (s *Store) BlockAccounts(ctx context.Context, ids []string) (changed bool, err error) {
	var n int
	err = s.db.Pool().QueryRow(ctx, `
		WITH gone AS (DELETE FROM blocked_accounts WHERE account_id <> ALL ($1::uuid[]) RETURNING 1),
		come AS (INSERT INTO blocked_accounts SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING 1)
		SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM come)`, texts(ids)).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("block accounts: %w", err)
	}
	return n > 0, nil
}
