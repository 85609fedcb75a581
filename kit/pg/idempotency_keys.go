package pg

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"github.com/turumba/turumba/kit/vault"
)

// KeyedRequest is one of many requests of a call, with an idempotency key of its own.
type KeyedRequest struct {
	// Key is the caller's key; no other request of the same list has it.
	Key string
	// Hash is the SHA-256 of the request.
	Hash []byte
}

// keyQuerier is a transaction or a DB.
type keyQuerier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// IdempotentKeys claims a key for each request, as Idempotent does for the call: rivals
// wait here. It tells by key what cannot be claimed: *ReplayError for a request that was
// answered before, IDEMPOTENCY_KEY_REUSED for another one. RespondKeys must follow for
// the keys that it claimed.
func (tx *Tx) IdempotentKeys(ctx context.Context, owner, method string, list []KeyedRequest) (map[string]error, error) {
	keys, hashes := columnsOf(list)
	// In the order of the keys, so that rivals with the same ones never wait for each other.
	rows, err := tx.Query(ctx, `
		INSERT INTO idempotency_keys AS k (owner, method, key, request_hash, created_at)
		SELECT $1, $2, r.key, r.hash, $5 FROM unnest($3::text[], $4::bytea[]) AS r (key, hash) ORDER BY r.key
		ON CONFLICT (owner, method, key) DO UPDATE
		SET request_hash = excluded.request_hash, response = NULL, created_at = excluded.created_at
		WHERE k.created_at < $6
		RETURNING key`, owner, method, keys, hashes, tx.Now, tx.Now.Add(-keyLife))
	if err != nil {
		return nil, fmt.Errorf("claim idempotency keys: %w", err)
	}
	claimed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("claim idempotency keys: %w", err)
	}
	if len(claimed) == len(list) {
		return nil, nil
	}
	used, err := usedKeys(ctx, tx, tx.vault, owner, method, list, time.Time{})
	if err != nil {
		return nil, err
	}
	for _, key := range claimed {
		delete(used, key)
	}
	return used, nil
}

// ReplayKeys tells by key which requests have one that was used before, with the errors
// of IdempotentKeys; it claims nothing.
func (db *DB) ReplayKeys(ctx context.Context, owner, method string, list []KeyedRequest) (map[string]error, error) {
	used, err := usedKeys(ctx, db, db.vault, owner, method, list, db.Now().Add(-keyLife))
	return used, translate(ctx, err)
}

// RespondKeys stores the responses under keys that IdempotentKeys claimed, in this
// transaction.
func (tx *Tx) RespondKeys(ctx context.Context, owner, method string, responses map[string]proto.Message) error {
	keys, packed := make([]string, 0, len(responses)), make([][]byte, 0, len(responses))
	for key, m := range responses {
		b, err := writeAnswer(tx.vault, replayKey{owner, method, key}, m)
		if err != nil {
			return err
		}
		keys, packed = append(keys, key), append(packed, b)
	}
	_, err := tx.Exec(ctx, `
		UPDATE idempotency_keys k SET response = r.response FROM unnest($3::text[], $4::bytea[]) AS r (key, response)
		WHERE k.owner = $1 AND k.method = $2 AND k.key = r.key`, owner, method, keys, packed)
	if err != nil {
		return fmt.Errorf("store the responses: %w", err)
	}
	return nil
}

func columnsOf(list []KeyedRequest) (keys []string, hashes [][]byte) {
	for _, r := range list {
		keys, hashes = append(keys, r.Key), append(hashes, r.Hash)
	}
	return keys, hashes
}

// usedKeys are the keys of the list that were used since then, each with what it answers.
func usedKeys(ctx context.Context, q keyQuerier, v *vault.Vault, owner, method string, list []KeyedRequest, since time.Time) (map[string]error, error) {
	keys, hashes := columnsOf(list)
	rows, err := q.Query(ctx, `
		SELECT k.key, k.response, k.request_hash = r.hash
		FROM unnest($3::text[], $4::bytea[]) AS r (key, hash)
		JOIN idempotency_keys k ON k.owner = $1 AND k.method = $2 AND k.key = r.key
		WHERE k.created_at >= $5`, owner, method, keys, hashes, since)
	if err != nil {
		return nil, fmt.Errorf("read idempotency keys: %w", err)
	}
	used := map[string]error{}
	var key string
	var response []byte
	var same bool
	_, err = pgx.ForEachRow(rows, []any{&key, &response, &same}, func() error {
		used[key] = answeredBefore(v, replayKey{owner, method, key}, same, response)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read idempotency keys: %w", err)
	}
	return used, nil
}
