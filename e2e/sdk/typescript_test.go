package sdk_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/e2e/world"
	simapp "github.com/turumba/turumba/sim/app"
)

// TestMain is also the simulator, which the mesh starts as a process of its own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == single.SimulatorCommand {
		os.Exit(simapp.Main(context.Background(), os.Environ(), os.Args[2:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// client is the folder of the TypeScript client.
const client = "../../sdk/typescript"

// TestTypeScript compiles the TypeScript client and lets it walk an organisation's
// first day against the running product.
func TestTypeScript(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: %s is missing, so the TypeScript client was not tested: %v", program, err)
		}
	}
	run(t, nil, "npm", "ci", "--loglevel=error")
	run(t, nil, "npm", "run", "--silent", "build")
	in, _ := world.Start(t)
	host, port := in.Simulator.HostPort()
	out := run(t, []string{
		"TURUMBA_URL=" + in.URL, "MAILBOX_URL=" + in.Simulator.Mailbox, "TWILIO_URL=" + in.Simulator.API,
		"SMTP_HOST=" + host, fmt.Sprintf("SMTP_PORT=%d", port),
	}, "npm", "run", "--silent", "walk")
	require.Equal(t, "walked\n", out)
}

// run runs a program in the client's folder.
func run(t *testing.T, env []string, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir, cmd.Env = client, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %v: %s", program, args, out)
	return string(out)
}
