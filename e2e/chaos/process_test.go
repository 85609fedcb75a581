package chaos_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/kit/clock"
	simapp "github.com/turumba/turumba/sim/app"
)

// TestMain is also the simulator, a process of its own that outlives all kills.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == single.SimulatorCommand {
		os.Exit(simapp.Main(whileParentLives(), os.Environ(), os.Args[2:], os.Stdout, os.Stderr))
	}
	os.Exit(withBuilds(m))
}

// withBuilds runs the tests and removes what they have built.
func withBuilds(m *testing.M) int {
	defer func() { _ = os.RemoveAll(builds.dir) }() // the system clears its own folder
	return m.Run()
}

// patience is how long a start or a send may take.
const patience = 5 * time.Minute

// builds are the binaries of this run, each built once for all tests.
var builds struct {
	mu   sync.Mutex
	dir  string
	done map[string]bool // by folder of the binary and of its code
}

// binary builds a command of the product, with further flags of the build.
func binary(t *testing.T, folder string, flags ...string) string {
	t.Helper()
	return filepath.Join(binaries(t, []string{folder}, flags...), filepath.Base(folder))
}

// binaries builds several at once and returns the folder they are in.
func binaries(t *testing.T, folders []string, flags ...string) string {
	t.Helper()
	dir, err := build(t.Context(), folders, flags...)
	require.NoError(t, err)
	return dir
}

// build builds what is not built yet with these flags.
func build(ctx context.Context, folders []string, flags ...string) (dir string, err error) {
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if builds.dir == "" {
		if builds.dir, err = os.MkdirTemp("", "chaos-build-"); err != nil {
			return "", err
		}
		builds.done = map[string]bool{}
	}
	dir = filepath.Join(builds.dir, strings.Join(append([]string{"bin"}, flags...), ""))
	var missing []string
	for _, folder := range folders {
		if !builds.done[filepath.Join(dir, folder)] {
			missing = append(missing, "./"+folder)
		}
	}
	if len(missing) == 0 {
		return dir, nil
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"build", "-o", dir + "/"}, flags, missing)...)
	cmd.Dir = root
	if log, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %v: %w: %s", missing, err, log)
	}
	for _, folder := range folders {
		builds.done[filepath.Join(dir, folder)] = true
	}
	return dir, nil
}

// program is a process that is killed and started again.
type program struct {
	t     *testing.T
	path  string
	args  []string
	env   []string
	ready string // URL that answers 200 when it is ready
	cmd   *exec.Cmd
	ended chan struct{}
	log   *logBuffer
}

// logBuffer keeps the last of what a program said.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 1<<20 {
		l.buf.Reset()
	}
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// tail is the end of it, for the report of a test.
func (l *logBuffer) tail() string {
	lines := strings.Split(strings.TrimSpace(l.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-logTail):], "\n")
}

// logTail is how many lines a failed test prints of each program.
const logTail = 20

func newProgram(t *testing.T, path, ready string, args []string, env ...string) *program {
	t.Helper()
	p := &program{t: t, path: path, args: args, env: env, ready: ready, log: &logBuffer{}}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s said at last:\n%s", filepath.Base(path), p.log.tail())
		}
	})
	p.start()
	return p
}

// start runs the program and waits until it is ready.
func (p *program) start(env ...string) {
	p.t.Helper()
	p.launch(env...)
	p.await()
}

// launch runs the program, with further settings for this once.
func (p *program) launch(env ...string) {
	p.t.Helper()
	p.cmd = exec.CommandContext(context.WithoutCancel(p.t.Context()), p.path, p.args...)
	p.cmd.Env = slices.Concat(os.Environ(), p.env, env)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	endWithTest(p.cmd)
	require.NoError(p.t, p.cmd.Start())
	ended, cmd := make(chan struct{}), p.cmd
	p.ended = ended
	go func() {
		_ = cmd.Wait() // how it ended is what the test did to it
		close(ended)
	}()
}

// await waits until the program is ready.
func (p *program) await() {
	p.t.Helper()
	client := &http.Client{Timeout: 2 * time.Second}
	defer client.CloseIdleConnections()
	require.Eventually(p.t, func() bool {
		require.True(p.t, p.runs(), "it ended: %s", p.log.tail())
		res, err := client.Get(p.ready)
		if err != nil {
			return false
		}
		return res.Body.Close() == nil && res.StatusCode == http.StatusOK
	}, patience, 20*time.Millisecond, "%s becomes ready", filepath.Base(p.path))
}

// dies waits for the program to end by itself and returns its exit status.
func (p *program) dies() int {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), soon)
	defer cancel()
	select {
	case <-p.ended:
	case <-ctx.Done():
		require.FailNow(p.t, "it lives on", "%s said at last:\n%s", filepath.Base(p.path), p.log.tail())
	}
	return p.cmd.ProcessState.ExitCode()
}

// runs reports whether it has not ended.
func (p *program) runs() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill ends the program alone, as kill -9 does.
func (p *program) kill() {
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.ended
}

// killTree ends the program and all that it started, at once.
func (p *program) killTree() {
	p.t.Helper()
	for _, pid := range append(descendants(p.t, p.cmd.Process.Pid), p.cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
	}
	<-p.ended
}

// descendants are the processes below pid.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	children := map[int][]int{}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // it ended
		}
		// pid (name) state ppid …; the name may hold anything.
		fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		parent, err := strconv.Atoi(fields[1])
		require.NoError(t, err)
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		require.NoError(t, err)
		children[parent] = append(children[parent], child)
	}
	var below []int
	for next := []int{pid}; len(next) > 0; next = next[1:] {
		below = append(below, children[next[0]]...)
		next = append(next, children[next[0]]...)
	}
	return below
}

// ports are those that were given to a program of this run.
var ports struct {
	mu    sync.Mutex
	given map[string]bool
}

// port returns a TCP port that nobody uses just now, and that belongs to no program of
// another row, which may be dead just now.
func port(t *testing.T) string {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.given == nil {
		ports.given = map[string]bool{}
	}
	for {
		at := freePort(t)
		if !ports.given[at] {
			ports.given[at] = true
			return at
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port)
}

// whileParentLives ends when the process that started this one is gone, however it
// went: the simulator is not to outlive a test that ran out of time.
func whileParentLives() context.Context {
	ctx, end := context.WithCancel(context.Background())
	parent := os.Getppid()
	go func() {
		for os.Getppid() == parent && clock.Sleep(ctx, clock.System(), time.Second) == nil {
		}
		end()
	}()
	return ctx
}
