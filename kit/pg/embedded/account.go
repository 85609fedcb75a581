//go:build unix

package embedded

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is who the server runs as. PostgreSQL refuses root: where this process
// is root, the server gets a user namespace in which root's files belong to
// somebody else or, where namespaces are forbidden, an unprivileged user. The
// zero value is this process's own user.
type account struct {
	uid, gid  int
	namespace bool
	change    bool // this process is root
}

// nobodyID is the user "nobody" on nearly every system.
const nobodyID = 65534

// serverUID is the user that a server of root runs as. initdb wants its number
// to have a name.
func serverUID() int {
	uid, _ := unprivilegedIDs()
	return uid
}

func unprivilegedIDs() (uid, gid int) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errU := strconv.Atoi(u.Uid)
		gid, errG := strconv.Atoi(u.Gid)
		if errU == nil && errG == nil && uid != 0 {
			return uid, gid
		}
	}
	return nobodyID, nobodyID
}

// apply makes the command run as the account.
func (a account) apply(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	switch {
	case a.namespace:
		enterNamespace(cmd.SysProcAttr, a)
	case a.change:
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
}

// own gives folders to the account, where they belong to another: after a change
// of namespace to user or back. In a namespace root's files are the account's.
func (a account) own(dirs ...string) error {
	if !a.change {
		return nil
	}
	uid, gid := a.uid, a.gid
	if a.namespace {
		uid, gid = 0, 0
	}
	for _, dir := range dirs {
		if err := give(dir, uid, gid); err != nil {
			return fmt.Errorf("give %s to user %d: %w", dir, uid, reason(err))
		}
		if err := a.reach(dir); err != nil {
			return err
		}
	}
	return nil
}

func give(dir string, uid, gid int) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) == uid {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}

// reach lets the account pass through the data folder, whose content stays
// closed, and tells of a folder above that it cannot pass.
func (a account) reach(dir string) error {
	if a.namespace {
		return nil
	}
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		return fmt.Errorf("open %s for user %d: %w", filepath.Dir(dir), a.uid, reason(err))
	}
	for up := filepath.Dir(filepath.Dir(dir)); up != "/"; up = filepath.Dir(up) {
		if st, err := os.Stat(up); err != nil || st.Mode()&0o001 == 0 {
			return fmt.Errorf("PostgreSQL does not run as root, and user %d cannot enter %s (set TURUMBA_DATA_DIR to a folder that it can)", a.uid, up)
		}
	}
	return nil
}
