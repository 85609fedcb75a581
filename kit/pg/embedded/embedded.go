// Package embedded runs a real PostgreSQL server as a child process, for one
// machine without Docker or settings. The server listens on a unix socket in a
// folder that only its owner can enter, and on nothing else. fsync is on: what
// it says is committed survives kill -9.
package embedded

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/clock"
)

// Options say where a server keeps its data and how it runs.
type Options struct {
	// DataDir is the folder of the data; made when missing. Required.
	DataDir string
	// CacheDir is where downloaded binaries are kept; the user's cache folder
	// when empty.
	CacheDir string
	// Clock times the start.
	Clock clock.Clock
	// Settings are added to the server's command line, for example "fsync=off" in
	// tests that never crash it.
	Settings []string
	// HideInstalled ignores servers that are installed on the machine.
	HideInstalled bool
}

// The times that a start and a stop may take. A start after a crash replays the
// write-ahead log first.
const (
	startLimit = 60 * time.Second
	stopLimit  = 8 * time.Second
	pollEvery  = 50 * time.Millisecond
)

// Server is a running PostgreSQL server.
type Server struct {
	opts      Options
	data      string
	socketDir string
	bin       binaries
	stdin     io.Closer // its end stops the server, also when this process is killed
	done      chan struct{}
	adopted   bool
}

// Start runs the server of the data folder: it makes the folder when it is new,
// adopts a server that outlived its parent, and waits for one that is just
// stopping. Its errors are one line.
func Start(ctx context.Context, o Options) (*Server, error) {
	if err := writable(o.DataDir); err != nil {
		return nil, err
	}
	bin, err := findBinaries(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: o, data: filepath.Join(o.DataDir, "postgres"), bin: bin}
	if s.socketDir, err = socketDir(s.data); err != nil {
		return nil, err
	}
	if err := s.initialise(ctx); err != nil {
		return nil, err
	}
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// writable checks the data folder before anything else fails on it.
func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the data folder %s cannot be made: %w (set TURUMBA_DATA_DIR)", dir, reason(err))
	}
	probe, err := os.CreateTemp(dir, ".probe")
	if err != nil {
		return fmt.Errorf("the data folder %s is not writable: %w (set TURUMBA_DATA_DIR)", dir, reason(err))
	}
	_ = probe.Close() // nothing was written
	return os.Remove(probe.Name())
}

// reason drops the path that the sentence names already.
func reason(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// socketDir is a folder for the socket whose path is short enough for one (107
// bytes): beside the data, or in the temporary folder.
func socketDir(data string) (string, error) {
	dir := data + "-socket"
	if len(dir) > 80 {
		sum := sha256.Sum256([]byte(data))
		dir = filepath.Join(os.TempDir(), "turumba-pg-"+strconv.Itoa(os.Getuid())+"-"+hex.EncodeToString(sum[:6]))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the socket folder: %w", err)
	}
	return dir, os.Chmod(dir, 0o700)
}

// URL is the connection URL of a database of the server, as its superuser.
func (s *Server) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/" + database}
	u.RawQuery = url.Values{"host": {s.socketDir}, "sslmode": {"disable"}}.Encode()
	return u.String()
}

// initialise makes the data folder with initdb, in a folder beside it that is
// renamed when complete, so that a crash leaves no half-made one.
func (s *Server) initialise(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(s.data, "PG_VERSION")); err == nil {
		return nil
	}
	fresh := s.data + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.RemoveAll(s.data)); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	cmd := exec.CommandContext(ctx, s.bin.initdb, "-D", fresh, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions")
	cmd.Env = s.bin.env()
	unprivileged(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb failed: %w: %s", err, lastLine(out))
	}
	if err := os.Rename(fresh, s.data); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	return nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// run adopts a live server of this folder or starts one.
func (s *Server) run(ctx context.Context) error {
	deadline := s.opts.Clock.Now().Add(startLimit)
	for {
		if s.answers(ctx) && s.alive() {
			s.adopted = true
			return nil
		}
		if !s.alive() {
			break
		}
		// It is starting, or stopping because its parent ended: wait which.
		if s.opts.Clock.Now().After(deadline) {
			return fmt.Errorf("the PostgreSQL of %s neither answers nor ends; see %s", s.data, s.logPath())
		}
		if err := clock.Sleep(ctx, s.opts.Clock, pollEvery); err != nil {
			return err
		}
	}
	if err := s.launch(); err != nil {
		return err
	}
	return s.await(ctx, deadline)
}

func (s *Server) await(ctx context.Context, deadline time.Time) error {
	for !s.answers(ctx) {
		select {
		case <-s.done:
			return fmt.Errorf("PostgreSQL ended at its start: %s (see %s)", s.lastLog(), s.logPath())
		default:
		}
		if s.opts.Clock.Now().After(deadline) {
			_ = s.stdin.Close() // stops what was started
			return fmt.Errorf("PostgreSQL did not start within %s: %s", startLimit, s.lastLog())
		}
		if err := clock.Sleep(ctx, s.opts.Clock, pollEvery); err != nil {
			_ = s.stdin.Close() // stops what was started
			return err
		}
	}
	return nil
}

// answers reports whether a server on the socket answers and is the one of this
// data folder.
func (s *Server) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is pending on it
	var dir string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&dir); err != nil {
		return false
	}
	return samePath(dir, s.data)
}

func samePath(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// PID is the process id of the postmaster, 0 when none runs.
func (s *Server) PID() int { return postmasterPID(s.data) }

// alive reports whether the process in postmaster.pid is there. The kernel may
// have given the number to another process after a crash of everything, so the
// process must be a postgres.
func (s *Server) alive() bool { return isPostgres(postmasterPID(s.data)) }

func postmasterPID(data string) int {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0
	}
	return pid
}

// Stop ends the server with a fast shutdown and waits for it.
func (s *Server) Stop(ctx context.Context) error {
	if s.adopted {
		return s.stopAdopted(ctx)
	}
	_ = s.stdin.Close() // its end is the supervisor's sign to stop
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.opts.Clock.NewTimer(stopLimit).C():
		return errors.New("PostgreSQL did not stop in time")
	}
}

func (s *Server) stopAdopted(ctx context.Context) error {
	if err := interrupt(s.PID()); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	deadline := s.opts.Clock.Now().Add(stopLimit)
	for s.alive() {
		if s.opts.Clock.Now().After(deadline) {
			return errors.New("PostgreSQL did not stop in time")
		}
		if err := clock.Sleep(ctx, s.opts.Clock, pollEvery); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) logPath() string { return filepath.Join(s.opts.DataDir, "postgres.log") }

func (s *Server) lastLog() string {
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		return "no log"
	}
	return lastLine(b)
}
