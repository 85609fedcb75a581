package pg_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/embedded"
	"github.com/turumba/turumba/kit/pg/pgtest"
)

// TestWhatTheProductReliesOn: a setting of the embedded server is either set by every
// session of ours, whatever the server says, or the product does not need it, with a reason.
func TestWhatTheProductReliesOn(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t)
	admin, err := pgx.Connect(t.Context(), d.URL)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, admin.Close(t.Context())) })
	for _, statement := range []string{ // of this test's own database
		"jit = on", "timezone = 'Asia/Kolkata'", "synchronous_commit = off", "default_transaction_isolation = serializable",
		"plan_cache_mode = force_generic_plan", "statement_timeout = 0", "lock_timeout = 0", "idle_in_transaction_session_timeout = 0",
	} {
		_, err := admin.Exec(t.Context(), "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET "+quoted(statement)+"', current_database()); END $$")
		require.NoError(t, err, statement)
	}
	for role, db := range map[string]*pg.DB{
		"api": d.Open(t, pg.RoleAPI), "worker": d.Open(t, pg.RoleWorker), "owner": d.Open(t, pg.RoleOwner), "login": d.Open(t, ""),
	} {
		rows, err := db.Query(t.Context(), "SELECT name, setting FROM pg_settings WHERE source IN ('client', 'session')")
		require.NoError(t, err)
		ours := map[string]string{}
		var name, value string
		_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
			ours[name] = value
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, "off", ours["jit"], role)
		require.Equal(t, "read committed", ours["default_transaction_isolation"], role)
		require.Equal(t, "auto", ours["plan_cache_mode"], role)
		require.NotEqual(t, "0", ours["statement_timeout"], role)
		for _, s := range embedded.Settings() {
			value := ours[settingName(s.Name)]
			if s.ServerOnly == "" {
				require.Equal(t, s.Value, value, "%s: the embedded server has %s; set it in kit/pg.setSession, or say why the product works without", role, s.Name)
			} else {
				require.Empty(t, value, "%s: %s is set by sessions and said to be of the server only", role, s.Name)
			}
		}
	}
}

func quoted(s string) string {
	out := ""
	for _, r := range s {
		if r == '\'' {
			out += "'"
		}
		out += string(r)
	}
	return out
}

// settingName is how pg_settings spells a name.
func settingName(name string) string {
	if name == "timezone" {
		return "TimeZone"
	}
	return name
}
