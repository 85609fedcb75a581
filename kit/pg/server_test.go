package pg_test

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/embedded"
)

// private starts a server that one test may change and stop.
func private(t *testing.T, dir string) *embedded.Server {
	t.Helper()
	// The server of root may run as another user, who has to pass through.
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o711))
	s, err := embedded.Start(t.Context(), embedded.Options{DataDir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop(context.WithoutCancel(t.Context()))) })
	return s
}

func run(t *testing.T, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	for _, statement := range statements {
		_, err := conn.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	require.NoError(t, conn.Close(t.Context()))
}

// as is the URL with another login.
func as(t *testing.T, rawURL, login string) string {
	t.Helper()
	u, err := url.Parse(rawURL)
	require.NoError(t, err)
	u.User = url.User(login)
	return u.String()
}

// TestMigrateTogether: on a new cluster, processes that migrate two databases at
// once all succeed, with a login that is no superuser.
func TestMigrateTogether(t *testing.T) {
	t.Parallel()
	s := private(t, t.TempDir())
	run(t, s.URL("postgres"), "CREATE ROLE deployer LOGIN CREATEROLE CREATEDB")
	results := make(chan error, 8)
	for i := range cap(results) {
		go func() {
			url := as(t, s.URL([]string{"one", "two"}[i%2]), "deployer")
			err := pg.EnsureDatabase(t.Context(), url)
			if err == nil {
				err = pg.Migrate(t.Context(), url, things, pg.IdempotencyMigrations())
			}
			results <- err
		}()
	}
	for range cap(results) {
		require.NoError(t, <-results)
	}
	conn, err := pgx.Connect(t.Context(), s.URL("two"))
	require.NoError(t, err)
	var tables, extensions int
	require.NoError(t, conn.QueryRow(t.Context(), `
		SELECT (SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tableowner = 'turumba_owner'),
		       (SELECT count(*) FROM pg_extension WHERE extname IN ('pg_trgm', 'citext'))`).Scan(&tables, &extensions))
	require.Equal(t, 4, tables, "things, the keys, and a version table for each set")
	require.Equal(t, 2, extensions)
	require.NoError(t, conn.Close(t.Context()))
}

// TestBypassIsRefused: with a role to which row-level security does not apply
// nothing starts.
func TestBypassIsRefused(t *testing.T) {
	t.Parallel()
	s := private(t, t.TempDir())
	url := s.URL("postgres")
	require.NoError(t, pg.Migrate(t.Context(), url))
	run(t, url, "ALTER ROLE turumba_api BYPASSRLS")
	_, err := pg.Open(t.Context(), pg.Config{URL: url, Role: pg.RoleAPI})
	require.ErrorContains(t, err, "turumba_api bypasses row-level security")
	require.ErrorContains(t, pg.Migrate(t.Context(), url), "turumba_api bypasses row-level security")
}

// TestServerAway: without its server a database is unavailable, not broken, and
// it works again when the server is back.
func TestServerAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := private(t, dir)
	require.NoError(t, pg.Migrate(t.Context(), s.URL("postgres"), things))
	db, err := pg.Open(t.Context(), pg.Config{URL: s.URL("postgres"), Role: pg.RoleAPI})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	read := func() error {
		_, err := pg.Read(t.Context(), db, nil, func(rows pgx.Rows) ([]int, error) {
			return pgx.CollectRows(rows, pgx.RowTo[int])
		}, "SELECT n FROM things")
		return err
	}
	away := func(err error) bool { return apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE) }
	err = db.InTx(t.Context(), nil, func(tx *pg.Tx) error {
		require.NoError(t, s.Stop(t.Context()))
		_, err := tx.Exec(t.Context(), "SELECT 1")
		return err
	})
	require.True(t, away(err), "in the middle: %v", err)
	err = db.InTx(t.Context(), nil, func(*pg.Tx) error { return nil })
	require.True(t, away(err), "at the begin: %v", err)
	require.True(t, away(read()))
	private(t, dir)
	require.NoError(t, read())
}
