//go:build unix && !linux

package embedded

import (
	"os/exec"
	"syscall"
)

// unprivileged leaves the command as it is: elsewhere PostgreSQL itself says
// that it will not run as root.
func unprivileged(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
}
