// Package tcp opens connections to the servers of the product (PostgreSQL, MongoDB,
// RabbitMQ) so that the kernel itself gives up a peer that went away without a word: a
// host that is frozen or cut off, a NAT table that lost its state. It does not notice a
// peer whose kernel acknowledges and whose program is silent; deadlines of the callers do.
package tcp

import (
	"context"
	"net"
	"syscall"
	"time"
)

const (
	// ConnectLimit is how long a connection may take to be opened.
	ConnectLimit = 5 * time.Second
	// UserTimeout is how long sent bytes may stay unacknowledged (RFC 5482), where the
	// system knows it: Linux.
	UserTimeout = 10 * time.Second

	// A peer that says nothing is asked after aliveIdle, then every aliveEvery, and given
	// up after aliveCount questions: within 11 s.
	aliveIdle  = 5 * time.Second
	aliveEvery = 2 * time.Second
	aliveCount = 3
)

// Unsent is the most bytes of a connection of Listen that wait in the kernel and have not
// been sent yet, where the system can limit them (Linux): what a client does not read is
// not made either. What was sent and is on its way does not count, so a client that reads
// is served as fast as without.
const Unsent = 128 << 10

// Listen listens for clients who may read slowly.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return setUnsent(c, Unsent) }}
	lc.SetMultipathTCP(false) // connections of such listeners do not get the option
	return lc.Listen(ctx, "tcp", address)
}

// Dialer returns a dialer with these limits. Unix sockets have none: their peer is the
// same kernel.
func Dialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         ConnectLimit,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: aliveIdle, Interval: aliveEvery, Count: aliveCount},
		Control: func(network, _ string, c syscall.RawConn) error {
			if network != "tcp4" && network != "tcp6" {
				return nil
			}
			return setUserTimeout(c, UserTimeout)
		},
	}
}
