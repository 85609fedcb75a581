package postgres

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/services/messaging"
)

// before are the migrations up to one of them.
func before(t *testing.T, first string) []pg.MigrationSet {
	t.Helper()
	sets := Migrations()
	for i := range sets {
		if sets[i].Name != "messaging" {
			continue
		}
		old := fstest.MapFS{}
		names, err := fs.Glob(sets[i].FS, "*.sql")
		require.NoError(t, err)
		for _, name := range names {
			if name < first {
				data, err := fs.ReadFile(sets[i].FS, name)
				require.NoError(t, err)
				old[name] = &fstest.MapFile{Data: data}
			}
		}
		sets[i].FS = old
	}
	return sets
}

// TestUpgradeOfSuppressions: addresses that opted out before one normaliser read them are
// brought into today's form, none is lost, and an upgrade that was killed goes on.
func TestUpgradeOfSuppressions(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, before(t, "00026")...)
	admin, err := pgx.Connect(t.Context(), d.URL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close(t.Context()) }) // the database goes anyway
	mine, other := messaging.NewID(), messaging.NewID()
	for _, s := range []struct{ account, kind, address string }{
		{mine, "email", "kontakt@m\u00fcnchen.example"},
		{mine, "email", "both@m\u00fcnchen.example"},
		{mine, "email", "both@xn--mnchen-3ya.example"},
		{mine, "email", "plain@x.example"},
		{mine, "sms", "+2510911000130"},
		{mine, "sms", "+251911000131"},
		{mine, "sms", "+251251911000001"}, // no number that anybody has
		{other, "email", "kontakt@m\u00fcnchen.example"},
	} {
		_, err := admin.Exec(t.Context(), "INSERT INTO suppressions (id, account_id, channel_type, address, reason, created_at) VALUES ($1, $2, $3, $4, 'manual', now())", messaging.NewID(), s.account, s.kind, s.address)
		require.NoError(t, err)
	}
	require.NoError(t, pg.Migrate(t.Context(), d.URL, Migrations()...))
	db, err := pg.Open(t.Context(), pg.Config{URL: d.URL, Role: pg.RoleWorker, Name: "rekey"})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	store, err := New(db, make([]byte, 32), func() {})
	require.NoError(t, err)
	done, err := store.RekeySuppressions(t.Context())
	require.NoError(t, err)
	require.Equal(t, 4, done, "what is in today's form is not looked at")
	done, err = store.RekeySuppressions(t.Context())
	require.NoError(t, err)
	require.Zero(t, done)
	rows, err := admin.Query(t.Context(), "SELECT address FROM suppressions WHERE account_id = $1", mine)
	require.NoError(t, err)
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"kontakt@xn--mnchen-3ya.example", "both@xn--mnchen-3ya.example", "plain@x.example", "+251911000130", "+251911000131", "+251251911000001"}, got)
	gone, err := store.Suppressed(t.Context(), other, "email", []string{messaging.AddressKey("email", "Kontakt@M\u00dcNCHEN.example")})
	require.NoError(t, err)
	require.Len(t, gone, 1)
}
