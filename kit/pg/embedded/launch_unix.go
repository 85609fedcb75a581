//go:build unix

package embedded

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// supervisor runs the server and stops it (fast shutdown) when its standard
// input ends, which happens however this process ends.
const supervisor = `exec 3<&0
"$@" 3<&- </dev/null & pid=$!
{ read -r _ <&3; kill -INT $pid; } & reader=$!
wait $pid
kill $reader 2>/dev/null`

// settings of the embedded server. They trade memory for speed, never safety.
func (s *Server) settings() []string {
	base := []string{
		"listen_addresses=", "unix_socket_directories=" + s.socketDir, "unix_socket_permissions=0700",
		"max_connections=120", "shared_buffers=256MB", "wal_compression=on", "max_wal_size=2GB",
		"checkpoint_timeout=15min", "fsync=on", "synchronous_commit=on", "timezone=UTC", "log_timezone=UTC",
		"log_min_messages=warning", "jit=off",
	}
	return append(base, s.opts.Settings...)
}

// launch starts the supervisor in a session of its own, so that Ctrl-C in a
// terminal reaches this process alone.
func (s *Server) launch() error {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own handle
	args := []string{"-c", supervisor, "sh", s.bin.postgres, "-D", s.data}
	for _, set := range s.settings() {
		args = append(args, "-c", set)
	}
	cmd := exec.Command("/bin/sh", args...) // no context: Stop and the pipe end it
	cmd.Env = s.bin.env()
	cmd.Stdout, cmd.Stderr = log, log
	unprivileged(cmd)
	cmd.SysProcAttr.Setsid = true
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	s.done = make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended stands in its log
		close(s.done)
	}()
	return nil
}

// isPostgres reports whether pid is a live process that runs postgres.
func isPostgres(pid int) bool {
	if pid <= 0 || syscall.Kill(pid, 0) != nil {
		return false
	}
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if errors.Is(err, os.ErrNotExist) {
		return err == nil || !procMounted()
	}
	return err != nil || strings.HasPrefix(filepath.Base(exe), "postgres")
}

// procMounted: without /proc (macOS) a live pid is taken at its word.
func procMounted() bool {
	_, err := os.Stat("/proc/self/exe")
	return err == nil
}

func interrupt(pid int) error {
	if pid <= 0 {
		return nil
	}
	return syscall.Kill(pid, syscall.SIGINT)
}
