//go:build linux || darwin

package app

import "syscall"

// openFiles is how many files the process may have open. Go has raised the soft limit to
// the hard one.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || limit.Cur == 0 {
		return 4 * maxConnections
	}
	return limit.Cur
}
