package embedded

import (
	"context"
	"os"
	"os/exec"
	"syscall"
)

// otherThanRoot chooses who the server runs as.
func otherThanRoot(ctx context.Context) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	a := account{change: true, namespace: true}
	a.uid, a.gid = unprivilegedIDs()
	try := exec.CommandContext(ctx, "/bin/sh", "-c", ":")
	a.apply(try)
	if try.Run() != nil {
		a.namespace = false // containers often forbid it
	}
	return a, ctx.Err()
}

// enterNamespace maps root's files to the account; nothing changes outside.
func enterNamespace(attr *syscall.SysProcAttr, a account) {
	attr.Cloneflags = syscall.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: a.uid, HostID: 0, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: a.gid, HostID: 0, Size: 1}}
}
