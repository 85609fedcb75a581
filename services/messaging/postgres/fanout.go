package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	eventv1 "github.com/turumba/turumba/gen/turumba/event/v1"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/services/messaging"
)

// The lanes of dispatch.
const (
	LaneBulk          = "bulk"
	LaneTransactional = "transactional"
)

const (
	// MaxChunk is the largest number of messages of one chunk.
	MaxChunk = 500
	// MaxBatch is how many messages of a send one transaction writes at most.
	MaxBatch = 1000
)

var (
	// ErrFenced says that the lease was lost and somebody else goes on with the work.
	ErrFenced = jobs.ErrFenced
	// ErrStopped says that the send is not processing any more.
	ErrStopped = errors.New("the send was stopped")
)

// FanoutJob is a send whose recipients are being written, leased to the caller.
type FanoutJob struct {
	GroupMessageID string
	AccountID      string
	// Cursor is the last contact that was handled; empty at the start.
	Cursor string
	// AddressCursor is the last recipient given by address that was handled; of a resend,
	// the last failed message.
	AddressCursor string
	Epoch         int64
	// Traceparent is the trace of what queued the send; empty for none.
	Traceparent string
}

// ClaimFanout leases a due job, the one that waits longest; nil if there is none.
func (s *Store) ClaimFanout(ctx context.Context, lease time.Duration) (*FanoutJob, error) {
	rows, err := s.db.Pool().Query(ctx, `
		UPDATE fanout_jobs SET epoch = epoch + 1, lease_until = now() + $1::interval
		WHERE group_message_id = (
			SELECT group_message_id FROM fanout_jobs
			WHERE not_before <= now() AND (lease_until IS NULL OR lease_until < now())
				AND NOT EXISTS (SELECT FROM blocked_accounts b WHERE b.account_id = fanout_jobs.account_id)
			ORDER BY not_before LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING group_message_id, account_id, coalesce(cursor::text, '') AS cursor, coalesce(address_cursor::text, '') AS address_cursor,
			epoch, traceparent`, interval(lease))
	if err != nil {
		return nil, fmt.Errorf("claim fan-out job: %w", err)
	}
	return optional(pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[FanoutJob]))
}

// optional turns "no row" into nil.
func optional[T any](v *T, err error) (*T, error) {
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return v, err
}

// Fanout is a send in the making.
type Fanout struct {
	Job         FanoutJob
	Group       *messaging.GroupMessage
	ChannelType string
	Provider    string
	// CountryCode is the channel's, for numbers without one.
	CountryCode string
	// Limited says that the channel has a rate limit.
	Limited bool
	subject string // the channel's own subject line
	lease   time.Duration
}

// StartFanout brings the send to `processing` with a snapshot of its template,
// or finds how far it is. A send that cannot start fails with its reason. The
// result is nil when there is nothing to do any more.
func (s *Store) StartFanout(ctx context.Context, job FanoutJob, lease time.Duration) (*Fanout, error) {
	f := &Fanout{Job: job, lease: lease}
	done := false
	err := s.db.InTx(ctx, []string{job.AccountID}, func(tx *pg.Tx) error {
		if err := extendFanout(ctx, tx, job, lease); err != nil {
			return err
		}
		g, err := lockGroup(ctx, tx, []string{job.AccountID}, job.GroupMessageID)
		if errors.Is(err, errGroupMessage) {
			done = true
			if err := deleteFanout(ctx, tx, job); err != nil {
				return err
			}
			return settleCharge(ctx, tx, job)
		}
		if err != nil {
			return err
		}
		f.Group = g
		err = readChannel(ctx, tx, f)
		if errors.Is(err, errChannel) && g.Status == messaging.GroupQueued {
			done = true
			return failFanout(ctx, tx, f, "the channel does not exist any more")
		}
		if err != nil && !errors.Is(err, errChannel) {
			return err
		}
		if g.Status == messaging.GroupQueued {
			done, err = beginFanout(ctx, tx, f)
			return err
		}
		if g.Status == messaging.GroupProcessing && !g.FanoutDone {
			return nil
		}
		done = true
		return endFanout(ctx, tx, f)
	})
	if err != nil {
		return nil, err
	}
	if done {
		return nil, nil
	}
	return f, nil
}

func readChannel(ctx context.Context, tx *pg.Tx, f *Fanout) error {
	rows, err := tx.Query(ctx, "SELECT "+channelColumns+" FROM channels WHERE account_id = $1 AND id = $2", f.Group.AccountID, f.Group.ChannelID)
	if err != nil {
		return fmt.Errorf("read the send's channel: %w", err)
	}
	c, err := pg.One[messaging.Channel](errChannel)(rows)
	if err != nil {
		return err
	}
	f.ChannelType, f.Provider, f.CountryCode = c.ChannelType, c.Provider, c.DefaultCountryCode
	f.subject, f.Limited = c.SubjectTemplate(), c.RateLimit != nil
	return nil
}

// beginFanout takes the snapshot, unless the send is a resend, which has that of the old
// one; started_at is a whole millisecond because it is the time inside the ids of the
// send's messages.
func beginFanout(ctx context.Context, tx *pg.Tx, f *Fanout) (failed bool, err error) {
	g := f.Group
	if g.Snapshot == nil {
		g.Snapshot, err = takeSnapshot(ctx, tx, f)
	}
	if errors.Is(err, errTemplate) {
		return true, failFanout(ctx, tx, f, "the template does not exist any more")
	}
	if err != nil {
		return false, err
	}
	if err := keepFiles(ctx, tx, g); err != nil {
		return false, err
	}
	started := tx.Now.Truncate(time.Millisecond)
	g.StartedAt, g.Status = &started, messaging.GroupProcessing
	_, err = tx.Exec(ctx, `
		UPDATE group_messages SET status = $3, snapshot = $4, started_at = $5, updated_at = $6
		WHERE account_id = $1 AND id = $2`, g.AccountID, g.ID, g.Status, g.Snapshot, started, tx.Now)
	if err != nil {
		return false, fmt.Errorf("start group message: %w", err)
	}
	return false, groupEvent(ctx, tx, g, "group_message.processing", messaging.GroupQueued)
}

// takeSnapshot reads the send's template, with the channel's subject line where it has
// none, so that its variables get values too.
func takeSnapshot(ctx context.Context, tx *pg.Tx, f *Fanout) (*messaging.Snapshot, error) {
	rows, err := tx.Query(ctx, "SELECT "+templateColumns+" FROM templates WHERE account_id = $1 AND id = $2", f.Group.AccountID, f.Group.TemplateID)
	if err != nil {
		return nil, fmt.Errorf("read the send's template: %w", err)
	}
	t, err := pg.One[messaging.Template](errTemplate)(rows)
	if err != nil {
		return nil, err
	}
	snapshot := t.Snapshot().WithSubject(f.subject)
	snapshot.Attachments, err = attachmentsOf(ctx, tx, f.Group.AccountID, t.ID)
	return &snapshot, err
}

const extendFanoutSQL = `
	UPDATE fanout_jobs SET cursor = nullif($3, '')::uuid, address_cursor = nullif($4, '')::uuid, lease_until = now() + $5::interval
	WHERE group_message_id = $1 AND epoch = $2`

func extendFanout(ctx context.Context, tx *pg.Tx, job FanoutJob, lease time.Duration) error {
	tag, err := tx.Exec(ctx, extendFanoutSQL, job.GroupMessageID, job.Epoch, job.Cursor, job.AddressCursor, interval(lease))
	if err != nil {
		return fmt.Errorf("extend fan-out lease: %w", err)
	}
	return otherwise(tag, ErrFenced)
}

// FanoutBatch is a stretch of a send's recipients, in order of their ids.
type FanoutBatch struct {
	// Cursor is the last contact that is handled after the stretch, AddressCursor the
	// last recipient given by address.
	Cursor, AddressCursor string
	// Messages are at most MaxBatch.
	Messages []messaging.Addressee
	// Skips are the recipients left out.
	Skips []messaging.Skip
}

// Handed is a chunk that was born in work, with its messages.
type Handed struct {
	*Chunk
	Messages []ChunkMessage
}

// WriteFanout writes a stretch: messages, their chunks, the skipped, the cursor
// and the counters, or nothing. It returns ErrFenced or ErrStopped when the
// caller must let go of the send. With a lease the chunks are born in work and
// handed to the caller, unless others are ready before them (decision E4).
func (s *Store) WriteFanout(ctx context.Context, f *Fanout, b FanoutBatch, lease time.Duration) ([]*Handed, error) {
	var handed []*Handed
	err := s.db.InTx(ctx, []string{f.Job.AccountID}, func(tx *pg.Tx) error {
		step := &pgx.Batch{}
		queueCursors(step, f, b)
		var chunks []*Handed
		for list := range slices.Chunk(b.Messages, MaxChunk) {
			chunks = append(chunks, queueMessages(step, tx, f, len(chunks)*MaxChunk, list, lease))
		}
		queueSkips(step, tx, f.Group, b.Skips)
		queueTotals(step, tx, f, b)
		if err := tx.SendBatch(ctx, step).Close(); err != nil {
			return fmt.Errorf("write recipients: %w", err)
		}
		handed = nil
		var events []*eventv1.Event
		for _, c := range chunks {
			if c.Epoch == 0 {
				events = append(events, chunkEvent(ctx, tx, c.Chunk))
				continue
			}
			c.Traceparent = telemetry.Traceparent(ctx)
			handed = append(handed, c)
		}
		return outbox.Append(ctx, tx, events...)
	})
	if err != nil {
		return nil, err
	}
	f.Group.Total += int32(len(b.Messages))
	return handed, nil
}

// queueCursors notes how far the fan-out is, while the job is the caller's.
func queueCursors(step *pgx.Batch, f *Fanout, b FanoutBatch) {
	step.Queue(extendFanoutSQL, f.Job.GroupMessageID, f.Job.Epoch, b.Cursor, b.AddressCursor, interval(f.lease)).Exec(func(tag pgconn.CommandTag) error {
		return otherwise(tag, ErrFenced)
	})
}

// otherwise is the error where a statement changed nothing.
func otherwise(tag pgconn.CommandTag, err error) error {
	if tag.RowsAffected() == 0 {
		return err
	}
	return nil
}

// queueMessages writes messages and their chunk, whose epoch is known afterwards. The
// stretch has `before` messages before them.
func queueMessages(step *pgx.Batch, tx *pg.Tx, f *Fanout, before int, list []messaging.Addressee, lease time.Duration) *Handed {
	g, n := f.Group, len(list)
	c := &Chunk{
		ID: messaging.NewID(), AccountID: g.AccountID, ChannelID: g.ChannelID, ChannelType: f.ChannelType, GroupMessageID: g.ID, Lane: LaneBulk,
		MessageIDs: messaging.IDsAt(*g.StartedAt, int(g.Total)+before, n), First: *g.StartedAt, Last: *g.StartedAt,
	}
	contacts, addresses := make(pg.Nullable, n), make([]string, n)
	for i := range list {
		contacts[i], addresses[i] = list[i].ContactID, list[i].Address
	}
	step.Queue(`
		INSERT INTO `+partitionOf(*g.StartedAt, *g.StartedAt)+` (id, account_id, channel_id, contact_id, group_message_id, template_id, chunk_id, ordinal, status,
			delivery_address, vars, sent_by_user_id, created_at, updated_at)
		SELECT id, $1, $2, contact_id, $3, $4, $5, ordinal - 1, 'queued', address, vars, nullif($6, '')::uuid, $7, $8
		FROM unnest($9::uuid[], $10::uuid[], $11::text[], $12::json[]) WITH ORDINALITY AS n (id, contact_id, address, vars, ordinal)`,
		g.AccountID, g.ChannelID, g.ID, g.TemplateID, c.ID, g.CreatedByUserID, *g.StartedAt, tx.Now, c.MessageIDs, contacts, addresses, valuesOf(list))
	queueAddresses(step, c, addresses)
	if lease == 0 {
		step.Queue(insertReadyChunk, c.args(tx, 0)...)
	} else {
		step.Queue(insertBornChunk, c.args(tx, lease)...).QueryRow(func(row pgx.Row) error { return row.Scan(&c.Epoch) })
	}
	return &Handed{Chunk: c, Messages: chunkMessages(c, list)}
}

// valuesOf are the values of messages as JSON, parts of one text.
func valuesOf(list []messaging.Addressee) []string {
	var all []byte
	ends := make([]int, len(list))
	for i := range list {
		all = list[i].Values.AppendJSON(all)
		if ends[i] = len(all); i == 0 {
			all = slices.Grow(all, len(all)*len(list)) // most are as long
		}
	}
	text, out, from := string(all), make([]string, len(list)), 0
	for i, end := range ends {
		out[i], from = text[from:end], end
	}
	return out
}

// chunkMessages are the messages of a chunk as ChunkMessages reads them.
func chunkMessages(c *Chunk, list []messaging.Addressee) []ChunkMessage {
	out := make([]ChunkMessage, len(list))
	for i := range list {
		m := &list[i]
		out[i] = ChunkMessage{ID: c.MessageIDs[i], ContactID: m.ContactID, Address: m.Address, Values: m.Values, Ordinal: i, CreatedAt: c.First}
	}
	return out
}

func queueSkips(step *pgx.Batch, tx *pg.Tx, g *messaging.GroupMessage, skips []messaging.Skip) {
	if len(skips) == 0 {
		return
	}
	ids, contacts := make([]string, len(skips)), make(pg.Nullable, len(skips))
	addresses, reasons := make([]string, len(skips)), make([]string, len(skips))
	for i, skip := range skips {
		ids[i], contacts[i], addresses[i], reasons[i] = skip.ID, skip.ContactID, skip.Address, skip.Reason
	}
	step.Queue(`
		INSERT INTO group_message_skips (account_id, group_message_id, id, contact_id, delivery_address, reason, created_at)
		SELECT $1, $2, id, contact_id, address, reason, $3
		FROM unnest($4::uuid[], $5::uuid[], $6::text[], $7::text[]) AS n (id, contact_id, address, reason)`,
		g.AccountID, g.ID, tx.Now, ids, contacts, addresses, reasons)
}

// queueTotals counts the recipients, last of all: the send's row is the one that
// others wait for.
func queueTotals(step *pgx.Batch, tx *pg.Tx, f *Fanout, b FanoutBatch) {
	step.Queue(`
		UPDATE group_messages SET total_recipients = total_recipients + $3, pending_count = pending_count + $3,
			skipped_count = skipped_count + $4, updated_at = $5
		WHERE account_id = $1 AND id = $2 AND status = 'processing'`,
		f.Job.AccountID, f.Job.GroupMessageID, len(b.Messages), len(b.Skips), tx.Now).Exec(func(tag pgconn.CommandTag) error {
		return otherwise(tag, ErrStopped)
	})
}

// FinishFanout says that all recipients are written, or that no more will be.
func (s *Store) FinishFanout(ctx context.Context, f *Fanout) error {
	return s.db.InTx(ctx, []string{f.Job.AccountID}, func(tx *pg.Tx) error { return endFanout(ctx, tx, f) })
}

// FailFanout ends a send that cannot reach its recipients.
func (s *Store) FailFanout(ctx context.Context, f *Fanout, message string) error {
	return s.db.InTx(ctx, []string{f.Job.AccountID}, func(tx *pg.Tx) error { return failFanout(ctx, tx, f, message) })
}

func failFanout(ctx context.Context, tx *pg.Tx, f *Fanout, message string) error {
	_, err := tx.Exec(ctx, "UPDATE group_messages SET error_message = $3 WHERE account_id = $1 AND id = $2", f.Job.AccountID, f.Job.GroupMessageID, message)
	if err != nil {
		return fmt.Errorf("note why the send failed: %w", err)
	}
	return endFanout(ctx, tx, f)
}

func endFanout(ctx context.Context, tx *pg.Tx, f *Fanout) error {
	if err := deleteFanout(ctx, tx, f.Job); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "UPDATE group_messages SET fanout_done = true WHERE account_id = $1 AND id = $2", f.Job.AccountID, f.Job.GroupMessageID)
	if err != nil {
		return fmt.Errorf("end fan-out: %w", err)
	}
	if err := deleteRecipients(ctx, tx, f.Job.AccountID, f.Job.GroupMessageID); err != nil {
		return err
	}
	if err := count(ctx, tx, f.Job.AccountID, f.Job.GroupMessageID, counts{}); err != nil {
		return err
	}
	return settleCharge(ctx, tx, f.Job)
}

func deleteFanout(ctx context.Context, tx *pg.Tx, job FanoutJob) error {
	tag, err := tx.Exec(ctx, "DELETE FROM fanout_jobs WHERE group_message_id = $1 AND epoch = $2", job.GroupMessageID, job.Epoch)
	if err != nil {
		return fmt.Errorf("delete fan-out job: %w", err)
	}
	return otherwise(tag, ErrFenced)
}

// SentAddresses returns the addresses that the send has messages for, so that a
// fan-out that goes on knows the duplicates.
func (s *Store) SentAddresses(ctx context.Context, g *messaging.GroupMessage) ([]string, error) {
	return pg.Read(ctx, s.db, []string{g.AccountID}, func(rows pgx.Rows) ([]string, error) { return pgx.CollectRows(rows, pgx.RowTo[string]) },
		"SELECT delivery_address FROM messages WHERE account_id = $1 AND group_message_id = $2 AND created_at = $3", g.AccountID, g.ID, g.StartedAt)
}

// ExtendFanout keeps the lease of a job that makes progress without writing; ErrFenced
// says that it is lost.
func (s *Store) ExtendFanout(ctx context.Context, job *FanoutJob, lease time.Duration) error {
	tag, err := s.db.Pool().Exec(ctx, "UPDATE fanout_jobs SET lease_until = now() + $3::interval WHERE group_message_id = $1 AND epoch = $2",
		job.GroupMessageID, job.Epoch, interval(lease))
	if err != nil {
		return fmt.Errorf("extend fan-out lease: %w", err)
	}
	return otherwise(tag, ErrFenced)
}

// ReleaseFanout gives a job back, to be claimed again after the delay.
func (s *Store) ReleaseFanout(ctx context.Context, job *FanoutJob, delay time.Duration) error {
	_, err := s.db.Pool().Exec(ctx, `
		UPDATE fanout_jobs SET lease_until = NULL, not_before = now() + $3::interval
		WHERE group_message_id = $1 AND epoch = $2`, job.GroupMessageID, job.Epoch, interval(delay))
	if err != nil {
		return fmt.Errorf("release fan-out job: %w", err)
	}
	return nil
}
