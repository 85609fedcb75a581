// Package rabbittest finds or starts a RabbitMQ broker for tests: the one that
// TEST_AMQP_URL names, else a private one from the binaries on this machine,
// else the test is skipped loudly (SKIP-RABBITMQ), which is a failure where
// CI=true.
package rabbittest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
)

// startTimeout is how long a broker may take on a busy machine; alone it needs
// about 6 s.
const startTimeout = 3 * time.Minute

// URL returns the AMQP URL of a broker the test may use together with others:
// it must give its exchanges and queues names of their own.
func URL(t testing.TB) string {
	t.Helper()
	if url := os.Getenv("TEST_AMQP_URL"); url != "" {
		return url
	}
	return Start(t).URL()
}

// Broker is a private RabbitMQ node with its own port mapper, ports and folder.
// It ends with the test, and also when the test process is killed.
type Broker struct {
	dir      string
	script   string // of the server
	node     string
	port     int
	env      []string
	cmd      *exec.Cmd
	lifeline io.Closer // the supervisor kills the node when this pipe closes
	ended    chan struct{}
}

// Start starts a private broker even where TEST_AMQP_URL is set, for tests that
// kill, block or reconfigure it.
func Start(t testing.TB) *Broker {
	t.Helper()
	script, mapper := find()
	if script == "" || mapper == "" {
		missing(t)
	}
	b := &Broker{dir: t.TempDir(), script: script, node: "t" + random(t) + "@localhost"}
	require.NoError(t, os.WriteFile(filepath.Join(b.dir, "plugins"), []byte("[].\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(b.dir, "rabbitmq.conf"), []byte("loopback_users.guest = true\n"), 0o600))
	for try := 1; ; try++ {
		ports := freePorts(t, 3)
		b.port, b.env = ports[0], b.environment(ports, mapper)
		problem := b.run(t)
		if problem == "" {
			break
		}
		// A port that was free may be another process's by the time the node wants it.
		taken := strings.Contains(problem, "already_used") || strings.Contains(problem, "eaddrinuse")
		require.True(t, taken && try < 3, problem)
	}
	t.Cleanup(b.Kill)
	b.check(t)
	return b
}

// URL is the AMQP URL, with the broker's built-in local user.
func (b *Broker) URL() string { return fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", b.port) }

// Addr is host:port, to put a proxy in front.
func (b *Broker) Addr() string { return fmt.Sprintf("127.0.0.1:%d", b.port) }

// Kill ends the broker as kill -9 does and returns when it is gone. A second
// call does nothing.
func (b *Broker) Kill() {
	// Closing the lifeline would do as well; the signal does not depend on it.
	_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
	_ = b.lifeline.Close()
	<-b.ended
}

// Restart starts a killed broker again on the same data and port.
func (b *Broker) Restart(t testing.TB) {
	t.Helper()
	<-b.ended
	require.Empty(t, b.run(t))
}

// Ctl runs rabbitmqctl against the broker.
func (b *Broker) Ctl(t testing.TB, args ...string) string {
	t.Helper()
	ctl := filepath.Join(filepath.Dir(b.script), "rabbitmqctl")
	cmd := exec.CommandContext(t.Context(), ctl, append([]string{"-n", b.node, "--quiet"}, args...)...)
	cmd.Env = b.env
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "rabbitmqctl %v: %s", args, out)
	return string(out)
}

// supervisor runs the port mapper and the server in one process group and kills
// the whole group when its own standard input ends, that is when the test
// process lets go of it or dies, and also when the server ends.
const supervisor = `"$EPMD" -port "$ERL_EPMD_PORT" -address 127.0.0.1 </dev/null &
("$SERVER"; kill -9 0) </dev/null &
cat >/dev/null
kill -9 0`

// run starts the node and waits until it says that it is up; problem is why it does not.
func (b *Broker) run(t testing.TB) (problem string) {
	t.Helper()
	b.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), "/bin/sh", "-c", supervisor)
	b.cmd.Env = b.env
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	lifeline, err := b.cmd.StdinPipe()
	require.NoError(t, err)
	b.lifeline = lifeline
	out, in := io.Pipe()
	b.cmd.Stdout, b.cmd.Stderr = in, in
	require.NoError(t, b.cmd.Start())
	b.ended = make(chan struct{})
	go func(ended chan struct{}) {
		// Wait returns when every process that shares the output is gone.
		_ = b.cmd.Wait()
		_ = in.Close()
		close(ended)
	}(b.ended)
	up, log := make(chan struct{}), make(chan string, 1)
	go watch(out, up, log)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	select {
	case <-up:
		return ""
	case text := <-log:
		return "the broker ended while starting:\n" + text
	case <-ctx.Done():
		b.Kill()
		return "the broker did not start in time:\n" + <-log
	}
}

// watch reads the output to its end and says when the broker is up.
func watch(out io.Reader, up chan<- struct{}, log chan<- string) {
	var text strings.Builder
	started := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if !started {
			text.WriteString(lines.Text() + "\n")
		}
		if !started && strings.Contains(lines.Text(), "completed with") {
			started = true
			close(up)
		}
	}
	log <- text.String()
	// A line too long for the scanner must not block the broker's output.
	_, _ = io.Copy(io.Discard, out)
}

// check makes sure that the port answers for the node we started: a collision
// must not lead a test to someone else's broker.
func (b *Broker) check(t testing.TB) {
	t.Helper()
	conn, err := amqp.Dial(b.URL())
	require.NoError(t, err)
	name, _ := conn.Properties["cluster_name"].(string)
	require.NoError(t, conn.Close())
	require.True(t, strings.HasPrefix(name, strings.Split(b.node, "@")[0]+"@"), "port %d belongs to broker %q", b.port, name)
}

func (b *Broker) environment(ports []int, mapper string) []string {
	env := []string{
		"SERVER=" + b.script, "EPMD=" + mapper,
		"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir, "LANG=C.UTF-8",
		fmt.Sprintf("ERL_EPMD_PORT=%d", ports[1]), "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=" + b.node,
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		fmt.Sprintf("RABBITMQ_NODE_PORT=%d", ports[0]),
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", ports[2]),
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(b.dir, "data"),
		"RABBITMQ_LOG_BASE=" + filepath.Join(b.dir, "log"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(b.dir, "plugins"),
		"RABBITMQ_CONFIG_FILE=" + filepath.Join(b.dir, "rabbitmq"),
		"RABBITMQ_CONF_ENV_FILE=/dev/null",
		// No busy waiting in the scheduler: the machine is shared with the test.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
	}
	return env
}

// find returns the server script and Erlang's port mapper, or "" for what is
// missing. The scripts in PATH come last: Debian's changes the user first.
func find() (script, mapper string) {
	for _, pattern := range []string{
		os.Getenv("RABBITMQ_SERVER"), "/usr/lib/rabbitmq/bin/rabbitmq-server",
		"/opt/rabbitmq/sbin/rabbitmq-server", "/opt/homebrew/sbin/rabbitmq-server", "/usr/local/sbin/rabbitmq-server",
	} {
		if info, err := os.Stat(pattern); pattern != "" && err == nil && !info.IsDir() {
			script = pattern
			break
		}
	}
	if script == "" {
		script, _ = exec.LookPath("rabbitmq-server")
	}
	mapper, _ = exec.LookPath("epmd")
	return script, mapper
}

func missing(t testing.TB) {
	t.Helper()
	const text = "SKIP-RABBITMQ: set TEST_AMQP_URL or install rabbitmq-server (apt-get install rabbitmq-server, brew install rabbitmq)"
	if os.Getenv("CI") == "true" {
		require.FailNow(t, text)
	}
	t.Skip(text)
}

// freePorts returns n ports nobody listens on just now.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer func() { require.NoError(t, l.Close()) }()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

func random(t testing.TB) string {
	t.Helper()
	raw := make([]byte, 5)
	_, err := rand.Read(raw)
	require.NoError(t, err)
	return hex.EncodeToString(raw)
}
