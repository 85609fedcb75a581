package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	eventv1 "github.com/turumba/turumba/gen/turumba/event/v1"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

const (
	// maxSingles is the most single messages of one chunk: a window, so that a batch
	// takes turns with other work.
	maxSingles = 64
	// batchStep is how much later than the one before it a chunk of a batch stands in
	// the lane: what others send meanwhile comes in between.
	batchStep = 100 * time.Millisecond
)

// CreateMessages stores queued single messages of one account, their chunks in the
// transactional lane and their events. It gives them their ids and times; they
// must have a channel of the account. QUOTA_EXCEEDED when the account may not send as
// many today.
func (s *Store) CreateMessages(ctx context.Context, tx *pg.Tx, list []*messaging.Message, q messaging.Quotas) error {
	if len(list) == 0 {
		return nil
	}
	created := tx.Now.Truncate(time.Millisecond)
	for i, id := range messaging.IDsAt(created, 0, len(list)) {
		list[i].ID, list[i].CreatedAt, list[i].UpdatedAt = id, created, tx.Now
	}
	chunks, places := chunkSingles(list, created)
	if err := insertSingles(ctx, tx, list, places); err != nil {
		return err
	}
	if err := insertSingleChunks(ctx, tx, chunks); err != nil {
		return err
	}
	if err := insertExpiries(ctx, tx, list); err != nil {
		return err
	}
	events := make([]*eventv1.Event, 0, len(list)+len(chunks))
	for _, m := range list {
		events = append(events, messageEvent(ctx, tx, m, ""))
	}
	for _, c := range chunks {
		events = append(events, chunkEvent(ctx, tx, c))
	}
	if err := outbox.Append(ctx, tx, events...); err != nil {
		return err
	}
	// Last, since others of the account may wait for it until the commit.
	return MessageQuota(q).Take(ctx, tx, list[0].AccountID, int64(len(list)))
}

// messageEvent tells of a single message in its state; ids only.
func messageEvent(ctx context.Context, tx *pg.Tx, m *messaging.Message, previous string) *eventv1.Event {
	data := map[string]string{"id": m.ID, "account_id": m.AccountID, "channel_id": m.ChannelID, "status": m.Status}
	for key, v := range map[string]string{"contact_id": m.ContactID, "template_id": m.TemplateID, "group_message_id": m.GroupMessageID, "previous_status": previous} {
		if v != "" {
			data[key] = v
		}
	}
	return newEvent(ctx, tx, "message."+m.Status, "message", m.ID, m.AccountID, data)
}

// place is where a message stands: its chunk and its ordinal there.
type place struct {
	chunk   string
	ordinal int
}

// singleKey is what the single messages of a chunk have in common.
type singleKey struct {
	channelID string
	byType    bool
}

// chunkSingles puts messages into chunks by channel, in their order.
func chunkSingles(list []*messaging.Message, created time.Time) (chunks []*Chunk, places []place) {
	open := map[singleKey]*Chunk{}
	places = make([]place, len(list))
	for i, m := range list {
		key := singleKey{m.ChannelID, m.ByType}
		c := open[key]
		if c == nil || len(c.MessageIDs) == maxSingles {
			c = &Chunk{
				ID: messaging.NewID(), AccountID: m.AccountID, ChannelID: m.ChannelID, ChannelType: m.ChannelType, Lane: LaneTransactional,
				First: created, Last: created, ByType: m.ByType,
			}
			open[key] = c
			chunks = append(chunks, c)
		}
		places[i] = place{c.ID, len(c.MessageIDs)}
		c.MessageIDs = append(c.MessageIDs, m.ID)
	}
	return chunks, places
}

func insertSingles(ctx context.Context, tx *pg.Tx, list []*messaging.Message, places []place) error {
	batch := &pgx.Batch{}
	for i, m := range list {
		var vars []byte
		if m.Values != nil {
			vars = m.Values.AppendJSON(nil)
		}
		batch.Queue(`
			INSERT INTO messages (id, account_id, channel_id, contact_id, template_id, chunk_id, ordinal, direction, status, delivery_address,
				vars, subject, message_body, html_body, not_after, metadata, sent_by_user_id, created_at, updated_at, by_type)
			VALUES ($1, $2, $3, nullif($4, '')::uuid, nullif($5, '')::uuid, $6, $7, $8, $9, $10,
				$11, nullif($12, ''), $13, nullif($14, ''), $15, $16, nullif($17, '')::uuid, $18, $19, $20)`,
			m.ID, m.AccountID, m.ChannelID, m.ContactID, m.TemplateID, places[i].chunk, places[i].ordinal, m.Direction, m.Status, m.DeliveryAddress,
			vars, m.Subject, m.Body, m.HTML, m.NotAfter, m.Metadata, m.SentByUserID, m.CreatedAt, m.UpdatedAt, m.ByType)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("insert messages: %w", err)
	}
	return nil
}

// insertSingleChunks stores ready chunks by the time they came: unlike bulk, whose
// turns are counted per account, no row here is shared by all creates of an account,
// so that they need not wait for each other's commit.
func insertSingleChunks(ctx context.Context, tx *pg.Tx, chunks []*Chunk) error {
	batch := &pgx.Batch{}
	for i, c := range chunks {
		batch.Queue(`
			INSERT INTO dispatch_chunks (id, account_id, channel_id, channel_type, lane, n, message_ids,
				first_created_at, last_created_at, not_before, vtime, created_at, by_type)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now(), (extract(epoch FROM now()) * 1000000)::bigint + $10, $11, $12)`,
			c.ID, c.AccountID, c.ChannelID, c.ChannelType, c.Lane, len(c.MessageIDs), c.MessageIDs, c.First, c.Last,
			(time.Duration(i) * batchStep).Microseconds(), tx.Now, c.ByType)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("insert chunks: %w", err)
	}
	return nil
}

func insertExpiries(ctx context.Context, tx *pg.Tx, list []*messaging.Message) error {
	var ids, accounts []string
	var times []time.Time
	for _, m := range list {
		if m.NotAfter != nil {
			ids, accounts, times = append(ids, m.ID), append(accounts, m.AccountID), append(times, *m.NotAfter)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO message_expiries (message_id, account_id, expires_at)
		SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) ON CONFLICT DO NOTHING`, ids, accounts, times)
	if err != nil {
		return fmt.Errorf("insert expiries: %w", err)
	}
	return nil
}

// ChannelsFor returns the channels of the account that are named, and the enabled
// ones of the types.
func (s *Store) ChannelsFor(ctx context.Context, accountID string, ids, types []string) ([]*messaging.Channel, error) {
	return pg.Read(ctx, s.db, []string{accountID}, pg.All[messaging.Channel],
		"SELECT "+channelColumns+" FROM channels WHERE account_id = $1 AND (id = ANY ($2::uuid[]) OR is_enabled AND channel_type = ANY ($3))",
		accountID, texts(ids), texts(types))
}

// TemplatesFor returns the templates of the account that are named.
func (s *Store) TemplatesFor(ctx context.Context, accountID string, ids []string) ([]*messaging.Template, error) {
	return pg.Read(ctx, s.db, []string{accountID}, pg.All[messaging.Template],
		"SELECT "+templateColumns+" FROM templates WHERE account_id = $1 AND id = ANY ($2::uuid[])", accountID, texts(ids))
}
