//go:build !linux

package tcp

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing: the system has no such option, keepalives remain.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }

// setUnsent does nothing: the system has no such option.
func setUnsent(syscall.RawConn, int) error { return nil }
