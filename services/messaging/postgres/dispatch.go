package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	eventv1 "github.com/turumba/turumba/gen/turumba/event/v1"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

// Chunk is the unit of dispatch (decision E4): up to MaxChunk messages of one
// channel and lane, leased as a whole.
type Chunk struct {
	ID             string
	AccountID      string
	ChannelID      string
	ChannelType    string
	GroupMessageID string
	Lane           string
	// MessageIDs are the messages by ordinal.
	MessageIDs []string `db:"message_ids"`
	// First and Last bound the messages' created_at.
	First time.Time `db:"first_created_at"`
	Last  time.Time `db:"last_created_at"`
	// CallingUpto is how many messages, from the first, have been called. Those
	// without a result are unknown once the lease is over.
	CallingUpto int
	Epoch       int64
	// Traceparent is the trace of what made the chunk; empty for none.
	Traceparent string
	// ByType says that the messages named no channel, only a type: they may go on
	// another one of it.
	ByType bool
}

const chunkColumns = `id, account_id, channel_id, channel_type, coalesce(group_message_id::text, '') AS group_message_id, lane,
	message_ids, first_created_at, last_created_at, calling_upto, epoch, traceparent, by_type`

// takeTurn gives a chunk its turn in the lane. Turns go by start-time fair queueing:
// an account that has had more than its share comes later, one that was away
// does not save up.
const takeTurn = `
	WITH now AS (SELECT coalesce((SELECT vtime FROM lane_clocks WHERE lane = $6 AND channel_type = $4), 0) AS vtime),
	turn AS (
		INSERT INTO lane_accounts AS a (lane, channel_type, account_id, finish) SELECT $6, $4, $2, vtime + $7 FROM now
		ON CONFLICT (lane, channel_type, account_id) DO UPDATE SET finish = greatest(a.finish, (SELECT vtime FROM now)) + $7
		RETURNING finish - $7 AS vtime)`

const chunkInserted = `
	INSERT INTO dispatch_chunks (id, account_id, channel_id, channel_type, group_message_id, lane, n, message_ids,
		first_created_at, last_created_at, created_at, by_type, vtime, not_before, state, epoch, lease_until)
	SELECT $1, $2, $3, $4, nullif($5, '')::uuid, $6, $7, $8, $9, $10, $11, $13, turn.vtime, `

const insertReadyChunk = takeTurn + chunkInserted + `now() + $12::interval, 'ready', 0, NULL FROM turn`

// insertBornChunk stores a chunk that is in work at once, its turn taken, unless
// others are ready in the lane: then it waits for its turn like them.
const insertBornChunk = takeTurn + `,
	born AS (SELECT NOT EXISTS (SELECT FROM dispatch_chunks WHERE state = 'ready' AND lane = $6 AND channel_type = $4 AND not_before <= now()) AS leased),
	clock AS (
		INSERT INTO lane_clocks (lane, channel_type, vtime) SELECT $6, $4, turn.vtime FROM turn, born WHERE born.leased
		ON CONFLICT (lane, channel_type) DO UPDATE SET vtime = greatest(lane_clocks.vtime, excluded.vtime))` + chunkInserted + `now(),
		CASE WHEN leased THEN 'leased' ELSE 'ready' END, leased::int, CASE WHEN leased THEN now() + $12::interval END
	FROM turn, born RETURNING epoch`

// args are the arguments of both; wait is until the chunk is ready or how long
// its first lease is.
func (c *Chunk) args(tx *pg.Tx, wait time.Duration) []any {
	return []any{
		c.ID, c.AccountID, c.ChannelID, c.ChannelType, c.GroupMessageID, c.Lane, len(c.MessageIDs), c.MessageIDs, c.First, c.Last, tx.Now, interval(wait), c.ByType,
	}
}

// insertChunk stores a ready chunk at its account's turn in the lane and
// announces it.
func insertChunk(ctx context.Context, tx *pg.Tx, c *Chunk, delay time.Duration) error {
	if _, err := tx.Exec(ctx, insertReadyChunk, c.args(tx, delay)...); err != nil {
		return fmt.Errorf("insert chunk: %w", err)
	}
	return outbox.Append(ctx, tx, chunkEvent(ctx, tx, c))
}

// chunkEvent announces a chunk to those who dispatch.
func chunkEvent(ctx context.Context, tx *pg.Tx, c *Chunk) *eventv1.Event {
	return newEvent(ctx, tx, "message.dispatch."+c.ChannelType+"."+c.Lane, "dispatch_chunk", c.ID, c.AccountID, map[string]string{"channel_id": c.ChannelID})
}

// Skip is what a claim leaves to others, or for later.
type Skip struct {
	// Channels and Accounts are left out.
	Channels, Accounts []string
	// Fresh accounts are left out but for the Known channels.
	Fresh, Known []string
}

// claimChunk compares by hash: there may be hundreds of channels to skip, and thousands of
// their chunks before the first other one.
const claimChunk = `
	WITH next AS (
		SELECT id, channel_type, vtime FROM dispatch_chunks
		WHERE state = 'ready' AND lane = $1 AND channel_type = ANY ($2) AND not_before <= now()
			AND channel_id NOT IN (SELECT unnest($4::uuid[])) AND account_id NOT IN (SELECT unnest($5::uuid[]))
			AND (account_id NOT IN (SELECT unnest($6::uuid[])) OR channel_id IN (SELECT unnest($7::uuid[])))
			AND NOT EXISTS (SELECT FROM blocked_accounts b WHERE b.account_id = dispatch_chunks.account_id) AND ` + notHeld + `
		ORDER BY vtime LIMIT 1 FOR UPDATE SKIP LOCKED),
	clock AS (
		INSERT INTO lane_clocks (lane, channel_type, vtime) SELECT $1, channel_type, vtime FROM next
		ON CONFLICT (lane, channel_type) DO UPDATE SET vtime = greatest(lane_clocks.vtime, excluded.vtime))
	UPDATE dispatch_chunks SET state = 'leased', epoch = epoch + 1, lease_until = now() + $3::interval
	WHERE id = (SELECT id FROM next)
	RETURNING ` + chunkColumns

// ClaimChunk leases the ready chunk whose turn it is, of the channel types given and
// nothing that is to be skipped; nil if there is none.
func (s *Store) ClaimChunk(ctx context.Context, lane string, types []string, skip Skip, lease time.Duration) (*Chunk, error) {
	rows, err := s.db.Query(ctx, claimChunk, lane, types, interval(lease), texts(skip.Channels), texts(skip.Accounts), texts(skip.Fresh), texts(skip.Known))
	if err != nil {
		return nil, fmt.Errorf("claim chunk: %w", err)
	}
	return optional(pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[Chunk]))
}

// ExtendChunks keeps the leases of chunks that are in work; lost ones are left to the gate.
func (s *Store) ExtendChunks(ctx context.Context, list []*Chunk, lease time.Duration) error {
	if len(list) == 0 {
		return nil
	}
	ids, epochs := make([]string, len(list)), make([]int64, len(list))
	for i, c := range list {
		ids[i], epochs[i] = c.ID, c.Epoch
	}
	_, err := s.db.Exec(ctx, `
		UPDATE dispatch_chunks d SET lease_until = now() + $3::interval
		FROM unnest($1::uuid[], $2::bigint[]) AS held (id, epoch) WHERE d.id = held.id AND d.epoch = held.epoch`, ids, epochs, interval(lease))
	if err != nil {
		return fmt.Errorf("extend leases: %w", err)
	}
	return nil
}

// SetAside moves called messages of a chunk into one of their own, which is leased and
// called whole: the first goes on without them. aside has its id and its messages; the rest
// is the first one's. Doing it twice is doing it once. ErrFenced says that the lease of
// from is lost.
func (s *Store) SetAside(ctx context.Context, from, aside *Chunk, lease time.Duration) error {
	return s.db.InTx(ctx, []string{from.AccountID}, func(tx *pg.Tx) error {
		tag, err := tx.Exec(ctx, `
			INSERT INTO dispatch_chunks (id, account_id, channel_id, channel_type, group_message_id, lane, n, message_ids, first_created_at, last_created_at,
				calling_upto, created_at, by_type, traceparent, vtime, not_before, state, epoch, lease_until)
			SELECT $3, account_id, channel_id, channel_type, group_message_id, lane, $5, $4, first_created_at, last_created_at,
				$5, created_at, by_type, traceparent, vtime, not_before, 'leased', $6, now() + $7::interval
			FROM dispatch_chunks WHERE id = $1 AND epoch = $2 FOR UPDATE
			ON CONFLICT (id) DO NOTHING`, from.ID, from.Epoch, aside.ID, aside.MessageIDs, len(aside.MessageIDs), aside.Epoch, interval(lease))
		if err != nil {
			return fmt.Errorf("set calls aside: %w", err)
		}
		if tag.RowsAffected() == 0 {
			var done bool
			if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM dispatch_chunks WHERE id = $1)", aside.ID).Scan(&done); err != nil || done {
				return err
			}
			return ErrFenced
		}
		_, err = tx.Exec(ctx, `
			UPDATE messages SET chunk_id = $5, ordinal = array_position($1::uuid[], id) - 1
			WHERE id = ANY ($1::uuid[]) AND created_at >= $2 AND created_at <= $3 AND account_id = $4 AND chunk_id = $6 AND status IN ('queued', 'failed')`,
			aside.MessageIDs, from.First, from.Last, from.AccountID, aside.ID, from.ID)
		if err != nil {
			return fmt.Errorf("set called messages aside: %w", err)
		}
		return nil
	})
}

// ChunkMessage is what dispatch needs of a message.
type ChunkMessage struct {
	ID        string
	ContactID string
	Address   string
	Values    messaging.Values `db:"vars"`
	// Subject, Body and HTML are the text of a single message; those of a send are
	// rendered from its snapshot.
	Subject   string
	Body      *string
	HTML      string
	NotAfter  *time.Time
	Attempts  int32
	Ordinal   int
	CreatedAt time.Time
}

// ChunkMessages returns the chunk's messages from ordinal `from` on that are
// still to be sent, by ordinal.
func (s *Store) ChunkMessages(ctx context.Context, c *Chunk, from int) ([]ChunkMessage, error) {
	return pg.Read(ctx, s.db, []string{c.AccountID}, func(rows pgx.Rows) ([]ChunkMessage, error) {
		return pgx.CollectRows(rows, pgx.RowToStructByName[ChunkMessage])
	}, `
		SELECT id, coalesce(contact_id::text, '') AS contact_id, delivery_address AS address, vars, coalesce(subject, '') AS subject,
			message_body AS body, coalesce(html_body, '') AS html, not_after, attempts, ordinal, created_at
		FROM messages
		WHERE id = ANY ($1::uuid[]) AND created_at >= $2 AND created_at <= $3 AND account_id = $4 AND chunk_id = $5 AND status IN ('queued', 'failed')
		ORDER BY ordinal`, c.MessageIDs[from:], c.First, c.Last, c.AccountID, c.ID)
}

// Gate is what one passage of the gate found.
type Gate struct {
	// Open says that the messages up to the asked ordinal may be called.
	Open bool
	// Suppressed are the addresses of the window, by their keys, that must not be
	// written to.
	Suppressed map[string]bool
	// Withdrawn are the messages of the window that got another fate since the chunk
	// was read.
	Withdrawn map[string]bool
}

// passGateSQL is the one statement of decision E4. The lease is moved only when
// a third of it is gone, so that most passages touch no index.
const passGateSQL = `
	UPDATE dispatch_chunks SET calling_upto = $3,
		lease_until = CASE WHEN lease_until < now() + $5::interval * 2 / 3 THEN now() + $5::interval ELSE lease_until END
	WHERE id = $1 AND epoch = $2 AND state = 'leased'
	AND EXISTS (SELECT 1 FROM channels c WHERE c.account_id = $7 AND c.id = $6 AND c.send_epoch = $4 AND c.is_enabled
		AND (c.circuit_probe = $1 OR c.circuit_until IS NULL AND c.status <> 'error')
		AND (c.paused_until IS NULL OR c.paused_until <= now()))
	AND NOT EXISTS (SELECT FROM blocked_accounts b WHERE b.account_id = $7) AND ` + notHeld + `
	AND (group_message_id IS NULL OR EXISTS (SELECT 1 FROM group_messages g WHERE g.account_id = $7 AND g.id = group_message_id AND g.status = 'processing'))
	RETURNING withdrawn`

// PassGate writes the outcomes of the window before and lets the next one start,
// up to ordinal upto, in one transaction; only while the lease is the caller's, the
// channel is as it was seen at sendEpoch and may send, and the send is not
// cancelled. The outcomes are written also where the gate stays closed.
func (s *Store) PassGate(ctx context.Context, c *Chunk, upto int, sendEpoch int64, lease time.Duration, keys []string, outcomes []messaging.Outcome) (Gate, error) {
	var g Gate
	var withdrawn bool
	step := &pgx.Batch{}
	step.Queue(passGateSQL, c.ID, c.Epoch, upto, sendEpoch, interval(lease), c.ChannelID, c.AccountID).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&withdrawn)
		g.Open = err == nil
		return ignore(err, pgx.ErrNoRows)
	})
	step.Queue(selectSuppressed, c.AccountID, c.ChannelType, keys).Query(func(rows pgx.Rows) (err error) {
		g.Suppressed, err = collectSet(rows)
		return err
	})
	if err := s.storeWindow(ctx, step, c, outcomes); err != nil {
		return Gate{}, fmt.Errorf("pass the gate: %w", err)
	}
	if withdrawn { // and from here on no message of the window is: they count as called
		var err error
		if g.Withdrawn, err = s.withdrawnFrom(ctx, c, c.MessageIDs[min(c.CallingUpto, upto):upto]); err != nil {
			return Gate{}, err
		}
	}
	if g.Open {
		c.CallingUpto = upto
	}
	return g, nil
}

// storeWindow stores the outcomes of a window after step, in one transaction.
func (s *Store) storeWindow(ctx context.Context, step *pgx.Batch, c *Chunk, outcomes []messaging.Outcome) error {
	if plain(outcomes) {
		return s.storeSentOnly(ctx, step, c, outcomes)
	}
	return s.db.InTx(ctx, []string{c.AccountID}, func(tx *pg.Tx) error { return storeOutcomes(ctx, tx, step, c, outcomes, counts{}) })
}

// withdrawnFrom finds the messages among ids that are not to be sent any more.
func (s *Store) withdrawnFrom(ctx context.Context, c *Chunk, ids []string) (map[string]bool, error) {
	set, err := pg.Read(ctx, s.db, []string{c.AccountID}, collectSet, `
		SELECT id::text FROM messages
		WHERE id = ANY ($1::uuid[]) AND created_at >= $2 AND created_at <= $3 AND account_id = $4
			AND (chunk_id IS DISTINCT FROM $5 OR status NOT IN ('queued', 'failed'))`, ids, c.First, c.Last, c.AccountID, c.ID)
	if err != nil {
		return nil, fmt.Errorf("read withdrawn messages: %w", err)
	}
	return set, nil
}

func collectSet(rows pgx.Rows) (map[string]bool, error) {
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	set := make(map[string]bool, len(found))
	for _, v := range found {
		set[v] = true
	}
	return set, err
}

// Rest says what becomes of the messages that a chunk has not called.
type Rest struct {
	// Status is cancelled or permanently_failed (with Code); empty leaves them
	// ready, for whoever claims the chunk after Delay.
	Status string
	Code   string
	Delay  time.Duration
	// Held leaves them until the time that HoldChannel or PutOff gave the chunk.
	Held bool
	// Gone says that none is left to send: the others were cancelled or given up one
	// by one.
	Gone bool
}

// EndChunk writes the last outcomes and lets go of the chunk. A chunk without
// messages to send is gone.
func (s *Store) EndChunk(ctx context.Context, c *Chunk, outcomes []messaging.Outcome, rest Rest) error {
	if c.GroupMessageID != "" && rest == (Rest{}) && c.CallingUpto == len(c.MessageIDs) && len(outcomes) > 0 && plain(outcomes) {
		left, ended, err := s.endSent(ctx, c, outcomes)
		if err != nil || ended && len(left) == 0 {
			return err
		}
		outcomes = left
	}
	var fenced bool
	step := &pgx.Batch{}
	queueLetGo(step, c, rest, &fenced)
	if c.GroupMessageID == "" && rest.Status == "" {
		return s.storeWindow(ctx, step, c, outcomes) // there is no send to close
	}
	return s.db.InTx(ctx, []string{c.AccountID}, func(tx *pg.Tx) error {
		if rest.Status == "" {
			return storeOutcomes(ctx, tx, step, c, outcomes, counts{})
		}
		if err := tx.SendBatch(ctx, step).Close(); err != nil {
			return fmt.Errorf("let go of the chunk: %w", err)
		}
		var settled counts
		if !fenced {
			var err error
			if settled, err = settleRest(ctx, tx, c, rest); err != nil {
				return err
			}
		}
		return storeOutcomes(ctx, tx, &pgx.Batch{}, c, outcomes, settled)
	})
}

// queueLetGo ends the caller's lease on the chunk; fenced says that it was lost before. How
// far it has called is for the caller to say: a gate whose answer got lost was passed in the
// database alone.
func queueLetGo(step *pgx.Batch, c *Chunk, rest Rest, fenced *bool) {
	sql, args := "DELETE FROM dispatch_chunks WHERE id = $1 AND epoch = $2", []any{c.ID, c.Epoch}
	if rest.Status == "" && !rest.Gone && c.CallingUpto < len(c.MessageIDs) {
		sql = `UPDATE dispatch_chunks SET state = 'ready', lease_until = NULL, not_before = greatest(now() + $3::interval, CASE WHEN $5 THEN not_before END),
			calling_upto = $4 WHERE id = $1 AND epoch = $2`
		args = append(args, interval(rest.Delay), c.CallingUpto, rest.Held)
	}
	step.Queue(sql, args...).Exec(func(tag pgconn.CommandTag) error {
		*fenced = tag.RowsAffected() == 0
		return nil
	})
}

// settleRest gives what was not called its final state.
func settleRest(ctx context.Context, tx *pg.Tx, c *Chunk, rest Rest) (counts, error) {
	tag, err := tx.Exec(ctx, `
		UPDATE messages SET status = $6, error_code = nullif($7, ''), failed_at = CASE WHEN $6 = 'permanently_failed' THEN $8::timestamptz END, updated_at = $8
		WHERE id = ANY ($1::uuid[]) AND created_at >= $2 AND created_at <= $3 AND account_id = $4 AND chunk_id = $5 AND status IN ('queued', 'failed')`,
		c.MessageIDs[c.CallingUpto:], c.First, c.Last, c.AccountID, c.ID, rest.Status, rest.Code, tx.Now)
	if err != nil {
		return counts{}, fmt.Errorf("settle the rest of the chunk: %w", err)
	}
	n := int32(tag.RowsAffected())
	if rest.Status == messaging.MessageCancelled {
		return counts{cancelled: n}, nil
	}
	return counts{failed: n}, nil
}

// Work is what a claimed chunk is to be sent with.
type Work struct {
	// Channel is nil if it was deleted.
	Channel *messaging.Channel
	// Cancelled says that the send was cancelled, Ended that each of its recipients has
	// an outcome.
	Cancelled, Ended bool
	// Blocked says that the account must not send now, or nobody (Hold).
	Blocked bool
	// Snapshot is the send's text; nil for single messages.
	Snapshot *messaging.Snapshot
}

// ChunkWork reads the channel and the send of a chunk, in one round trip.
func (s *Store) ChunkWork(ctx context.Context, c *Chunk) (Work, error) {
	var w Work
	step := &pgx.Batch{}
	step.Queue("SELECT "+channelColumns+" FROM channels WHERE account_id = $1 AND id = $2", c.AccountID, c.ChannelID).Query(func(rows pgx.Rows) (err error) {
		w.Channel, err = optional(pg.One[messaging.Channel](pgx.ErrNoRows)(rows))
		return err
	})
	step.Queue("SELECT EXISTS (SELECT FROM blocked_accounts WHERE account_id = $1) OR NOT "+notHeld, c.AccountID).QueryRow(func(row pgx.Row) error {
		return row.Scan(&w.Blocked)
	})
	if c.GroupMessageID != "" {
		step.Queue("SELECT "+groupColumns+" FROM group_messages WHERE account_id = $1 AND id = $2", c.AccountID, c.GroupMessageID).Query(w.readSend)
	}
	if err := s.db.InBatch(ctx, []string{c.AccountID}, step); err != nil {
		return Work{}, fmt.Errorf("read what a chunk is sent with: %w", err)
	}
	return w, nil
}

func (w *Work) readSend(rows pgx.Rows) error {
	g, err := pg.One[messaging.GroupMessage](errGroupMessage)(rows)
	if err != nil {
		return err
	}
	w.Cancelled, w.Snapshot = g.Status == messaging.GroupCancelled, g.Snapshot
	w.Ended = !w.Cancelled && g.Final()
	return nil
}
