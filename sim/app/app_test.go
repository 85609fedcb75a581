package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/sim"
	"github.com/turumba/turumba/sim/app"
)

// asProgram makes the test binary behave as the simulator.
const asProgram = "SIM_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(app.Main(context.Background(), os.Environ(), os.Args[1:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// TestOutlivesItsStarter starts the program with a pipe as its output, breaks
// the pipe and hangs up, and only then ends it.
func TestOutlivesItsStarter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	command := exec.CommandContext(t.Context(), os.Args[0], "--ready-file", filepath.Join(dir, "ready"), "--tls", "starttls",
		"--cert-file", filepath.Join(dir, "cert.pem"))
	command.Env = append(os.Environ(), asProgram+"=1", "SIM_JOURNAL="+filepath.Join(dir, "journal"))
	stdout, err := command.StdoutPipe()
	require.NoError(t, err)
	stderrEnd, stderr, err := os.Pipe()
	require.NoError(t, err)
	command.Stderr = stderr
	require.NoError(t, command.Start())
	require.NoError(t, stderr.Close())

	var ready app.Ready
	require.NoError(t, json.NewDecoder(stdout).Decode(&ready))
	fromFile, err := os.ReadFile(filepath.Join(dir, "ready"))
	require.NoError(t, err)
	var same app.Ready
	require.NoError(t, json.Unmarshal(fromFile, &same))
	require.Equal(t, ready, same)
	require.Equal(t, command.Process.Pid, ready.PID)
	cert, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	require.NoError(t, err)
	require.Contains(t, string(cert), "BEGIN CERTIFICATE")

	require.NoError(t, stdout.Close())
	require.NoError(t, stderrEnd.Close())
	require.NoError(t, command.Process.Signal(syscall.SIGHUP))
	require.NoError(t, command.Process.Signal(syscall.SIGPIPE))
	client, err := smtp.Dial(ready.SMTP)
	require.NoError(t, err)
	require.NoError(t, client.SendMail("a@x.test", []string{"b@x.test"}, strings.NewReader("Message-ID: <1@x>\r\n\r\nhi")))
	require.NoError(t, client.Close())

	require.Regexp(t, `^http://127\.0\.0\.1:[0-9]+$`, ready.API)
	require.NoError(t, command.Process.Signal(syscall.SIGTERM))
	require.NoError(t, command.Wait(), "SIGTERM ends it with code 0")
	sum, err := sim.ReadJournal(ready.Journal)
	require.NoError(t, err)
	require.EqualValues(t, 1, sum.Received)
}

func TestMainSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		environ []string
		args    []string
		code    int
		text    string
	}{
		{nil, nil, 1, "SIM_JOURNAL: is required\n"},
		{nil, []string{"--help"}, 0, "SIM_SMTP_ADDR, --smtp-addr"},
		{[]string{"SIM_JOURNAL=x"}, []string{"--tls=maybe", "--keep-first=-1"}, 1, "SIM_TLS must be none, starttls or implicit\n"},
		{[]string{"SIM_JOURNAL=/nowhere/journal"}, nil, 1, "open journal"},
	} {
		var out bytes.Buffer
		require.Equal(t, row.code, app.Main(t.Context(), row.environ, row.args, &out, &out))
		require.Contains(t, out.String(), row.text)
		require.NotContains(t, out.String(), "goroutine")
	}
}

func TestRunEndsWithoutReadyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	err := app.Run(t.Context(), app.Config{Journal: filepath.Join(dir, "j"), ReadyFile: filepath.Join(dir, "no", "ready")}, io.Discard, io.Discard)
	require.ErrorContains(t, err, "write ready")
}
