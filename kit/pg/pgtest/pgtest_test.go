package pgtest_test

import (
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
)

// TestDatabasesAreOwn: each test writes into a migrated database of its own,
// which is gone when the test ends.
func TestDatabasesAreOwn(t *testing.T) {
	t.Parallel()
	set := pg.MigrationSet{Name: "notes", FS: fstest.MapFS{"00001_notes.sql": {Data: []byte(`-- +goose Up
CREATE TABLE notes (n int);
GRANT SELECT, INSERT ON notes TO turumba_api;
`)}}}
	var gone string
	t.Run("writes", func(t *testing.T) {
		d := pgtest.New(t, set)
		gone = d.URL
		_, err := d.Open(t, pg.RoleAPI).Exec(t.Context(), "INSERT INTO notes VALUES (1)")
		require.NoError(t, err)
		_, err = d.Open(t, pg.RoleWorker).Exec(t.Context(), "INSERT INTO notes VALUES (1)")
		require.ErrorContains(t, err, "permission denied")
	})
	if gone == "" {
		return // there is no server, which the part above has told
	}
	_, err := pgx.Connect(t.Context(), gone)
	require.ErrorContains(t, err, "does not exist")
	var n int
	require.NoError(t, pgtest.New(t, set).Open(t, pg.RoleAPI).QueryRow(t.Context(), "SELECT count(*) FROM notes").Scan(&n))
	require.Zero(t, n)
}
