package pg_test

import (
	"bytes"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/idempotency"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/vault"
)

const createKey = "/turumba.account.v1.ApiKeyService/CreateApiKey"

// answers are the kept answers of a database, as it was opened with one vault.
type answers struct {
	t  *testing.T
	db *pg.DB
}

func openAnswers(t *testing.T, d *pgtest.Database, keys ...byte) answers {
	t.Helper()
	cfg := pg.Config{URL: d.URL, Role: pg.RoleAPI, MaxConns: 4}
	raw := make([][]byte, len(keys))
	for i, k := range keys {
		raw[i] = bytes.Repeat([]byte{k}, 32)
	}
	if len(raw) > 0 {
		var err error
		cfg.Vault, err = vault.New(raw[0], raw[1:]...)
		require.NoError(t, err)
	}
	db, err := pg.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	return answers{t, db}
}

// answer makes a call with a key.
func (a answers) answer(key string, m proto.Message) error {
	ctx := idempotency.With(a.t.Context(), &idempotency.Request{Method: createKey, Key: key, Hash: []byte("h")})
	return a.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, "owner"); err != nil {
			return err
		}
		return tx.Respond(ctx, m)
	})
}

// replays asks for the answer of a key, one by one and among many.
func (a answers) replays(key string, want proto.Message) {
	a.t.Helper()
	list := []pg.KeyedRequest{{Key: key, Hash: []byte("h")}}
	used, err := a.db.ReplayKeys(a.t.Context(), "owner", createKey, list)
	require.NoError(a.t, err)
	for _, err := range []error{a.answer(key, want), used[key]} {
		var replay *pg.ReplayError
		require.ErrorAs(a.t, err, &replay)
		got, err := replay.Response.UnmarshalNew()
		require.NoError(a.t, err)
		require.True(a.t, proto.Equal(want, got), "%v", got)
	}
}

// TestAnswersWithSecretsAreSealed: the row holds neither the secret nor what stands beside
// it, the caller gets both again, and a new master key is no matter.
func TestAnswersWithSecretsAreSealed(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, pg.IdempotencyMigrations())
	admin, err := pgxpool.New(t.Context(), d.URL)
	require.NoError(t, err)
	t.Cleanup(admin.Close)
	rows := func() (all string) {
		require.NoError(t, admin.QueryRow(t.Context(), "SELECT string_agg(encode(response, 'escape'), ',') FROM idempotency_keys").Scan(&all))
		return all
	}
	issued := &accountv1.CreateApiKeyResponse{ApiKey: &accountv1.ApiKey{Name: "Ada"}, Secret: "canary"}
	none, old, both, only := openAnswers(t, d), openAnswers(t, d, 1), openAnswers(t, d, 2, 1), openAnswers(t, d, 2)
	require.ErrorContains(t, none.answer("a", issued), "without a vault")
	require.NoError(t, old.answer("a", issued))
	require.NoError(t, old.answer("b", wrapperspb.String("plain")))
	require.NoError(t, old.db.InTx(t.Context(), nil, func(tx *pg.Tx) error {
		list := []pg.KeyedRequest{{Key: "c", Hash: []byte("h")}}
		if _, err := tx.IdempotentKeys(t.Context(), "owner", createKey, list); err != nil {
			return err
		}
		return tx.RespondKeys(t.Context(), "owner", createKey, map[string]proto.Message{"c": issued})
	}))
	require.NotContains(t, rows(), "canary")
	require.NotContains(t, rows(), "Ada")
	require.Contains(t, rows(), "plain")
	old.replays("a", issued)
	both.replays("a", issued)
	both.replays("c", issued)
	none.replays("b", wrapperspb.String("plain"))
	require.ErrorContains(t, none.answer("a", issued), "without a vault")

	// One in clear, as versions before ADR 0042 stored it.
	packed, err := anypb.New(issued)
	require.NoError(t, err)
	b, err := proto.Marshal(packed)
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "INSERT INTO idempotency_keys (owner, method, key, request_hash, response, created_at) VALUES ('owner', $1, 'd', 'h', $2, now())", createKey, b)
	require.NoError(t, err)
	none.replays("d", issued)
	require.Contains(t, rows(), "canary")

	reseal := func(a answers, store bool) (seen, changed, failed int) {
		require.NoError(t, a.db.ResealAnswers(t.Context(), store, func(c bool, err error) error {
			if seen++; err != nil {
				require.ErrorIs(t, err, vault.ErrUnknownKey)
				failed++
			} else if c {
				changed++
			}
			return nil
		}))
		return seen, changed, failed
	}
	counts := func(seen, changed, failed int) []int { return []int{seen, changed, failed} }
	require.Equal(t, []int{3, 3, 0}, counts(reseal(both, false)))
	require.Equal(t, []int{3, 1, 2}, counts(reseal(only, false)))
	require.Equal(t, []int{3, 3, 0}, counts(reseal(both, true)))
	require.Equal(t, []int{3, 0, 0}, counts(reseal(both, true)))
	require.NotContains(t, rows(), "canary")
	for _, key := range []string{"a", "c", "d"} {
		only.replays(key, issued)
	}
	require.ErrorIs(t, old.answer("a", issued), vault.ErrUnknownKey)
}

// TestSealedAnswersAreBound: one that is copied to another key does not open.
func TestSealedAnswersAreBound(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, pg.IdempotencyMigrations())
	a := openAnswers(t, d, 1)
	issued := &accountv1.CreateApiKeyResponse{Secret: "canary"}
	require.NoError(t, a.answer("a", issued))
	require.NoError(t, a.answer("b", issued))
	_, err := a.db.Exec(t.Context(), "UPDATE idempotency_keys k SET response = o.response FROM idempotency_keys o WHERE k.key = 'a' AND o.key = 'b'")
	require.NoError(t, err)
	require.ErrorIs(t, a.answer("a", issued), vault.ErrCorrupt)
	a.replays("b", issued)
}

// TestRewriteSealedAnswers: what is to be erased is erased where it is sealed too.
func TestRewriteSealedAnswers(t *testing.T) {
	t.Parallel()
	a := openAnswers(t, pgtest.New(t, pg.IdempotencyMigrations()), 1)
	of := func(name string) *accountv1.CreateApiKeyResponse {
		return &accountv1.CreateApiKeyResponse{ApiKey: &accountv1.ApiKey{Name: name}, Secret: "canary"}
	}
	require.NoError(t, a.answer("a", of("to ADA@example.org")))
	require.NoError(t, a.answer("b", of("to bob@example.org")))
	require.NoError(t, a.db.InTx(t.Context(), nil, func(tx *pg.Tx) error {
		return tx.RewriteAnswers(t.Context(), "owner", []string{"ada@example.org"}, func(m proto.Message) bool {
			m.(*accountv1.CreateApiKeyResponse).ApiKey.Name = "erased"
			return true
		})
	}))
	a.replays("a", of("erased"))
	a.replays("b", of("to bob@example.org"))
}
