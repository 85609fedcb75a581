package main

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg/embedded"
)

// TestRecountCommand: beside a running turumba, by its data folder.
func TestRecountCommand(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	env := []string{"TURUMBA_DATA_DIR=" + data}
	oneLine(t, "there are no data in "+data, env, "recount")
	oneLine(t, "--account is not the id of an account", env, "recount", "--account", "x")
	code, _, stderr := play(t, env, "demo", "--contacts", "20", "--exit", "--json")
	require.Zero(t, code, stderr)
	oneLine(t, "no turumba is running on", env, "recount")

	server, err := embedded.Start(t.Context(), embedded.Options{DataDir: data})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.WithoutCancel(t.Context()))) })
	found := func(args ...string) (r recountReport) {
		code, stdout, stderr := play(t, env, append([]string{"recount", "--json"}, args...)...)
		require.Zero(t, code, stderr)
		require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
		return r
	}
	require.Equal(t, 1, found().Looked)
	require.Empty(t, found().Wrong)
	conn, err := pgx.Connect(t.Context(), server.URL("turumba_messaging"))
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "UPDATE group_messages SET sent_count = sent_count - 2, failed_count = failed_count + 2")
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))

	code, stdout, _ := play(t, env, "recount", "--dry-run")
	require.Zero(t, code)
	require.Contains(t, stdout, "sent 18, rows 20; failed 2, rows 0\n1 group messages looked at, 1 wrong, 0 repaired\n")
	wrong := found().Wrong
	require.Len(t, wrong, 1)
	require.True(t, wrong[0].Repaired)
	require.Empty(t, found("--account", wrong[0].AccountID).Wrong)
	require.Zero(t, found("--account", wrong[0].ID).Looked, "no account has that id")
}
