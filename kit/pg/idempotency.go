package pg

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/idempotency"
	"github.com/turumba/turumba/kit/vault"
)

// keyLife is how long an idempotency key is kept.
const keyLife = 24 * time.Hour

//go:embed sql/*.sql
var sqlFiles embed.FS

// IdempotencyMigrations creates the table of idempotency keys; services add it
// to their own migrations.
func IdempotencyMigrations() MigrationSet {
	sub, err := fs.Sub(sqlFiles, "sql")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return MigrationSet{Name: "idempotency", FS: sub}
}

// rowQuerier is a transaction or a DB.
type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// replayKey is the row that holds a response.
type replayKey struct{ owner, method, key string }

// ReplayError is the error with which a transaction ends whose key was used before:
// it carries the response that was stored then.
type ReplayError struct {
	Response *anypb.Any
}

// Error implements error.
func (r *ReplayError) Error() string { return "the request was answered before" }

// ReplayResponse is what the first call answered.
func (r *ReplayError) ReplayResponse() *anypb.Any { return r.Response }

// Idempotent claims the idempotency key of the call for the owner (an account,
// a user, or the hash of an e-mail address; the request's hint when empty).
// Without a key it does nothing; with one, Respond must follow. A
// rival with the same key waits here until this transaction ends. A key that
// was used before ends the transaction: with *ReplayError for the same request, with
// IDEMPOTENCY_KEY_REUSED for another. It must be the first statement.
func (tx *Tx) Idempotent(ctx context.Context, owner string) error {
	req, ok := idempotency.From(ctx)
	if !ok {
		return nil
	}
	if owner == "" {
		owner = req.OwnerHint
	}
	if owner == "" {
		return errors.New("claim the idempotency key: nobody owns it")
	}
	k := &replayKey{owner: owner, method: req.Method, key: req.Key}
	tag, err := tx.Exec(ctx, `
		INSERT INTO idempotency_keys AS k (owner, method, key, request_hash, created_at)
		VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (owner, method, key) DO UPDATE
		SET request_hash = excluded.request_hash, response = NULL, created_at = excluded.created_at
		WHERE k.created_at < $6`,
		k.owner, k.method, k.key, req.Hash, tx.Now, tx.Now.Add(-keyLife))
	if err != nil {
		return fmt.Errorf("claim the idempotency key: %w", err)
	}
	if tag.RowsAffected() == 1 {
		tx.replay = k
		return nil
	}
	return replayed(ctx, tx, tx.vault, k, req.Hash, time.Time{})
}

// Replay ends a call whose idempotency key was used before, with the errors of
// Idempotent; it claims nothing. It is for changes that another store makes before
// Idempotent can be called.
func (db *DB) Replay(ctx context.Context, owner string) error {
	req, ok := idempotency.From(ctx)
	if !ok {
		return nil
	}
	k := &replayKey{owner: owner, method: req.Method, key: req.Key}
	err := replayed(ctx, db, db.vault, k, req.Hash, db.Now().Add(-keyLife))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return translate(ctx, err)
}

// replayed answers a key that was used before, and after since.
func replayed(ctx context.Context, q rowQuerier, v *vault.Vault, k *replayKey, hash []byte, since time.Time) error {
	var storedHash, response []byte
	err := q.QueryRow(ctx, `
		SELECT request_hash, response FROM idempotency_keys
		WHERE owner = $1 AND method = $2 AND key = $3 AND created_at >= $4`, k.owner, k.method, k.key, since).Scan(&storedHash, &response)
	if err != nil {
		return fmt.Errorf("read the idempotency key: %w", err)
	}
	return answeredBefore(v, *k, bytes.Equal(storedHash, hash), response)
}

// answeredBefore is the error of a key that was used before.
func answeredBefore(v *vault.Vault, k replayKey, sameRequest bool, response []byte) error {
	if !sameRequest {
		return apierr.New(errorv1.Reason_REASON_IDEMPOTENCY_KEY_REUSED, "the Idempotency-Key was used with another request")
	}
	stored, err := readAnswer(v, k, response)
	if err != nil {
		return err
	}
	return &ReplayError{Response: stored}
}

// Respond stores the response under the key that Idempotent claimed, in this
// transaction, so that a crash after the commit still answers the same. Without
// a key it does nothing.
func (tx *Tx) Respond(ctx context.Context, m proto.Message) error {
	if tx.replay == nil {
		return nil
	}
	b, err := writeAnswer(tx.vault, *tx.replay, m)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE idempotency_keys SET response = $4 WHERE owner = $1 AND method = $2 AND key = $3`,
		tx.replay.owner, tx.replay.method, tx.replay.key, b)
	if err != nil {
		return fmt.Errorf("store the response: %w", err)
	}
	tx.responded = true
	return nil
}

// purgeLimit is how many keys one statement removes.
const purgeLimit = 10_000

// PurgeIdempotencyKeys removes the keys that are older than 24 hours and returns how
// many it removed.
func (db *DB) PurgeIdempotencyKeys(ctx context.Context) (removed int64, err error) {
	for {
		tag, err := db.Exec(ctx, `
			DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
				SELECT ctid FROM idempotency_keys WHERE created_at < $1 LIMIT $2))`, db.Now().Add(-keyLife), purgeLimit)
		if err != nil {
			return removed, fmt.Errorf("purge idempotency keys: %w", err)
		}
		if removed += tag.RowsAffected(); tag.RowsAffected() < purgeLimit {
			return removed, nil
		}
	}
}
