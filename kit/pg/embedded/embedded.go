// Package embedded runs a real PostgreSQL server as a child process, for one
// machine without Docker or settings. The server listens on a unix socket in a
// folder that only its owner can enter, and on nothing else, so it needs no
// password: whoever may enter may read the data files too. fsync is on: what it
// says is committed survives kill -9.
//
// Three processes take part. The parent (this program) holds the lock of
// postgres.owner. The supervisor, a small shell, reads a pipe of the parent and
// stops the server when that ends; it holds the lock of postgres.supervisor. So
// a start knows a server that is being stopped, whose supervisor lives, from one
// that was left behind, which it adopts.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
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
	// Clock times the start; nil is the machine's.
	Clock clock.Clock
	// Settings are added to the server's command line, for example "fsync=off" in
	// tests that never crash it.
	Settings []string
	// Stock leaves out Settings: the server runs with those of its distribution.
	Stock bool
	// HideInstalled ignores servers that are installed on the machine.
	HideInstalled bool
}

// The times that a start and a stop may take. A start after a crash replays the
// write-ahead log first.
const (
	startLimit = 60 * time.Second
	ownLimit   = 2 * time.Second // for a killed process to be gone
	stopLimit  = 8 * time.Second
	pollEvery  = 50 * time.Millisecond
)

// Server is a running PostgreSQL server.
type Server struct {
	opts      Options
	data      string
	socketDir string
	bin       binaries
	user      account
	owner     *os.File      // locked while this process is responsible for the server
	stdin     io.Closer     // its end stops the server, also when this process is killed
	done      chan struct{} // closed when the supervisor ends
	ended     chan struct{} // closed after that, when the folder is free
	watcher   int           // process id of the supervisor
}

// Start runs the server of the data folder: it makes the folder when it is new,
// adopts a server that outlived both its parent and its supervisor, and waits
// for one that is just stopping. A folder that another process uses is an error.
// Its errors are one line.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return nil, fmt.Errorf("find the data folder: %w", err)
	}
	o.DataDir = dir
	if err := writable(o.DataDir); err != nil {
		return nil, err
	}
	s := &Server{opts: o, data: filepath.Join(o.DataDir, "postgres"), ended: make(chan struct{})}
	if s.owner, err = s.own(ctx); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		_ = s.owner.Close() // frees the lock
		return nil, err
	}
	go s.reap()
	return s, nil
}

// reap frees the folder when the server has ended, however it did.
func (s *Server) reap() {
	<-s.done
	_ = s.owner.Close() // frees the lock
	close(s.ended)
}

func (s *Server) start(ctx context.Context) error {
	var err error
	if s.bin, err = findBinaries(ctx, s.opts, majorOf(s.data)); err != nil {
		return err
	}
	if s.user, err = otherThanRoot(ctx); err != nil {
		return err
	}
	if s.socketDir, err = socketDir(s.data); err != nil {
		return err
	}
	deadline := s.opts.Clock.Now().Add(startLimit)
	adopted, err := s.adopt(ctx, deadline)
	if adopted || err != nil {
		return err
	}
	if err := s.initialise(ctx); err != nil {
		return err
	}
	if err := s.user.own(s.data, s.socketDir); err != nil {
		return err
	}
	return s.run(ctx, deadline)
}

// adopt takes over a live server of this folder, which has no supervisor any
// more, and gives it a new one. It reports false when none lives.
func (s *Server) adopt(ctx context.Context, deadline time.Time) (bool, error) {
	lock, err := s.supervisorLock(ctx, deadline)
	if err != nil {
		return false, err
	}
	defer func() { _ = lock.Close() }() // the supervisor has its own handle
	for s.alive(ctx) {
		if s.answers(ctx) {
			return true, s.supervise(lock, adopter, strconv.Itoa(s.PID()))
		}
		// It is starting or stopping: wait which.
		if s.opts.Clock.Now().After(deadline) {
			return false, fmt.Errorf("the PostgreSQL of %s neither answers nor ends; see %s", s.data, s.logPath())
		}
		if err := clock.Sleep(ctx, s.opts.Clock, pollEvery); err != nil {
			return false, err
		}
	}
	return false, nil
}

// errCrashRemains: processes of a killed server still hold its shared memory.
var errCrashRemains = errors.New("processes of a killed server are still ending")

// run starts the server, again while what a crash left behind is in its way.
func (s *Server) run(ctx context.Context, deadline time.Time) error {
	for {
		err := s.runOnce(ctx, deadline)
		if !errors.Is(err, errCrashRemains) || s.opts.Clock.Now().After(deadline) {
			return err
		}
		if err := clock.Sleep(ctx, s.opts.Clock, pollEvery); err != nil {
			return err
		}
	}
}

func (s *Server) runOnce(ctx context.Context, deadline time.Time) error {
	lock, err := s.supervisorLock(ctx, deadline)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // the supervisor has its own handle
	if err := s.clearCrash(); err != nil {
		return err
	}
	if err := s.launch(lock); err != nil {
		return err
	}
	return s.await(ctx, deadline)
}

func (s *Server) await(ctx context.Context, deadline time.Time) error {
	for !s.answers(ctx) {
		select {
		case <-s.done:
			why := s.lastLog()
			if strings.Contains(why, "pre-existing shared memory block") {
				return errCrashRemains
			}
			return fmt.Errorf("PostgreSQL ended at its start: %s (see %s)", why, s.logPath())
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

// URL is the connection URL of a database of the server, as its superuser.
func (s *Server) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/" + database}
	u.RawQuery = url.Values{"host": {s.socketDir}, "sslmode": {"disable"}}.Encode()
	return u.String()
}

// Running returns the connection strings of the data folder's server while it runs,
// whoever started it.
func Running(ctx context.Context, o Options) (urls func(database string) string, ok bool) {
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return nil, false
	}
	s := &Server{opts: o, data: filepath.Join(dir, "postgres")}
	if _, err := os.Stat(s.data); err != nil {
		return nil, false
	}
	if s.socketDir, err = socketDir(s.data); err != nil {
		return nil, false
	}
	return s.URL, s.answers(ctx)
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

// PID is the process id of the postmaster, 0 when none runs.
func (s *Server) PID() int { return readPID(s.pidFile()) }

// PIDs are the processes of the server, the supervisor first: what kill -9 must
// hit so that nothing of it is left. Without /proc the postmaster stands for its
// children, which end with it.
func (s *Server) PIDs() []int {
	pids := append([]int{s.watcher}, childrenOf(s.watcher)...)
	if pid := s.PID(); pid != 0 && !slices.Contains(pids, pid) {
		pids = append(pids, pid)
	}
	return append(pids, backendsIn(s.data)...)
}

// Done is closed when the server has ended, asked to or not.
func (s *Server) Done() <-chan struct{} { return s.ended }

// Stop ends the server with a fast shutdown and waits for it, at most 8 s.
func (s *Server) Stop(ctx context.Context) error {
	_ = s.stdin.Close() // its end is the supervisor's sign to stop
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.opts.Clock.NewTimer(stopLimit).C():
		return errors.New("PostgreSQL did not stop in time")
	}
}
