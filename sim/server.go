package sim

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/turumba/turumba/kit/clock"
)

// acceptPause is the wait after a failed accept, such as too many open files.
const acceptPause = 10 * time.Millisecond

// connSet is the set of open SMTP connections.
type connSet struct {
	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
	group  sync.WaitGroup
}

// add reports false when the server stops.
func (c *connSet) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if c.open == nil {
		c.open = map[net.Conn]struct{}{}
	}
	c.open[conn] = struct{}{}
	c.group.Add(1)
	return true
}

func (c *connSet) remove(conn net.Conn) {
	c.mu.Lock()
	delete(c.open, conn)
	c.mu.Unlock()
	c.group.Done()
}

// closeAll closes every connection and refuses new ones.
func (c *connSet) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.open {
		_ = conn.Close()
	}
}

func (c *connSet) wait() { c.group.Wait() }

// count returns how many connections are open.
func (c *connSet) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// serveSMTP accepts connections until ctx ends.
func (s *Server) serveSMTP(ctx context.Context) error {
	for {
		conn, err := s.smtp.Accept()
		switch {
		case err == nil && s.conns.add(conn):
			go s.serveConn(ctx, conn)
		case err == nil:
			_ = conn.Close()
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			s.cfg.Logger.WarnContext(ctx, "accept failed", "err", err)
			if clock.Sleep(ctx, s.cfg.Clock, acceptPause) != nil {
				return nil
			}
		}
	}
}

func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	defer s.conns.remove(conn)
	defer conn.Close()
	session := newSession(ctx, s, conn)
	if s.cfg.TLS == TLSImplicit {
		session.upgrade(tls.Server(conn, s.tls))
	}
	session.serve()
}
