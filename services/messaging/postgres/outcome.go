package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// storeOutcomes writes what became of called messages, and then the counters of
// their send, from the rows that really changed. A message that has its final
// state already stays as it is. step holds statements that go before, in the same
// round trip.
func storeOutcomes(ctx context.Context, tx *pg.Tx, step *pgx.Batch, c *Chunk, outcomes []messaging.Outcome, extra counts) error {
	sent, other := splitSent(outcomes)
	if err := storeSent(ctx, tx, step, c, sent, &extra); err != nil {
		return err
	}
	if err := storeOthers(ctx, tx, c, other, &extra); err != nil {
		return err
	}
	if err := forgetExpiries(ctx, tx, outcomes); err != nil {
		return err
	}
	return count(ctx, tx, c.AccountID, c.GroupMessageID, extra)
}

// storeSentOnly is storeOutcomes for outcomes that are plain, in one round trip with step.
// Closing the send, which takes an event, is left to the end of the chunk.
func (s *Store) storeSentOnly(ctx context.Context, step *pgx.Batch, c *Chunk, sent []messaging.Outcome) error {
	stored := new(int)
	if len(sent) > 0 {
		stored = queueCounted(step, c, newSentColumns(sent), s.db.Now())
	}
	if err := s.db.InBatch(ctx, []string{c.AccountID}, step); err != nil || *stored == len(sent) {
		return err
	}
	return s.db.InTx(ctx, []string{c.AccountID}, func(tx *pg.Tx) error { return storeOutcomes(ctx, tx, &pgx.Batch{}, c, sent, counts{}) })
}

// plain reports whether all were sent and nobody watches over their time.
func plain(outcomes []messaging.Outcome) bool {
	return !slices.ContainsFunc(outcomes, func(o messaging.Outcome) bool { return o.Status != messaging.MessageSent || o.Expiring })
}

// splitSent divides outcomes; mostly all were sent.
func splitSent(outcomes []messaging.Outcome) (sent, other []messaging.Outcome) {
	notSent := func(o messaging.Outcome) bool { return o.Status != messaging.MessageSent }
	if !slices.ContainsFunc(outcomes, notSent) {
		return outcomes, nil
	}
	for _, o := range outcomes {
		if notSent(o) {
			other = append(other, o)
		} else {
			sent = append(sent, o)
		}
	}
	return sent, other
}

// forgetExpiries lets nobody watch any more over messages that have their outcome.
func forgetExpiries(ctx context.Context, tx *pg.Tx, outcomes []messaging.Outcome) error {
	var ids []string
	for _, o := range outcomes {
		if o.Expiring && (o.Status == messaging.MessageSent || o.Status == messaging.MessagePermanentlyFailed) {
			ids = append(ids, o.MessageID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, "DELETE FROM message_expiries WHERE message_id = ANY ($1::uuid[])", ids); err != nil {
		return fmt.Errorf("forget expiries: %w", err)
	}
	return nil
}

// sentColumns are sent messages as the arguments of one statement.
type sentColumns struct {
	ids []string
	// refs are the provider's names for them by their ordinals, from this one on. To look
	// for each id among all of them cost a sixth of the update.
	refs    []string
	ordinal int
	// refsType is name[] where the names fit into it: its elements are all as long, so that
	// each row finds its own at once, while text[] is walked through.
	refsType string
}

// maxName is the longest text that name holds, in bytes.
const maxName = 63

func newSentColumns(sent []messaging.Outcome) sentColumns {
	first, last := sent[0].Ordinal, sent[0].Ordinal
	for _, o := range sent {
		first, last = min(first, o.Ordinal), max(last, o.Ordinal)
	}
	s := sentColumns{ids: make([]string, len(sent)), refs: make([]string, last-first+1), ordinal: first, refsType: "name[]"}
	for i, o := range sent {
		s.ids[i], s.refs[o.Ordinal-first] = o.MessageID, o.ProviderID
		if len(o.ProviderID) > maxName {
			s.refsType = "text[]"
		}
	}
	return s
}

// sql stores that the messages were sent. Those that lie side by side in the primary key
// are found by its first and last one, which costs a tenth less than each by itself.
func (s sentColumns) sql(c *Chunk) string {
	found := "id = ANY (@ids::uuid[])"
	if messaging.AreInRow(s.ids) {
		found = "id BETWEEN @from AND @to"
	}
	return `
	UPDATE ` + partitionOf(c.First, c.Last) + ` SET status = 'sent', sent_at = @now, updated_at = @now, attempts = attempts + 1, channel_id = @channel,
		provider_message_id = (@refs::` + s.refsType + `)[ordinal - @ordinal + 1]::text,
		error_code = NULL, error_provider = NULL, error_text = NULL, failed_at = NULL
	WHERE created_at >= @first AND created_at <= @last AND account_id = @account AND chunk_id = @chunk AND status IN ('queued', 'failed') AND ` + found
}

func (s sentColumns) args(c *Chunk, now time.Time) pgx.NamedArgs {
	return pgx.NamedArgs{
		"account": c.AccountID, "channel": c.ChannelID, "group": c.GroupMessageID, "chunk": c.ID, "epoch": c.Epoch, "first": c.First, "last": c.Last, "now": now,
		"ids": s.ids, "from": s.ids[0], "to": s.ids[len(s.ids)-1], "refs": s.refs, "ordinal": s.ordinal,
	}
}

// queueSent lets a batch store what was sent; how many messages that changed is known
// afterwards.
func queueSent(step *pgx.Batch, c *Chunk, sent sentColumns, now time.Time) (stored *int) {
	stored = new(int)
	step.Queue(sent.sql(c), sent.args(c, now)).Exec(func(tag pgconn.CommandTag) error {
		*stored = int(tag.RowsAffected())
		return nil
	})
	return stored
}

// queueCounted is queueSent that counts the messages too, last of all, if they are of a send.
func queueCounted(step *pgx.Batch, c *Chunk, sent sentColumns, now time.Time) (stored *int) {
	if c.GroupMessageID == "" {
		return queueSent(step, c, sent, now)
	}
	stored = new(int)
	step.Queue(sent.counted(c)+" SELECT sent FROM counted", sent.args(c, now)).QueryRow(func(row pgx.Row) error { return row.Scan(stored) })
	return stored
}

// counted stores that messages of a send were sent, and counts them.
func (s sentColumns) counted(c *Chunk) string {
	return "WITH stored AS (" + s.sql(c) + ` RETURNING 1), n AS (SELECT count(*)::int AS sent FROM stored),
	counted AS (
		UPDATE group_messages SET pending_count = pending_count - n.sent, sent_count = sent_count + n.sent, updated_at = @now
		FROM n WHERE account_id = @account AND id = @group
		RETURNING n.sent, fanout_done AND pending_count = 0 AS last)`
}

// endSent is the end of a called chunk of a send, in one round trip, unless the send ends
// with it: then the chunk stays, because whoever takes it over must close the send. left are
// outcomes that were not stored so.
func (s *Store) endSent(ctx context.Context, c *Chunk, sent []messaging.Outcome) (left []messaging.Outcome, ended bool, err error) {
	var stored int
	var last bool
	columns, step := newSentColumns(sent), &pgx.Batch{}
	step.Queue("SELECT FROM dispatch_chunks WHERE id = $1 AND epoch = $2 FOR UPDATE", c.ID, c.Epoch) // before the send's row, as everywhere
	step.Queue(columns.counted(c)+`,
		gone AS (DELETE FROM dispatch_chunks USING counted WHERE NOT last AND dispatch_chunks.id = @chunk AND epoch = @epoch)
	SELECT sent, last FROM counted`, columns.args(c, s.db.Now())).QueryRow(func(row pgx.Row) error { return row.Scan(&stored, &last) })
	if err := s.db.InBatch(ctx, []string{c.AccountID}, step); err != nil {
		return sent, false, fmt.Errorf("end a chunk: %w", err)
	}
	if stored < len(sent) {
		left = sent
	}
	return left, !last, nil
}

// storeSent runs step with what was sent at its end.
func storeSent(ctx context.Context, tx *pg.Tx, step *pgx.Batch, c *Chunk, list []messaging.Outcome, n *counts) error {
	var sent sentColumns
	stored := new(int)
	if len(list) > 0 {
		sent = newSentColumns(list)
		stored = queueSent(step, c, sent, tx.Now)
	}
	if step.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, step).Close(); err != nil {
		return fmt.Errorf("store sent messages: %w", err)
	}
	n.sent += int32(*stored)
	if *stored == len(list) {
		return nil
	}
	return lift(ctx, tx, c, sent, n)
}

// lift corrects messages that were given up as unknown and turn out to be sent:
// the caller was taken for dead and was not.
func lift(ctx context.Context, tx *pg.Tx, c *Chunk, sent sentColumns, n *counts) error {
	rows, err := tx.Query(ctx, `
		UPDATE messages SET status = 'sent', sent_at = @now, updated_at = @now, provider_message_id = (@refs::text[])[ordinal - @ordinal + 1],
			error_code = NULL, error_provider = NULL, error_text = NULL, failed_at = NULL
		WHERE id = ANY (@ids::uuid[]) AND created_at >= @first AND created_at <= @last AND account_id = @account AND chunk_id = @chunk
			AND status = 'permanently_failed' AND error_code = 'outcome_unknown'
		RETURNING id, status, attempts`, sent.args(c, tx.Now))
	if err != nil {
		return fmt.Errorf("lift unknown messages: %w", err)
	}
	lifted, err := pgx.CollectRows(rows, pgx.RowToStructByName[changed])
	if err != nil {
		return fmt.Errorf("lift unknown messages: %w", err)
	}
	n.lifted += int32(len(lifted))
	late := make(map[string]messaging.Outcome, len(lifted))
	for _, m := range lifted {
		late[m.ID] = messaging.Outcome{Attempt: "reversal", Class: channel.ClassOK.String()}
	}
	return insertAttempts(ctx, tx, c, lifted, late)
}

// changed is a row that an outcome changed.
type changed struct {
	ID       string
	Status   string
	Attempts int32
}

func storeOthers(ctx context.Context, tx *pg.Tx, c *Chunk, list []messaging.Outcome, n *counts) error {
	if len(list) == 0 {
		return nil
	}
	byID := make(map[string]messaging.Outcome, len(list))
	a := newOutcomeColumns(len(list))
	for _, o := range list {
		byID[o.MessageID] = o
		a.add(o)
	}
	// A message that is to be tried again leaves the chunk: what stays in it
	// without a result is unknown.
	rows, err := tx.Query(ctx, `
		UPDATE messages SET
			status = ($6::text[])[array_position($1::uuid[], id)],
			error_code = ($7::text[])[array_position($1::uuid[], id)],
			error_provider = CASE WHEN ($14::bool[])[array_position($1::uuid[], id)] THEN error_provider ELSE nullif(($8::text[])[array_position($1::uuid[], id)], '') END,
			error_text = CASE WHEN ($14::bool[])[array_position($1::uuid[], id)] THEN error_text ELSE nullif(($9::text[])[array_position($1::uuid[], id)], '') END,
			provider_message_id = nullif(($10::text[])[array_position($1::uuid[], id)], ''),
			attempts = attempts + ($11::int[])[array_position($1::uuid[], id)],
			failed_at = CASE WHEN ($6::text[])[array_position($1::uuid[], id)] = 'queued' THEN failed_at ELSE $12 END,
			chunk_id = CASE WHEN ($6::text[])[array_position($1::uuid[], id)] IN ('queued', 'failed') THEN NULL ELSE chunk_id END,
			channel_id = $13, updated_at = $12
		WHERE id = ANY ($1::uuid[]) AND created_at >= $2 AND created_at <= $3 AND account_id = $4 AND chunk_id = $5 AND status IN ('queued', 'failed')
		RETURNING id, status, attempts`,
		a.ids, c.First, c.Last, c.AccountID, c.ID, a.statuses, a.codes, a.providers, a.texts, a.refs, a.used, tx.Now, c.ChannelID, a.wordless)
	if err != nil {
		return fmt.Errorf("store outcomes: %w", err)
	}
	done, err := pgx.CollectRows(rows, pgx.RowToStructByName[changed])
	if err != nil {
		return fmt.Errorf("store outcomes: %w", err)
	}
	var optedOut []string
	for _, m := range done {
		o := byID[m.ID]
		if m.Status == messaging.MessagePermanentlyFailed {
			n.failed++
			if o.Unknown() {
				n.unknown++
			}
		}
		if o.Attempt != "" && o.Class == channel.ClassOptedOut.String() {
			optedOut = append(optedOut, m.ID)
		}
	}
	if err := suppress(ctx, tx, c, optedOut); err != nil {
		return err
	}
	if err := insertAttempts(ctx, tx, c, done, byID); err != nil {
		return err
	}
	return insertDue(ctx, tx, c, done, byID)
}

// outcomeColumns are outcomes as the arrays of one statement.
type outcomeColumns struct {
	ids, statuses, codes, providers, texts, refs []string
	used                                         []int32
	wordless                                     []bool
}

func newOutcomeColumns(n int) *outcomeColumns {
	make1 := func() []string { return make([]string, 0, n) }
	return &outcomeColumns{make1(), make1(), make1(), make1(), make1(), make1(), make([]int32, 0, n), make([]bool, 0, n)}
}

func (a *outcomeColumns) add(o messaging.Outcome) {
	a.ids, a.statuses, a.codes = append(a.ids, o.MessageID), append(a.statuses, o.Status), append(a.codes, o.Code)
	a.providers, a.texts, a.refs = append(a.providers, o.ProviderCode), append(a.texts, o.Text), append(a.refs, o.ProviderID)
	var used int32
	if o.Attempt != "" {
		used = 1
	}
	a.used, a.wordless = append(a.used, used), append(a.wordless, o.Wordless())
}

// insertAttempts keeps a row of each attempt that was not a plain success.
func insertAttempts(ctx context.Context, tx *pg.Tx, c *Chunk, done []changed, byID map[string]messaging.Outcome) error {
	var a outcomeColumns
	var classes, outcomes []string
	for _, m := range done {
		o := byID[m.ID]
		if o.Attempt == "" {
			continue
		}
		a.ids, a.used, a.codes, a.texts = append(a.ids, m.ID), append(a.used, m.Attempts), append(a.codes, o.ProviderCode), append(a.texts, o.Text)
		outcomes, classes = append(outcomes, o.Attempt), append(classes, o.Class)
	}
	if len(a.ids) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO message_attempts (account_id, message_id, attempt, outcome, class, code, text, created_at)
		SELECT $1, id, attempt, outcome, class, code, text, $2
		FROM unnest($3::uuid[], $4::int[], $5::text[], $6::text[], $7::text[], $8::text[]) AS n (id, attempt, outcome, class, code, text)`,
		c.AccountID, tx.Now, a.ids, a.used, outcomes, classes, a.codes, a.texts)
	if err != nil {
		return fmt.Errorf("insert attempts: %w", err)
	}
	return nil
}

// insertDue lets messages wait for their next attempt; those of a cancelled send, which have
// none, only until a worker meets them.
func insertDue(ctx context.Context, tx *pg.Tx, c *Chunk, done []changed, byID map[string]messaging.Outcome) error {
	var ids, waits []string
	for _, m := range done {
		if m.Status == messaging.MessageFailed || m.Status == messaging.MessageQueued {
			ids, waits = append(ids, m.ID), append(waits, interval(byID[m.ID].RetryIn))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO message_due (message_id, account_id, channel_id, channel_type, group_message_id, lane, by_type, due_at)
		SELECT id, $1, $2, $3, nullif($4, '')::uuid, $5, $6, now() + CASE WHEN cancelled THEN '0' ELSE wait END::interval
		FROM unnest($7::uuid[], $8::text[]) AS n (id, wait),
			(SELECT EXISTS (SELECT FROM group_messages WHERE account_id = $1 AND id = nullif($4, '')::uuid AND status = 'cancelled')) AS send (cancelled)`,
		c.AccountID, c.ChannelID, c.ChannelType, c.GroupMessageID, c.Lane, c.ByType, ids, waits)
	if err != nil {
		return fmt.Errorf("insert due messages: %w", err)
	}
	return nil
}
