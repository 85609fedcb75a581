package pg_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/idempotency"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
)

// TestRewriteAnswers: answers that hold a text are altered, those of others and those
// that hold none are not, and a key answers what is left.
func TestRewriteAnswers(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, pg.IdempotencyMigrations()).OpenAt(t, pg.RoleWorker, clock.System())
	answer := func(owner, key, text string) string {
		ctx := idempotency.With(t.Context(), &idempotency.Request{Method: "/s/Create", Key: key, Hash: []byte("h")})
		err := db.InTx(ctx, nil, func(tx *pg.Tx) error {
			if err := tx.Idempotent(ctx, owner); err != nil {
				return err
			}
			return tx.Respond(ctx, wrapperspb.String(text))
		})
		if err == nil {
			return text
		}
		var replay *pg.ReplayError
		require.ErrorAs(t, err, &replay)
		stored := &wrapperspb.StringValue{}
		require.NoError(t, replay.Response.UnmarshalTo(stored))
		return stored.GetValue()
	}
	answer("a", "ada", "to Ada-Ünal@example.org")
	answer("a", "bob", "to bob@example.org")
	answer("a", "kept", "to ada-ünal@example.org, which is kept")
	answer("b", "ada", "to ada-Ünal@example.org")
	require.NoError(t, db.InTx(t.Context(), nil, func(tx *pg.Tx) error {
		return tx.RewriteAnswers(t.Context(), "a", []string{"nobody", "ada-Ünal@EXAMPLE.org"}, func(m proto.Message) bool {
			v, ok := m.(*wrapperspb.StringValue)
			if !ok || strings.Contains(v.GetValue(), "kept") {
				return false
			}
			v.Value = "erased"
			return true
		})
	}))
	require.Equal(t, "erased", answer("a", "ada", ""))
	require.Equal(t, "to bob@example.org", answer("a", "bob", ""))
	require.Equal(t, "to ada-ünal@example.org, which is kept", answer("a", "kept", ""))
	require.Equal(t, "to ada-Ünal@example.org", answer("b", "ada", ""))
}
