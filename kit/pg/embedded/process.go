//go:build unix

package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// socket is the server's socket; port 5432 only names it.
func (s *Server) socket() string { return filepath.Join(s.socketDir, ".s.PGSQL.5432") }

func (s *Server) pidFile() string { return filepath.Join(s.data, "postmaster.pid") }

func readPID(path string) int {
	b, err := os.ReadFile(path)
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

// alive reports whether the process in postmaster.pid is the postgres of this
// folder. After a crash of everything the kernel may have given the number to
// another process, or to the postgres of another folder.
func (s *Server) alive(ctx context.Context) bool {
	pid := s.PID()
	return pid > 0 && isPostmaster(commandLine(ctx, pid), s.data)
}

// isPostmaster reports whether a command line is the one that launch makes:
// …/postgres -D <data> -c ….
func isPostmaster(line, data string) bool {
	return strings.Contains(line, "/postgres -D "+data+" -c ")
}

// commandLine is how a process was called, with spaces between the words; empty
// when it is gone or waits to be reaped. Without /proc, ps tells it.
func commandLine(ctx context.Context, pid int) string {
	if hasProc() {
		return procCommandLine(pid)
	}
	out, err := exec.CommandContext(ctx, "ps", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return string(out)
}

func procCommandLine(pid int) string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return ""
	}
	return string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
}

func hasProc() bool {
	_, err := os.Stat("/proc/self/cmdline")
	return err == nil
}

// processes lists the numbers of all processes; none where there is no /proc.
func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// backendsIn finds the server processes that work in the data folder, without
// the postmaster.
func backendsIn(data string) []int {
	return slices.DeleteFunc(processes(), func(pid int) bool {
		return !strings.HasPrefix(procCommandLine(pid), "postgres: ") ||
			!samePath(filepath.Join("/proc", strconv.Itoa(pid), "cwd"), data)
	})
}

// childrenOf finds the processes that a process started and that live.
func childrenOf(parent int) []int {
	return slices.DeleteFunc(processes(), func(pid int) bool {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			return true
		}
		// "1 (name with spaces) S <parent> …"
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		return len(fields) < 2 || fields[1] != strconv.Itoa(parent)
	})
}

// clearCrash removes what kill -9 of a postmaster leaves: a backend that is busy
// notices late that it is alone and would keep the next server from starting,
// and its lock files, whose number may belong to somebody else by now, would
// too. It must run under the supervisor's lock and after alive said no.
func (s *Server) clearCrash() error {
	for _, pid := range backendsIn(s.data) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end a process of a killed server: %w", err)
		}
	}
	for _, file := range []string{s.pidFile(), s.socket(), s.socket() + ".lock"} {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("clear up after a crash: %w", err)
		}
	}
	return nil
}
