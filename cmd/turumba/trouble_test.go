package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/cmd/turumba/demo"
	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/kit/vault"
)

// TestMain is also the simulator, which the program starts as a process of its
// own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == single.SimulatorCommand {
		os.Exit(run(context.Background(), os.Environ(), os.Args[1:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// play runs a command on free ports.
func play(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	environ := append([]string{"HTTP_ADDR=127.0.0.1:0", "GRPC_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0"}, env...)
	code = run(t.Context(), environ, args, &out, &errs)
	return code, out.String(), errs.String()
}

func key(b byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) }

func TestDemo(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	code, stdout, stderr := play(t, []string{"TURUMBA_DATA_DIR=" + data}, "demo", "--contacts", "1200", "--exit", "--json")
	require.Zero(t, code, stderr)
	var r report
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	require.Equal(t, []int{1200, 1200, 0, 0, 0}, []int{r.Recipients, r.Sent, r.Failed, r.Skipped, r.Unknown})
	require.EqualValues(t, 1200, r.ReceivedDistinct, "contacts beyond the file are generated")
	require.Zero(t, r.ReceivedDuplicates)
	require.Contains(t, stderr, "Three messages as the simulator received them")

	// Its secrets get a new master key; the old one opens nothing any more.
	require.NoError(t, os.Rename(filepath.Join(data, "master.key"), filepath.Join(data, "master.key.previous")))
	require.NoError(t, os.WriteFile(filepath.Join(data, "master.key"), []byte(key(2)), 0o600))
	code, stdout, stderr = play(t, []string{"TURUMBA_DATA_DIR=" + data}, "keys", "rotate", "--json")
	require.Zero(t, code, stderr)
	var rotated vault.Rotation
	require.NoError(t, json.Unmarshal([]byte(stdout), &rotated), stdout)
	require.Contains(t, rotated.Kinds, vault.RotationKind{Kind: "signing keys", Seen: 1, Changed: 1})
	require.NoError(t, os.Remove(filepath.Join(data, "master.key.previous")))
	code, stdout, stderr = play(t, []string{"TURUMBA_DATA_DIR=" + data}, "keys", "rotate", "--dry-run")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "signing keys    1, 0 to seal anew\n")
	code, _, stderr = play(t, []string{"TURUMBA_DATA_DIR=" + data, "TURUMBA_MASTER_KEY=" + key(1)}, "keys", "rotate")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "TURUMBA_MASTER_KEY_PREVIOUS, or are damaged")

	// The data folder is that of an installation now; its key opens it.
	require.NoError(t, os.Rename(filepath.Join(data, "master.key"), filepath.Join(data, "lost.key")))
	oneLine(t, "the master key is missing", []string{"TURUMBA_DATA_DIR=" + data}, "up")
	oneLine(t, "TURUMBA_MASTER_KEY does not open what was stored", []string{"TURUMBA_DATA_DIR=" + data, "TURUMBA_MASTER_KEY=" + key(1)}, "up")
}

// TestTour plays a small one: its figures are of the API, the provider's journal and each
// other at once.
func TestTour(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := play(t, []string{"TURUMBA_DATA_DIR=" + t.TempDir()}, "demo", "--tour", "--contacts", "60", "--exit", "--json")
	require.Zero(t, code, stderr)
	var r demo.TourReport
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	require.Empty(t, r.Problems)
	by := map[string]*demo.TourStep{}
	for _, s := range r.Steps {
		by[s.Step] = s
		require.Equal(t, s.Accepted, s.Sent+s.Failed+s.Cancelled, s.Step)
		require.Equal(t, s.Sent, s.ReceivedDistinct, s.Step)
		require.Zero(t, s.ReceivedDuplicates, s.Step)
	}
	require.Len(t, by, 7)
	require.Equal(t, map[string]int{"excluded": 1, "opted_out": 1, "no_address": 1}, by["dry_run"].DryRun.Skipped)
	require.Zero(t, by["dry_run"].Accepted)
	require.Equal(t, []int{57, 3}, []int{by["email_campaign"].Sent, by["email_campaign"].Skipped})
	require.Equal(t, []int{54, 6}, []int{by["sms_campaign"].Sent, by["sms_campaign"].Failed})
	require.Positive(t, by["otp"].OTP.CampaignSentBefore)
	require.Positive(t, by["otp"].OTP.CampaignPendingAfter)
	require.Equal(t, 1000, by["batch"].Sent)
	require.GreaterOrEqual(t, by["cancel"].Cancel.SentBefore, 28)
	require.Positive(t, by["cancel"].Cancelled)
	require.Equal(t, 57, by["cancel"].Accepted)
	require.Equal(t, demo.ResendFigures{FailedBefore: 6}, *by["resend"].Resend)
	require.Equal(t, 6, by["resend"].Sent)
	require.Contains(t, stderr, "every figure agrees with the provider's journal")
}

// oneLine expects the program to end with one plain line.
func oneLine(t *testing.T, want string, env []string, args ...string) {
	t.Helper()
	code, _, stderr := play(t, env, args...)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, want)
	require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	require.NotContains(t, stderr, "goroutine")
}

func TestBadSurroundings(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, taken.Close()) })
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, tt := range map[string]struct {
		want string
		env  []string
	}{
		"gRPC port taken":   {"set GRPC_ADDR to a free address", []string{"GRPC_ADDR=" + taken.Addr().String()}},
		"REST port taken":   {"set HTTP_ADDR to a free address", []string{"HTTP_ADDR=" + taken.Addr().String()}},
		"admin port taken":  {"set ADMIN_ADDR to a free address", []string{"ADMIN_ADDR=" + taken.Addr().String()}},
		"folder is a file":  {"the data folder cannot be written", []string{"TURUMBA_DATA_DIR=" + file}},
		"no such server":    {"cannot reach the database turumba_account at 127.0.0.1:1", []string{"DATABASE_URL=postgres://u:secret@127.0.0.1:1/x"}},
		"another database":  {"DATABASE_URL is not a PostgreSQL URL", []string{"DATABASE_URL=mysql://u:secret@127.0.0.1/x"}},
		"no previous key":   {"TURUMBA_MASTER_KEY_PREVIOUS", []string{"TURUMBA_MASTER_KEY_PREVIOUS=short"}},
		"no key at all":     {"TURUMBA_MASTER_KEY", []string{"TURUMBA_MASTER_KEY=short"}},
		"egress is no list": {"EGRESS_ALLOW", []string{"EGRESS_ALLOW=everything"}},
		"no broker URL":     {"AMQP URL", []string{"AMQP_URL=nonsense"}},
		"no mail URL":       {"MAIL_URL", []string{"MAIL_URL=nonsense"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			oneLine(t, tt.want, append([]string{"TURUMBA_DATA_DIR=" + t.TempDir()}, tt.env...), "up")
		})
	}
}

// TestNoPostgreSQL hides what is installed, and npm.
func TestNoPostgreSQL(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	oneLine(t, "PostgreSQL was not found", []string{"TURUMBA_DATA_DIR=" + t.TempDir(), "TURUMBA_PG_IGNORE_INSTALLED=true"}, "up")
}

func TestProblemsAreReportedTogether(t *testing.T) {
	t.Parallel()
	code, _, stderr := play(t, nil, "demo", "--contacts", "0", "--body-bytes", "-1")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--contacts must be between 1 and 1000000\n")
	require.Contains(t, stderr, "--body-bytes must be between 0 and 60000\n")
	code, _, stderr = play(t, nil, "demo", "--tour", "--contacts", "49")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--contacts must be between 50 and 50000 with --tour\n")
	code, _, stderr = play(t, nil, "keys", "lose")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "turumba keys rotate")
	code, _, stderr = play(t, nil, "dance")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, `unknown command "dance"`)
}
