package pg

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"github.com/turumba/turumba/kit/vault"
)

// storedAnswer is an answer under its key.
type storedAnswer struct {
	Method, Key string
	Response    []byte
}

// RewriteAnswers lets change alter the answers stored for the owner's keys that hold one
// of the texts, in upper or lower case; it reports whether it did. Who uses such a key
// again gets the altered answer. It reads all answers of the owner, which are those of
// about a day.
func (tx *Tx) RewriteAnswers(ctx context.Context, owner string, texts []string, change func(proto.Message) bool) error {
	rows, err := tx.Query(ctx, `
		SELECT method, key, response FROM idempotency_keys
		WHERE owner = $1 AND (`+isSealed+` OR EXISTS (
			SELECT FROM unnest($2::text[]) AS t (part)
			WHERE position(lower(encode(convert_to(t.part, 'UTF8'), 'escape') COLLATE "C") IN lower(encode(response, 'escape') COLLATE "C")) > 0))
		ORDER BY method, key FOR UPDATE`, owner, texts)
	if err != nil {
		return fmt.Errorf("find stored answers: %w", err)
	}
	answers, err := pgx.CollectRows(rows, pgx.RowToStructByName[storedAnswer])
	if err != nil {
		return fmt.Errorf("find stored answers: %w", err)
	}
	for _, a := range answers {
		altered, err := a.alter(tx.vault, owner, texts, change)
		if err != nil {
			return err
		}
		if altered == nil {
			continue
		}
		_, err = tx.Exec(ctx, "UPDATE idempotency_keys SET response = $4 WHERE owner = $1 AND method = $2 AND key = $3", owner, a.Method, a.Key, altered)
		if err != nil {
			return fmt.Errorf("alter a stored answer: %w", err)
		}
	}
	return nil
}

// alter is the answer as change made it; nil where that changed nothing.
func (a storedAnswer) alter(v *vault.Vault, owner string, texts []string, change func(proto.Message) bool) ([]byte, error) {
	k := replayKey{owner, a.Method, a.Key}
	packed, err := readAnswer(v, k, a.Response)
	if err != nil {
		return nil, err
	}
	if !holdsOneOf(packed.GetValue(), texts) { // a sealed one was not searched
		return nil, nil
	}
	m, err := packed.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("read a stored answer: %w", err)
	}
	if !change(m) {
		return nil, nil
	}
	return writeAnswer(v, k, m)
}

// holdsOneOf reports whether b holds one of the texts, in upper or lower case.
func holdsOneOf(b []byte, texts []string) bool {
	b = bytes.ToLower(b)
	return slices.ContainsFunc(texts, func(t string) bool { return bytes.Contains(b, bytes.ToLower([]byte(t))) })
}
