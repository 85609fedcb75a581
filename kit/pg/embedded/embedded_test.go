//go:build unix

package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg/embedded"
)

// parentEnv makes the test program the parent of a server in that folder, for
// tests that kill -9 the parent.
const parentEnv = "EMBEDDED_TEST_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentEnv); dir != "" {
		os.Exit(beParent(dir))
	}
	os.Exit(m.Run())
}

// beParent starts a server, tells its processes (the supervisor first, the
// postmaster last) and stays until it is killed.
func beParent(dir string) int {
	s, err := embedded.Start(context.Background(), embedded.Options{DataDir: dir})
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return 1
	}
	pids := slices.DeleteFunc(s.PIDs(), func(pid int) bool { return pid == s.PID() })
	for _, pid := range append(pids, s.PID()) {
		fmt.Fprint(os.Stdout, pid, " ")
	}
	fmt.Fprintln(os.Stdout)
	<-s.Done()
	return 1 // never before its server
}

// parent runs beParent as a process of its own and returns what it told.
func parent(t *testing.T, dir string) (cmd *osexec.Cmd, pids []int) {
	t.Helper()
	cmd = osexec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), parentEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	for _, word := range strings.Fields(line) {
		pid, err := strconv.Atoi(word)
		require.NoError(t, err, line)
		pids = append(pids, pid)
	}
	return cmd, pids
}

func kill(t *testing.T, signal syscall.Signal, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, signal); err != nil {
			require.ErrorIs(t, err, syscall.ESRCH)
		}
	}
}

// end kills the parent itself with -9.
func end(t *testing.T, cmd *osexec.Cmd) {
	t.Helper()
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
}

// folder is a temporary folder that a server of root may enter too where user
// namespaces are forbidden.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o711))
	return dir
}

func start(t *testing.T, dir string) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), embedded.Options{DataDir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop(context.WithoutCancel(t.Context()))) })
	return s
}

func connect(t *testing.T, s *embedded.Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func exec(t *testing.T, s *embedded.Server, sql string) {
	t.Helper()
	_, err := connect(t, s).Exec(t.Context(), sql)
	require.NoError(t, err)
}

func kept(t *testing.T, s *embedded.Server) (n int) {
	t.Helper()
	require.NoError(t, connect(t, s).QueryRow(t.Context(), "SELECT count(*) FROM kept").Scan(&n))
	return n
}

// TestSecondOwner: a folder has one owner; the next is told who that is, in one
// line, and the server stays untouched.
func TestSecondOwner(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	s := start(t, dir)
	_, err := embedded.Start(t.Context(), embedded.Options{DataDir: dir})
	require.ErrorContains(t, err, "is used by process "+strconv.Itoa(os.Getpid()))
	require.NotContains(t, err.Error(), "\n")
	exec(t, s, "SELECT 1")
	require.NoError(t, s.Stop(t.Context()))
	require.NoError(t, start(t, dir).Stop(t.Context()), "the folder is free again")
}

func TestFolderNotWritable(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := embedded.Start(t.Context(), embedded.Options{DataDir: filepath.Join(file, "data")})
	require.ErrorContains(t, err, "TURUMBA_DATA_DIR")
	require.NotContains(t, err.Error(), "\n")
}

// TestOtherMajor: a folder of a PostgreSQL that is not there is told in one line.
func TestOtherMajor(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "postgres"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "postgres", "PG_VERSION"), []byte("9\n"), 0o600))
	_, err := embedded.Start(t.Context(), embedded.Options{DataDir: dir})
	require.ErrorContains(t, err, "was made by PostgreSQL 9, which was not found")
	require.NotContains(t, err.Error(), "\n")
}

// TestText: the server folds case and sees letters beyond ASCII, without which
// searching names would read whole tables.
func TestText(t *testing.T) {
	t.Parallel()
	conn := connect(t, start(t, folder(t)))
	_, err := conn.Exec(t.Context(), "CREATE EXTENSION pg_trgm")
	require.NoError(t, err)
	var lower, trigrams string
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT lower('É'), show_trgm('ሰላም')::text").Scan(&lower, &trigrams))
	require.Equal(t, "é", lower)
	require.NotEqual(t, "{}", trigrams)
}

// TestLogHoldsNoValues: an address in a duplicate key stays out of the log.
func TestLogHoldsNoValues(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	conn := connect(t, start(t, dir))
	_, err := conn.Exec(t.Context(), "CREATE TABLE people (email text UNIQUE); INSERT INTO people VALUES ('ada@example.org')")
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "INSERT INTO people VALUES ($1)", "ada@example.org")
	require.Error(t, err)
	_, err = conn.Exec(t.Context(), "INSERT INTO people VALUES ('ada@example.org')")
	require.Error(t, err)
	log, err := os.ReadFile(filepath.Join(dir, "postgres.log"))
	require.NoError(t, err)
	require.Contains(t, string(log), "duplicate key value")
	require.NotContains(t, string(log), "ada@")
}
