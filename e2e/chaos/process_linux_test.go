package chaos_test

import (
	"os/exec"
	"syscall"
)

// endWithTest lets a program end with the test, also with one that ran out of time or
// was killed, and so cannot clean up. The kernel means the thread that started it; those
// of Go live as long as the process, as long as nobody locks one.
func endWithTest(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
