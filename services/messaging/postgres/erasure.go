package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
)

const erasureColumns = `id, account_id, coalesce(message_id::text, '') AS message_id, coalesce(contact_id::text, '') AS contact_id, delivery_address,
	status, erased_count, waiting_count, coalesce(created_by_user_id::text, '') AS created_by_user_id,
	coalesce(created_by_api_key_id::text, '') AS created_by_api_key_id, created_at, completed_at`

var errErasure = apierr.NotFound("message erasure")

func erasureSpec(tokenKey []byte) (*query.Spec, error) {
	return query.SpecFor((&messagingv1.MessageErasure{}).ProtoReflect().Descriptor(), query.Table{
		From: "message_erasures", Select: []string{erasureColumns}, TokenKey: tokenKey,
	})
}

// CreateErasure stores an erasure of a person's messages and leaves the work to the
// worker.
func (s *Store) CreateErasure(ctx context.Context, tx *pg.Tx, e *messaging.Erasure) error {
	e.Status, e.CreatedAt = messaging.ErasureRunning, tx.Now
	if err := insertErasure(ctx, tx, e); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "INSERT INTO erasure_jobs (erasure_id, account_id, not_before) VALUES ($1, $2, $3)", e.ID, e.AccountID, tx.Now.Add(messaging.ErasureDelay))
	if err != nil {
		return fmt.Errorf("insert erasure job: %w", err)
	}
	return nil
}

func insertErasure(ctx context.Context, tx *pg.Tx, e *messaging.Erasure) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO message_erasures (id, account_id, message_id, contact_id, delivery_address, status, erased_count,
			created_by_user_id, created_by_api_key_id, created_at, completed_at)
		VALUES ($1, $2, nullif($3, '')::uuid, nullif($4, '')::uuid, $5, $6, $7, nullif($8, '')::uuid, nullif($9, '')::uuid, $10, $11)`,
		e.ID, e.AccountID, e.MessageID, e.ContactID, e.Address, e.Status, e.Erased, e.CreatedByUserID, e.CreatedByAPIKeyID, e.CreatedAt, e.CompletedAt)
	if err != nil {
		return fmt.Errorf("insert message erasure: %w", err)
	}
	return nil
}

// MessageAccount returns the account of a message of the scope, deleted or not.
func (s *Store) MessageAccount(ctx context.Context, scope []string, id string) (string, error) {
	account, err := pg.Read(ctx, s.db, scope, func(rows pgx.Rows) (string, error) { return pgx.CollectExactlyOneRow(rows, pgx.RowTo[string]) },
		"SELECT account_id::text FROM messages WHERE account_id = ANY ($1::uuid[]) AND id = $2 AND created_at = uuid7_time($2)", scope, id)
	return account, pg.NoRows(err, errMessage)
}

// EraseMessage erases one message of the erasure's account, and stores the erasure, which
// is thereby done. It returns what is left of the message.
func (s *Store) EraseMessage(ctx context.Context, tx *pg.Tx, e *messaging.Erasure) (*messaging.Message, error) {
	const read = "SELECT " + messageColumns + " FROM messages WHERE account_id = $1 AND id = $2 AND created_at = uuid7_time($2) FOR UPDATE"
	m, err := lockOne[messaging.Message](ctx, tx, errMessage, read, e.AccountID, e.MessageID)
	if err != nil {
		return nil, err
	}
	if err := m.MayErase(); err != nil {
		return nil, err
	}
	erased, err := eraseMessages(ctx, tx, m.AccountID, []string{m.ID}, true)
	if err != nil {
		return nil, err
	}
	err = eraseAnswers(ctx, tx, m.AccountID, []string{m.ID}, func(shown *messagingv1.Message) bool { return shown.GetId() == m.ID })
	if err != nil {
		return nil, err
	}
	e.Erased, e.Status, e.CreatedAt, e.CompletedAt = int32(len(erased)), messaging.ErasureCompleted, tx.Now, &tx.Now
	if err := insertErasure(ctx, tx, e); err != nil {
		return nil, err
	}
	return lockOne[messaging.Message](ctx, tx, errMessage, read, e.AccountID, e.MessageID)
}

// Erasure returns one erasure of the scope.
func (s *Store) Erasure(ctx context.Context, scope []string, id string) (*messaging.Erasure, error) {
	return pg.Read(ctx, s.db, scope, pg.One[messaging.Erasure](errErasure),
		"SELECT "+erasureColumns+" FROM message_erasures WHERE account_id = ANY ($1::uuid[]) AND id = $2", scope, id)
}

// Erasures returns a page of the scope's erasures.
func (s *Store) Erasures(ctx context.Context, scope []string, r query.Request) (*query.Page[*messaging.Erasure], error) {
	return list[messaging.Erasure](ctx, s, s.erasures, r, scope)
}

// erasureJob is how far an erasure is. Waits is the first message found that has not
// ended; Waiting is how many there are.
type erasureJob struct {
	ErasureID string
	AccountID string
	Position  string
	Waits     string
	Waiting   int32
}

const jobColumns = "erasure_id::text, account_id::text, position::text, coalesce(waits::text, '') AS waits, waiting"

// wait notes a message, or a place among messages, to look at again.
func (j *erasureJob) wait(id string) {
	if j.Waits == "" || id < j.Waits {
		j.Waits = id
	}
}

// StepErasure goes on with the erasure that has waited longest, by one look at messages,
// and returns how many were erased; worked is false where there was nothing to do.
func (s *Store) StepErasure(ctx context.Context) (erased int, worked bool, err error) {
	rows, err := s.db.Query(ctx, "SELECT "+jobColumns+" FROM erasure_jobs WHERE not_before <= $1 ORDER BY not_before LIMIT 1", s.db.Now())
	if err != nil {
		return 0, false, fmt.Errorf("find an erasure: %w", err)
	}
	found, err := optional(pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[erasureJob]))
	if err != nil || found == nil {
		return 0, false, err
	}
	err = s.db.InTx(ctx, []string{found.AccountID}, func(tx *pg.Tx) error {
		rows, err := tx.Query(ctx, "SELECT "+jobColumns+" FROM erasure_jobs WHERE erasure_id = $1 AND not_before <= $2 FOR UPDATE SKIP LOCKED", found.ErasureID, tx.Now)
		if err != nil {
			return fmt.Errorf("take an erasure: %w", err)
		}
		job, err := optional(pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[erasureJob]))
		if err != nil || job == nil { // another worker has it
			return err
		}
		worked = true
		erased, err = stepErasure(ctx, tx, job)
		return err
	})
	return erased, worked, err
}

func stepErasure(ctx context.Context, tx *pg.Tx, job *erasureJob) (int, error) {
	e, err := lockOne[messaging.Erasure](ctx, tx, errErasure, "SELECT "+erasureColumns+" FROM message_erasures WHERE account_id = $1 AND id = $2", job.AccountID, job.ErasureID)
	if err != nil {
		return 0, err
	}
	if err := awaitFanouts(ctx, tx, job, e); err != nil {
		return 0, err
	}
	s, err := lookAt(ctx, tx, e.AccountID, job.Position, e.CreatedAt, "(contact_id = nullif($5, '')::uuid OR lower(delivery_address) = ANY ($6::text[]))", e.ContactID, e.Forms())
	if err != nil {
		return 0, err
	}
	erased, err := eraseMessages(ctx, tx, e.AccountID, s.hits, true)
	if err != nil {
		return 0, err
	}
	e.Erased += int32(len(erased))
	if err := awaitMessages(ctx, tx, job, s.hits); err != nil {
		return 0, err
	}
	job.Position = s.last
	if s.end && job.Waits == "" {
		return len(erased), completeErasure(ctx, tx, e)
	}
	return len(erased), keepErasure(ctx, tx, job, e, s.end)
}

// awaitFanouts comes back for sends that were being written when the erasure was asked
// for: messages that they have yet to write have the time at which they started.
func awaitFanouts(ctx context.Context, tx *pg.Tx, job *erasureJob, e *messaging.Erasure) error {
	rows, err := tx.Query(ctx, `
		SELECT g.started_at FROM fanout_jobs f JOIN group_messages g ON g.account_id = f.account_id AND g.id = f.group_message_id
		WHERE f.account_id = $1 AND g.started_at <= $2`, e.AccountID, e.CreatedAt)
	if err != nil {
		return fmt.Errorf("find unfinished sends: %w", err)
	}
	started, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return fmt.Errorf("find unfinished sends: %w", err)
	}
	for _, at := range started {
		job.wait(messaging.FirstIDAt(at))
	}
	return nil
}

// awaitMessages comes back for messages that could not be erased because they have not
// ended.
func awaitMessages(ctx context.Context, tx *pg.Tx, job *erasureJob, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		SELECT id::text FROM messages
		WHERE id = ANY ($1::uuid[]) AND created_at >= uuid7_time($2) AND created_at <= uuid7_time($3) AND account_id = $4 AND NOT `+ended,
		ids, slices.Min(ids), slices.Max(ids), job.AccountID)
	if err != nil {
		return fmt.Errorf("find messages that have not ended: %w", err)
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("find messages that have not ended: %w", err)
	}
	for _, id := range left {
		job.wait(id)
	}
	job.Waiting += int32(len(left))
	return nil
}

// keepErasure stores how far the erasure is. At the end of the messages it begins again
// at the first that waits, after a while.
func keepErasure(ctx context.Context, tx *pg.Tx, job *erasureJob, e *messaging.Erasure, end bool) error {
	next := tx.Now
	if end {
		e.Waiting, next = job.Waiting, tx.Now.Add(e.NextLook(tx.Now))
		job.Position, job.Waits, job.Waiting = job.Waits, "", 0
	}
	_, err := tx.Exec(ctx, "UPDATE erasure_jobs SET position = $2, waits = nullif($3, '')::uuid, waiting = $4, not_before = $5 WHERE erasure_id = $1",
		job.ErasureID, job.Position, job.Waits, job.Waiting, next)
	if err != nil {
		return fmt.Errorf("store how far the erasure is: %w", err)
	}
	return updateErasure(ctx, tx, e)
}

// completeErasure erases what is not in messages, and the address that it was about.
func completeErasure(ctx context.Context, tx *pg.Tx, e *messaging.Erasure) error {
	_, err := tx.Exec(ctx, `
		UPDATE group_message_skips SET delivery_address = ''
		WHERE account_id = $1 AND delivery_address <> '' AND (contact_id = nullif($2, '')::uuid OR lower(delivery_address) = ANY ($3::text[]))`,
		e.AccountID, e.ContactID, e.Forms())
	if err != nil {
		return fmt.Errorf("erase among the skipped: %w", err)
	}
	if _, err := tx.Exec(ctx, "DELETE FROM group_message_recipients WHERE account_id = $1 AND lower(address) = ANY ($2::text[])", e.AccountID, e.Forms()); err != nil {
		return fmt.Errorf("erase among recipients: %w", err)
	}
	if _, err := tx.Exec(ctx, "DELETE FROM erasure_jobs WHERE erasure_id = $1", e.ID); err != nil {
		return fmt.Errorf("delete the erasure job: %w", err)
	}
	if err := erasePersonsAnswers(ctx, tx, e); err != nil {
		return err
	}
	e.Status, e.Waiting, e.Address, e.CompletedAt = messaging.ErasureCompleted, 0, "", &tx.Now
	return updateErasure(ctx, tx, e)
}

// erasePersonsAnswers erases the person's messages, and the address that erasures were
// asked for, in the answers that are kept for idempotency keys.
func erasePersonsAnswers(ctx context.Context, tx *pg.Tx, e *messaging.Erasure) error {
	var known []string
	for _, text := range append([]string{e.ContactID}, e.Forms()...) {
		if text != "" {
			known = append(known, text)
		}
	}
	return eraseAnswers(ctx, tx, e.AccountID, known, func(m *messagingv1.Message) bool {
		return !m.GetCreatedAt().AsTime().After(e.CreatedAt) &&
			(e.ContactID != "" && m.GetContactId() == e.ContactID || e.Has(m.GetDeliveryAddress()))
	})
}

func updateErasure(ctx context.Context, tx *pg.Tx, e *messaging.Erasure) error {
	_, err := tx.Exec(ctx, `
		UPDATE message_erasures SET status = $3, delivery_address = $4, erased_count = $5, waiting_count = $6, completed_at = $7
		WHERE account_id = $1 AND id = $2`, e.AccountID, e.ID, e.Status, e.Address, e.Erased, e.Waiting, e.CompletedAt)
	if err != nil {
		return fmt.Errorf("store the message erasure: %w", err)
	}
	return nil
}
