package pg

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/turumba/turumba/kit/secrets"
	"github.com/turumba/turumba/kit/vault"
)

// sealedType stands before the type of an answer that is stored sealed.
const sealedType = "sealed/"

// isSealed is true for rows with a sealed answer: its type is the first that is written.
const isSealed = "position('" + sealedType + "'::bytea IN substring(response FROM 1 FOR 16)) > 0"

// answerAAD is the place of a sealed answer.
func answerAAD(k replayKey) vault.AAD {
	return vault.AAD{Account: k.owner, Resource: k.method, Field: k.key, Version: 1}
}

// writeAnswer is an answer as it is stored: sealed as a whole where a field of it is a
// secret by the contract (ADR 0042), with its type in clear. Who repeats a call of an
// account is not always who made it, so answers with secrets are never an account's.
func writeAnswer(v *vault.Vault, k replayKey, m proto.Message) ([]byte, error) {
	stored, err := anypb.New(m)
	if err != nil {
		return nil, fmt.Errorf("store the response: %w", err)
	}
	if secrets.AnySet(m) {
		if v == nil {
			return nil, errors.New("store the response: it holds a secret, and the database was opened without a vault")
		}
		if uuid.Validate(k.owner) == nil {
			return nil, errors.New("store the response: it holds a secret, and the idempotency key is an account's instead of a person's")
		}
		if stored.Value, err = v.Seal(answerAAD(k), stored.GetValue()); err != nil {
			return nil, fmt.Errorf("store the response: %w", err)
		}
		stored.TypeUrl = sealedType + string(stored.MessageName())
	}
	b, err := proto.Marshal(stored)
	if err != nil {
		return nil, fmt.Errorf("store the response: %w", err)
	}
	return b, nil
}

// readAnswer opens what writeAnswer made.
func readAnswer(v *vault.Vault, k replayKey, b []byte) (*anypb.Any, error) {
	stored := &anypb.Any{}
	if err := proto.Unmarshal(b, stored); err != nil {
		return nil, fmt.Errorf("read the stored response: %w", err)
	}
	if !strings.HasPrefix(stored.GetTypeUrl(), sealedType) {
		return stored, nil
	}
	if v == nil {
		return nil, errors.New("read the stored response: it is sealed, and the database was opened without a vault")
	}
	value, err := v.Open(answerAAD(k), stored.GetValue())
	if err != nil {
		return nil, fmt.Errorf("read the stored response: %w", err)
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(stored.MessageName()), Value: value}, nil
}

// resealAnswer is a stored answer wrapped by the vault's current key, and sealed where an
// earlier version stored it in clear.
func resealAnswer(v *vault.Vault, k replayKey, b []byte) (again []byte, changed bool, err error) {
	stored := &anypb.Any{}
	if err := proto.Unmarshal(b, stored); err != nil {
		return nil, false, fmt.Errorf("read the stored response: %w", err)
	}
	if !strings.HasPrefix(stored.GetTypeUrl(), sealedType) {
		m, err := stored.UnmarshalNew()
		if err != nil || !secrets.AnySet(m) {
			return nil, false, err
		}
		again, err = writeAnswer(v, k, m)
		return again, err == nil, err
	}
	if stored.Value, changed, err = v.Rewrap(answerAAD(k), stored.GetValue()); err != nil || !changed {
		return nil, false, err
	}
	again, err = proto.Marshal(stored)
	return again, err == nil, err
}

// resealPage is how many answers are listed at a time; each has a transaction of its own.
const resealPage = 200

// ResealAnswers wraps the answers with secrets that are kept for idempotency keys by the
// vault's current key, and seals those that an earlier version stored in clear, while
// others use them; without store it only looks. note hears of each answer that is or was
// to be sealed, with vault.ErrUnknownKey or vault.ErrCorrupt for one that does not open;
// its error ends the walk.
func (db *DB) ResealAnswers(ctx context.Context, store bool, note func(changed bool, err error) error) error {
	var after replayKey
	for {
		rows, err := db.Query(ctx, `
			SELECT owner, method, key FROM idempotency_keys
			WHERE (owner, method, key) > ($1, $2, $3) AND (`+isSealed+` OR (response IS NOT NULL AND method = ANY ($4)))
			ORDER BY owner, method, key LIMIT $5`, after.owner, after.method, after.key, methodsWithSecrets(), resealPage)
		if err != nil {
			return fmt.Errorf("list sealed answers: %w", err)
		}
		page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k replayKey, err error) { return k, row.Scan(&k.owner, &k.method, &k.key) })
		if err != nil {
			return fmt.Errorf("list sealed answers: %w", err)
		}
		if len(page) == 0 {
			return nil
		}
		for _, k := range page {
			sealed, changed, err := db.resealOne(ctx, k, store)
			if after = k; !sealed && err == nil {
				continue
			}
			if err := note(changed, err); err != nil {
				return err
			}
		}
	}
}

// resealOne reports whether the answer is one that is sealed, and whether it changed.
func (db *DB) resealOne(ctx context.Context, k replayKey, store bool) (sealed, changed bool, err error) {
	err = db.InTx(ctx, nil, func(tx *Tx) error {
		var b []byte
		err := tx.QueryRow(ctx, `
			SELECT response, `+isSealed+` FROM idempotency_keys
			WHERE owner = $1 AND method = $2 AND key = $3 AND response IS NOT NULL FOR UPDATE`, k.owner, k.method, k.key).Scan(&b, &sealed)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // its day is over
		}
		if err != nil {
			return fmt.Errorf("read a stored answer: %w", err)
		}
		var again []byte
		again, changed, err = resealAnswer(tx.vault, k, b)
		sealed = sealed || changed
		if err != nil || !changed || !store {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE idempotency_keys SET response = $4 WHERE owner = $1 AND method = $2 AND key = $3", k.owner, k.method, k.key, again); err != nil {
			return fmt.Errorf("store an answer: %w", err)
		}
		return nil
	})
	return sealed, changed, err
}

// methodsWithSecrets are the full names of the RPCs whose answers can hold secrets.
func methodsWithSecrets() (out []string) {
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				if md := methods.Get(j); secrets.Possible(md.Output()) {
					out = append(out, fmt.Sprintf("/%s/%s", md.Parent().FullName(), md.Name()))
				}
			}
		}
		return true
	})
	return out
}
