//go:build unix

package embedded

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// The supervisor stops the server (fast shutdown) when its standard input ends,
// which happens however this process ends. Handle 3 is its lock. The part that
// reads holds it too, until the server is gone; the server gets neither, so that
// it can outlive its supervisor without looking supervised.
const (
	// stopAtEnd stops the process $pid, which removes the file $file when it has
	// stopped, and waits for that, at most a minute.
	stopAtEnd = `stop_at_end() {
	read -r _ <&4
	kill -INT "$pid"
	n=0
	while [ -e "$file" ] && kill -0 "$pid" 2>/dev/null && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done
}
exec 4<&0 </dev/null
file=$1; shift
`
	// starter runs the server, which is the rest of its arguments.
	starter = stopAtEnd + `"$@" 3<&- 4<&- & pid=$!
stop_at_end & reader=$!
wait $pid
kill $reader 2>/dev/null`
	// adopter watches a server that runs already.
	adopter = stopAtEnd + `pid=$1
stop_at_end`
)

// settings of this server's command line.
func (s *Server) settings() []string {
	all := []string{"listen_addresses=", "port=5432", "unix_socket_directories=" + s.socketDir, "unix_socket_permissions=0700"}
	if !s.opts.Stock {
		for _, set := range Settings() {
			all = append(all, set.Name+"="+set.Value)
		}
	}
	return append(all, s.opts.Settings...)
}

// launch starts the server under a supervisor.
func (s *Server) launch(lock *os.File) error {
	args := []string{s.bin.postgres, "-D", s.data}
	for _, set := range s.settings() {
		args = append(args, "-c", set)
	}
	return s.supervise(lock, starter, args...)
}

// supervise starts a supervisor in a session of its own, so that Ctrl-C in a
// terminal reaches this process alone.
func (s *Server) supervise(lock *os.File, script string, args ...string) error {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	defer func() { _ = log.Close() }()                                                            // the child has its own handle
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh", s.pidFile()}, args...)...) // no context: Stop and the pipe end it
	cmd.Env = s.bin.env()
	cmd.Dir = "/" // the folder of this process may be closed to the server's account
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s.user.apply(cmd)
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	done := make(chan struct{})
	s.watcher, s.done = cmd.Process.Pid, done
	go wait(cmd, done)
	return nil
}

// wait reaps the supervisor; how the server ended stands in its log.
func wait(cmd *exec.Cmd, done chan<- struct{}) {
	_ = cmd.Wait()
	close(done)
}
