package tcp

import (
	"syscall"
	"time"
)

// Options of linux/tcp.h; tcp(7).
const (
	tcpUserTimeout  = 0x12 // in milliseconds
	tcpNotSentLowat = 0x19 // in bytes; connections have what their listener has
)

func setUserTimeout(c syscall.RawConn, d time.Duration) error {
	return set(c, tcpUserTimeout, int(d.Milliseconds()))
}

func setUnsent(c syscall.RawConn, most int) error { return set(c, tcpNotSentLowat, most) }

func set(c syscall.RawConn, option, value int) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, option, value)
	})
	if err != nil {
		return err
	}
	return failed
}
