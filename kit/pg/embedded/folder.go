//go:build unix

package embedded

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/turumba/turumba/kit/clock"
)

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
	long := len(dir) > 80
	if long {
		sum := sha256.Sum256([]byte(data))
		dir = filepath.Join(os.TempDir(), "turumba-pg-"+strconv.Itoa(os.Getuid())+"-"+hex.EncodeToString(sum[:6]))
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make the socket folder: %w", err)
	}
	if long {
		if err := ours(dir); err != nil {
			return "", err
		}
	}
	return dir, os.Chmod(dir, 0o700)
}

// ours refuses a folder that somebody else laid in our way in a place where
// everybody may write. To root a folder of the server's own account is ours.
func ours(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at %s: %w", dir, reason(err))
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || !ok || (int(sys.Uid) != os.Geteuid() && int(sys.Uid) != serverUID()) {
		return fmt.Errorf("%s is not a folder of this user: remove it", dir)
	}
	return nil
}

// errLocked: another process holds the lock.
var errLocked = errors.New("locked")

// tryLock opens a file and locks it; the lock ends with the last handle.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, err
	}
	return f, nil
}

// own locks the data folder and notes this process in the file, so that the next
// one can be told who has it.
func (s *Server) own(ctx context.Context) (*os.File, error) {
	path := filepath.Join(s.opts.DataDir, "postgres.owner")
	f, err := s.waitLock(ctx, path, s.opts.Clock.Now().Add(ownLimit))
	if errors.Is(err, errLocked) {
		who, rerr := os.ReadFile(path)
		if rerr != nil {
			who = []byte("unknown")
		}
		return nil, fmt.Errorf("the data folder %s is used by process %s (stop it, or set TURUMBA_DATA_DIR)", s.opts.DataDir, strings.TrimSpace(string(who)))
	}
	if err != nil {
		return nil, err
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close() // the lock is given up
		return nil, fmt.Errorf("lock the data folder %s: %w", s.opts.DataDir, reason(err))
	}
	return f, nil
}

// supervisorLock waits until no supervisor of this folder lives, so that a server
// which is being stopped because its parent ended is not mistaken for one to
// adopt. The supervisor that is started next inherits the lock.
func (s *Server) supervisorLock(ctx context.Context, deadline time.Time) (*os.File, error) {
	lock, err := s.waitLock(ctx, filepath.Join(s.opts.DataDir, "postgres.supervisor"), deadline)
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("the PostgreSQL of an earlier run has not stopped within %s; see %s", startLimit, s.logPath())
	}
	return lock, err
}

// waitLock asks for a lock until it has it, or the time is over: errLocked.
func (s *Server) waitLock(ctx context.Context, path string, deadline time.Time) (*os.File, error) {
	for {
		lock, err := tryLock(path)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, errLocked) {
			return nil, fmt.Errorf("lock %s: %w", path, reason(err))
		}
		if s.opts.Clock.Now().After(deadline) {
			return nil, errLocked
		}
		if err := clock.Sleep(ctx, s.opts.Clock, pollEvery); err != nil {
			return nil, err
		}
	}
}

// locales are the character types to try, the best first: with plain C the
// server would neither fold the case of É nor see letters in ሰላም.
func locales() []string { return []string{"C.UTF-8", "en_US.UTF-8", "C"} }

// initialise makes the data folder with initdb, in a folder beside it that is
// renamed when complete, so that a crash leaves no half-made one.
func (s *Server) initialise(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(s.data, "PG_VERSION")); err == nil {
		return nil
	}
	if err := os.RemoveAll(s.data); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	fresh := s.data + ".new"
	var err error
	for _, ctype := range locales() {
		var out []byte
		if out, err = s.initdb(ctx, fresh, ctype); err == nil || !strings.Contains(string(out), "locale") {
			break
		}
	}
	if err != nil {
		return err
	}
	if err := os.Rename(fresh, s.data); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	return nil
}

func (s *Server) initdb(ctx context.Context, dir, ctype string) ([]byte, error) {
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), s.user.own(dir)); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	cmd := exec.CommandContext(ctx, s.bin.initdb, "-D", dir, "-U", "postgres", "-A", "trust", "-E", "UTF8",
		"--locale=C", "--lc-ctype="+ctype, "--no-instructions")
	cmd.Env = s.bin.env()
	cmd.Dir = "/" // the folder of this process may be closed to the server's account
	s.user.apply(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("initdb failed: %w: %s", err, lastLine(out))
	}
	return out, nil
}

// majorOf is the PostgreSQL version that made the data folder, "" when it is new.
func majorOf(data string) string {
	b, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func samePath(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

func (s *Server) logPath() string { return filepath.Join(s.opts.DataDir, "postgres.log") }

// lastLog is the last fatal line of the log, or the last one.
func (s *Server) lastLog() string {
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		return "no log"
	}
	if i := strings.LastIndex(string(b), "FATAL:"); i >= 0 {
		line, _, _ := strings.Cut(string(b[i+len("FATAL:"):]), "\n")
		return strings.TrimSpace(line)
	}
	return lastLine(b)
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
