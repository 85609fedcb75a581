//go:build unix

package embedded_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg/embedded"
)

func start(t *testing.T, dir string) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), embedded.Options{DataDir: dir, Clock: clock.System()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Stop(context.WithoutCancel(t.Context())) })
	return s
}

func exec(t *testing.T, s *embedded.Server, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
}

// TestSurvivesKill: what was committed is there after kill -9 of the server,
// with its stale postmaster.pid in place.
func TestSurvivesKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	exec(t, s, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
	require.NoError(t, syscall.Kill(s.PID(), syscall.SIGKILL))
	again := start(t, dir)
	exec(t, again, "INSERT INTO kept VALUES (2)")
	require.NoError(t, again.Stop(t.Context()))
	require.Zero(t, again.PID())
}

// TestAdopts: a second start of the same folder works with the live server.
func TestAdopts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, dir)
	second := start(t, dir)
	require.Equal(t, first.PID(), second.PID())
	exec(t, second, "SELECT 1")
	require.NoError(t, second.Stop(t.Context()))
	require.Zero(t, first.PID())
}

func TestFolderNotWritable(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := embedded.Start(t.Context(), embedded.Options{DataDir: filepath.Join(file, "data"), Clock: clock.System()})
	require.ErrorContains(t, err, "TURUMBA_DATA_DIR")
	require.NotContains(t, err.Error(), "\n")
}
