//go:build unix

package embedded_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg/embedded"
)

// TestSurvivesKill: what was committed is there after kill -9 of the server, and
// a backend too busy to notice does not keep the next server from starting.
func TestSurvivesKill(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	s := start(t, dir)
	exec(t, s, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
	busy, monitor := connect(t, s), connect(t, s)
	answered := make(chan error, 1)
	go func() {
		_, err := busy.Exec(t.Context(), "SELECT count(*) FROM generate_series(1, 100000000000) g WHERE g % 3 = 5")
		answered <- err
	}()
	require.Eventually(t, func() bool {
		var n int
		err := monitor.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series(1,%' AND pid <> pg_backend_pid()").Scan(&n)
		return err == nil && n == 1
	}, 10*time.Second, 10*time.Millisecond)
	kill(t, syscall.SIGKILL, s.PID())
	<-s.Done()
	again := start(t, dir)
	require.Error(t, <-answered, "the backend of the killed server is gone")
	require.Equal(t, 1, kept(t, again))
	require.NoError(t, again.Stop(t.Context()))
	require.Zero(t, again.PID())
}

// TestKilledTree: kill -9 of everything at once, then the next start recovers.
func TestKilledTree(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	s := start(t, dir)
	exec(t, s, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
	require.NoError(t, s.Stop(t.Context()))
	for range 3 {
		cmd, pids := parent(t, dir)
		kill(t, syscall.SIGKILL, append([]int{cmd.Process.Pid}, pids...)...)
		require.Error(t, cmd.Wait())
	}
	require.Equal(t, 1, kept(t, start(t, dir)))
}

// TestParentKilled: kill -9 of the parent stops the server, and a start that
// comes before that waits for it instead of adopting what is about to end. The
// supervisor is held until the start has been seen waiting.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	cmd, pids := parent(t, dir)
	supervisor, postmaster := pids[:len(pids)-1], pids[len(pids)-1]
	kill(t, syscall.SIGSTOP, supervisor...)
	end(t, cmd)
	got := make(chan *embedded.Server, 1)
	go func() {
		s, err := embedded.Start(t.Context(), embedded.Options{DataDir: dir})
		if err != nil {
			t.Error(err)
		}
		got <- s
	}()
	require.Never(t, func() bool { return len(got) > 0 }, 500*time.Millisecond, 10*time.Millisecond)
	kill(t, syscall.SIGCONT, supervisor...)
	s := <-got
	require.NotEqual(t, postmaster, s.PID())
	exec(t, s, "SELECT 1")
	require.NoError(t, s.Stop(t.Context()))
}

// TestAdopts: a server that lost parent and supervisor goes on under the next
// start, and has a supervisor again. The supervisor's reader dies first: it would
// stop the server at once when its parent notices that the supervisor is gone.
func TestAdopts(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	cmd, pids := parent(t, dir)
	supervisor, postmaster := pids[:len(pids)-1], pids[len(pids)-1]
	slices.Reverse(supervisor)
	kill(t, syscall.SIGKILL, supervisor...)
	end(t, cmd)

	cmd, pids = parent(t, dir)
	require.Equal(t, postmaster, pids[len(pids)-1], "adopted")
	end(t, cmd)

	s := start(t, dir)
	require.NotEqual(t, postmaster, s.PID(), "the new supervisor stopped it with its parent")
}

// TestStalePID: a postmaster.pid of which the kernel gave the number to another
// process, or to the server of another folder, does not keep a server down.
func TestStalePID(t *testing.T) {
	t.Parallel()
	dir, other := folder(t), start(t, folder(t))
	file := filepath.Join(dir, "postgres", "postmaster.pid")
	for _, pid := range []int{os.Getpid(), other.PID()} {
		s := start(t, dir)
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		kill(t, syscall.SIGKILL, s.PID())
		<-s.Done()
		_, rest, _ := strings.Cut(string(content), "\n")
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "%d\n%s", pid, rest), 0o600))
		s = start(t, dir)
		exec(t, s, "SELECT 1")
		require.NoError(t, s.Stop(t.Context()))
	}
	exec(t, other, "SELECT 1")
}
