package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

// placed is a message and the chunk it stands in; empty for none.
type placed struct {
	messaging.Message
	ChunkID string
}

// lockMessage reads a message of the scope FOR UPDATE, with its chunk locked
// before it as the gate locks them. Its status is `sending` while it is called;
// otherwise dispatch cannot call it before the transaction ends.
func lockMessage(ctx context.Context, tx *pg.Tx, scope []string, id string) (*placed, error) {
	for {
		m, stands, err := tryLockMessage(ctx, tx, scope, id)
		if err != nil || stands {
			return m, err
		}
	}
}

// tryLockMessage locks inside a savepoint: stands is false, and nothing is locked,
// where the message moved to another chunk meanwhile.
func tryLockMessage(ctx context.Context, tx *pg.Tx, scope []string, id string) (m *placed, stands bool, err error) {
	point, err := tx.Begin(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("set a savepoint: %w", err)
	}
	inner := &pg.Tx{Tx: point, Now: tx.Now}
	var chunkID string
	err = inner.QueryRow(ctx, `
		SELECT coalesce(chunk_id::text, '') FROM messages
		WHERE account_id = ANY ($1::uuid[]) AND id = $2 AND created_at = uuid7_time($2)`, scope, id).Scan(&chunkID)
	if err != nil {
		return nil, false, pg.NoRows(err, errMessage)
	}
	if chunkID != "" {
		if _, err := inner.Exec(ctx, "SELECT 1 FROM dispatch_chunks WHERE id = $1 FOR UPDATE", chunkID); err != nil {
			return nil, false, fmt.Errorf("lock the message's chunk: %w", err)
		}
	}
	m, err = lockOne[placed](ctx, inner, errMessage, "SELECT "+messageColumns+`, coalesce(chunk_id::text, '') AS chunk_id FROM messages
		WHERE account_id = ANY ($1::uuid[]) AND id = $2 AND created_at = uuid7_time($2) AND deleted_at IS NULL FOR UPDATE`, scope, id)
	if err != nil {
		return nil, false, err
	}
	if m.ChunkID != chunkID {
		return nil, false, point.Rollback(ctx)
	}
	return m, true, point.Commit(ctx)
}

// settle gives a waiting message that is locked its final state, counts it, and lets
// a worker that has its chunk know. Beside a code of ours stands what the provider said last.
func settle(ctx context.Context, tx *pg.Tx, m *placed, status, code string) error {
	if code == "" {
		m.ErrorProvider, m.ErrorText = "", ""
	}
	m.Status, m.ErrorCode, m.UpdatedAt = status, code, tx.Now
	n := counts{cancelled: 1}
	if status == messaging.MessagePermanentlyFailed {
		m.FailedAt, n = &tx.Now, counts{failed: 1}
	}
	_, err := tx.Exec(ctx, `
		UPDATE messages SET status = $4, error_code = nullif($5, ''), error_provider = nullif($8, ''), error_text = nullif($9, ''), failed_at = $6, updated_at = $7
		WHERE account_id = $1 AND id = $2 AND created_at = $3`,
		m.AccountID, m.ID, m.CreatedAt, m.Status, m.ErrorCode, m.FailedAt, tx.Now, m.ErrorProvider, m.ErrorText)
	if err != nil {
		return fmt.Errorf("settle the message: %w", err)
	}
	if m.ChunkID != "" {
		if _, err := tx.Exec(ctx, "UPDATE dispatch_chunks SET withdrawn = true WHERE id = $1 AND state = 'leased'", m.ChunkID); err != nil {
			return fmt.Errorf("mark the message's chunk: %w", err)
		}
	}
	err = count(ctx, tx, m.AccountID, m.GroupMessageID, n)
	return err
}

// CancelMessage stops a message that waits. It leaves where it waits by itself: a
// worker finds it with another state.
func (s *Store) CancelMessage(ctx context.Context, tx *pg.Tx, scope []string, id string) (*messaging.Message, error) {
	m, err := lockMessage(ctx, tx, scope, id)
	if err != nil {
		return nil, err
	}
	if err := m.MayCancel(); err != nil {
		return nil, err
	}
	previous := m.Status
	if err := settle(ctx, tx, m, messaging.MessageCancelled, ""); err != nil {
		return nil, err
	}
	return &m.Message, outbox.Append(ctx, tx, messageEvent(ctx, tx, &m.Message, previous))
}

// RetryMessage queues a message that failed for good, and opens its send again.
func (s *Store) RetryMessage(ctx context.Context, tx *pg.Tx, scope []string, id string) (*messaging.Message, error) {
	m, err := lockMessage(ctx, tx, scope, id)
	if err != nil {
		return nil, err
	}
	if err := m.MayRetry(tx.Now); err != nil {
		return nil, err
	}
	unknown := m.ErrorCode == messaging.CodeOutcomeUnknown
	if err := requeue(ctx, tx, m); err != nil {
		return nil, err
	}
	if err := reopen(ctx, tx, m, unknown); err != nil {
		return nil, err
	}
	return &m.Message, outbox.Append(ctx, tx, messageEvent(ctx, tx, &m.Message, messaging.MessagePermanentlyFailed))
}

// requeue lets the message wait with those that are due, on the channel that it had.
func requeue(ctx context.Context, tx *pg.Tx, m *placed) error {
	m.Status, m.ErrorCode, m.ErrorProvider, m.ErrorText, m.FailedAt, m.UpdatedAt = messaging.MessageQueued, "", "", "", nil, tx.Now
	_, err := tx.Exec(ctx, `
		UPDATE messages SET status = 'queued', chunk_id = NULL, error_code = NULL, error_provider = NULL, error_text = NULL, failed_at = NULL, updated_at = $4
		WHERE account_id = $1 AND id = $2 AND created_at = $3`, m.AccountID, m.ID, m.CreatedAt, tx.Now)
	if err != nil {
		return fmt.Errorf("queue the message again: %w", err)
	}
	lane := LaneBulk
	if m.GroupMessageID == "" {
		lane = LaneTransactional
	}
	tag, err := tx.Exec(ctx, `
		INSERT INTO message_due (message_id, account_id, channel_id, channel_type, group_message_id, lane, by_type, due_at)
		SELECT $1, account_id, id, channel_type, nullif($2, '')::uuid, $3,
			(SELECT by_type FROM messages WHERE account_id = $4 AND id = $1 AND created_at = $6), now()
		FROM channels WHERE account_id = $4 AND id = nullif($5, '')::uuid`,
		m.ID, m.GroupMessageID, lane, m.AccountID, m.ChannelID, m.CreatedAt)
	if err != nil {
		return fmt.Errorf("let the message wait for its retry: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return apierr.New(errorv1.Reason_REASON_INVALID_STATE, "the message's channel does not exist any more")
	}
	return insertExpiries(ctx, tx, []*messaging.Message{&m.Message})
}

// reopen makes a failed recipient of a send a pending one.
func reopen(ctx context.Context, tx *pg.Tx, m *placed, unknown bool) error {
	if m.GroupMessageID == "" {
		return nil
	}
	var held int32
	if unknown {
		held = 1
	}
	g := &messaging.GroupMessage{ID: m.GroupMessageID, AccountID: m.AccountID}
	var previous string
	err := tx.QueryRow(ctx, `
		WITH before AS (SELECT id, status FROM group_messages WHERE account_id = $1 AND id = $2 FOR UPDATE)
		UPDATE group_messages g SET pending_count = pending_count + 1, failed_count = failed_count - 1, unknown_count = unknown_count - $3,
			status = 'processing', completed_at = NULL, updated_at = $4
		FROM before WHERE g.account_id = $1 AND g.id = before.id AND before.status <> 'cancelled' AND g.deleted_at IS NULL AND g.body_erased_at IS NULL
		RETURNING before.status, g.status, g.channel_id, g.template_id`, m.AccountID, m.GroupMessageID, held, tx.Now).
		Scan(&previous, &g.Status, &g.ChannelID, &g.TemplateID)
	if errors.Is(err, pgx.ErrNoRows) {
		return apierr.New(errorv1.Reason_REASON_INVALID_STATE, "the message's send was cancelled or deleted, or its text was erased")
	}
	if err != nil {
		return fmt.Errorf("open the send again: %w", err)
	}
	if previous == g.Status {
		return nil
	}
	return groupEvent(ctx, tx, g, "group_message."+g.Status, previous)
}

// DeleteMessage hides a message of the scope that has its outcome.
func (s *Store) DeleteMessage(ctx context.Context, scope []string, id string) error {
	return s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		m, err := lockMessage(ctx, tx, scope, id)
		if err != nil {
			return err
		}
		if err := m.MayDelete(); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE messages SET deleted_at = $4, updated_at = $4 WHERE account_id = $1 AND id = $2 AND created_at = $3", m.AccountID, m.ID, m.CreatedAt, tx.Now)
		if err != nil {
			return fmt.Errorf("delete message: %w", err)
		}
		return nil
	})
}

const (
	// expireLimit is how many messages are given up at a time.
	expireLimit = 500
	// calledCheck is when a message is looked at again that was being called when its
	// time was over.
	calledCheck = 5 * time.Second
)

// expiry is a message whose time is over.
type expiry struct {
	MessageID, AccountID string
}

// ExpireMessages gives up waiting messages whose not_after is over, each in a
// transaction of its own, and returns how many it looked at.
func (s *Store) ExpireMessages(ctx context.Context) (int, error) {
	rows, err := s.db.Query(ctx, "SELECT message_id, account_id FROM message_expiries WHERE expires_at <= now() ORDER BY expires_at LIMIT $1", expireLimit)
	if err != nil {
		return 0, fmt.Errorf("find expired messages: %w", err)
	}
	due, err := pgx.CollectRows(rows, pgx.RowToStructByName[expiry])
	if err != nil {
		return 0, fmt.Errorf("find expired messages: %w", err)
	}
	for _, e := range due {
		if err := s.db.InTx(ctx, []string{e.AccountID}, func(tx *pg.Tx) error { return expire(ctx, tx, e) }); err != nil {
			return 0, err
		}
		jobs.Progress(ctx)
	}
	return len(due), nil
}

func expire(ctx context.Context, tx *pg.Tx, e expiry) error {
	tag, err := tx.Exec(ctx, "DELETE FROM message_expiries WHERE message_id = $1 AND expires_at <= now()", e.MessageID)
	if err != nil {
		return fmt.Errorf("take an expiry: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil // somebody else did it
	}
	m, err := lockMessage(ctx, tx, []string{e.AccountID}, e.MessageID)
	if errors.Is(err, errMessage) {
		return nil
	}
	if err != nil {
		return err
	}
	switch m.Status {
	case messaging.MessageQueued, messaging.MessageFailed:
		if _, err := tx.Exec(ctx, "DELETE FROM message_due WHERE message_id = $1", m.ID); err != nil {
			return fmt.Errorf("take an expired message out of what is due: %w", err)
		}
		return settle(ctx, tx, m, messaging.MessagePermanentlyFailed, messaging.CodeExpired)
	case messaging.MessageSending:
		_, err := tx.Exec(ctx, "INSERT INTO message_expiries (message_id, account_id, expires_at) VALUES ($1, $2, now() + $3::interval)", m.ID, m.AccountID, interval(calledCheck))
		if err != nil {
			return fmt.Errorf("look at a called message again: %w", err)
		}
	}
	return nil
}
