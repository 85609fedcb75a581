package bounds

import (
	"net"
	"sync"

	"github.com/turumba/turumba/kit/auth"
)

// Listener keeps at most most connections of l open at once. When it is full, a newcomer
// takes the place of a connection of the side that has most, unless its own side has as
// many: a crowd, from one address or from hundreds, keeps nobody else out (ADR 0041).
// Whoever finds no place is closed before a byte is read.
func Listener(l net.Listener, most int) net.Listener {
	return &listener{Listener: l, most: most, sides: map[auth.Side]map[*conn]struct{}{}}
}

type listener struct {
	net.Listener
	most int

	mu    sync.Mutex
	open  int
	sides map[auth.Side]map[*conn]struct{} // none of them empty
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: raw, of: l, side: auth.SideOfPeer(raw.RemoteAddr())}
		out, ok := l.enter(c)
		if out != nil {
			_ = out.Conn.Close() // its server reads that it is gone, and calls Close too
		}
		if ok {
			return c, nil
		}
		_ = raw.Close() // nobody is told; the next one may find room
	}
}

// enter gives a connection a place, if need be that of another, out.
func (l *listener) enter(c *conn) (out *conn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.most {
		if out = l.crowd(len(l.sides[c.side]) + 1); out == nil {
			return nil, false
		}
		l.remove(out)
	}
	l.open++
	if l.sides[c.side] == nil {
		l.sides[c.side] = map[*conn]struct{}{}
	}
	l.sides[c.side][c] = struct{}{}
	return out, true
}

// crowd is a connection of the side that has most, if that is more than so many.
func (l *listener) crowd(more int) (out *conn) {
	for _, conns := range l.sides {
		if len(conns) <= more {
			continue
		}
		more = len(conns)
		for out = range conns {
			break
		}
	}
	return out
}

// remove takes a place back, once.
func (l *listener) remove(c *conn) {
	conns := l.sides[c.side]
	if _, ok := conns[c]; !ok {
		return
	}
	l.open--
	if delete(conns, c); len(conns) == 0 {
		delete(l.sides, c.side)
	}
}

// conn gives its place back when it is closed.
type conn struct {
	net.Conn
	of   *listener
	side auth.Side
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.of.mu.Lock()
	c.of.remove(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
