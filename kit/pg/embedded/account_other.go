//go:build unix && !linux

package embedded

import (
	"context"
	"os"
	"syscall"
)

// otherThanRoot chooses who the server runs as.
func otherThanRoot(context.Context) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	a := account{change: true}
	a.uid, a.gid = unprivilegedIDs()
	return a, nil
}

// enterNamespace does nothing: only Linux has user namespaces.
func enterNamespace(*syscall.SysProcAttr, account) {}
