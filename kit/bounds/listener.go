package bounds

import (
	"net"
	"sync"
	"sync/atomic"
)

// Listener keeps at most most connections of l open at once; it closes those beyond at
// once, before a byte of them is read.
func Listener(l net.Listener, most int) net.Listener {
	return &listener{Listener: l, most: int64(most)}
}

type listener struct {
	net.Listener
	most int64
	open atomic.Int64
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.most {
			return &conn{Conn: c, open: &l.open}, nil
		}
		l.open.Add(-1)
		_ = c.Close() // nobody is told; the next one may find room
	}
}

// conn gives its place back when it is closed.
type conn struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
