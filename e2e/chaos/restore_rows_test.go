package chaos_test

import (
	"os/exec"
	"path/filepath"

	"github.com/stretchr/testify/require"
)

// restoreRows put an older state of the database back.
func restoreRows() []row {
	return []row{
		{"F-98", "an older backup is restored in the middle of a send", quick, beside, restoreMidway},
	}
}

// restoreMidway restores the backup that was made in a send after more of it was sent. A
// worker started with --hold sends nothing of it, and a release with the time of the
// backup gives up what waited then, the recipients that were not written yet among it.
func restoreMidway(r *trial) {
	turumba := binary(r.t, "cmd/turumba")
	x := r.tenant(600)
	slow(r.t, r.simulator, 100)
	defer slow(r.t, r.simulator, 0)
	id := x.send()
	x.messages(3)
	r.eventually("some are sent", "SELECT sent_count >= 100 FROM group_messages WHERE id = $1", id)
	backup := filepath.Join(r.t.TempDir(), "backup")
	r.tool("pg_dump", "--format=custom", "--file="+backup, r.postgres.URL("turumba_messaging"))
	r.eventually("more are sent", "SELECT sent_count >= 250 FROM group_messages WHERE id = $1", id)

	r.watch.blindfold(true)
	r.worker.kill()
	r.messaging.kill()
	r.tool("psql", r.postgres.URL("postgres"), "-v", "ON_ERROR_STOP=1", "-c", "DROP DATABASE turumba_messaging WITH (FORCE)", "-c", "CREATE DATABASE turumba_messaging")
	// In one transaction: the checker must not see sends whose messages are still to come.
	r.tool("pg_restore", "--single-transaction", "--dbname="+r.postgres.URL("turumba_messaging"), backup)
	r.sql.Reset()
	r.watch.blindfold(false)
	before := len(r.received())
	r.worker.start("TURUMBA_HOLD=true")
	r.messaging.start()
	slow(r.t, r.simulator, 0)
	r.eventually("what was in work when the backup was made is given back", "SELECT count(*) = 0 FROM dispatch_chunks WHERE state = 'leased'")
	require.Len(r.t, r.received(), before, "nothing leaves while it is held")

	x.messages(1) // what comes after it is sent
	r.tool(turumba, "release", "--since", "hold")
	x.messages(1)
	r.worker.kill()
	r.worker.start()
	r.may.Window = len(x.contacts) + len(x.accepted)
	r.then = func() {
		require.Len(r.t, r.received(), before+2, "what the backup did not know of is not sent again")
	}
	r.did("%d were sent before the restore, of %d", before, len(x.contacts)+3)
}

// tool runs a program of the operator's, which finds the messaging database.
func (r *trial) tool(name string, args ...string) {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), name, args...)
	cmd.Env = append(cmd.Environ(), "DATABASE_URL="+r.postgres.URL("turumba_messaging"))
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, "%s: %s", filepath.Base(name), out)
}
