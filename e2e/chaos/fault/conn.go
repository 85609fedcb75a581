package fault

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/turumba/turumba/kit/clock"
)

// conn is one connection through the proxy.
type conn struct {
	proxy          *Proxy
	client, server net.Conn

	once   sync.Once
	ended  chan struct{}
	silent atomic.Bool
}

// run carries both ways until both have ended.
func (c *conn) run() {
	defer c.proxy.forget(c)
	var both sync.WaitGroup
	both.Go(func() { c.carry(ToServer, c.server, c.client) })
	both.Go(func() { c.carry(ToClient, c.client, c.server) })
	both.Wait()
	_, _ = c.client.Close(), c.server.Close()
}

// carry ends with the connection it reads from, and passes that end on.
func (c *conn) carry(d Direction, to, from net.Conn) {
	buf, seen := make([]byte, 32<<10), &tail{}
	for {
		n, err := from.Read(buf)
		if n > 0 && !c.forward(d, to, seen, buf[:n]) {
			return
		}
		if err != nil {
			if c.silent.Load() && d == ToServer {
				c.wait() // the server does not learn of it
			}
			c.passEnd(to)
			return
		}
	}
}

func (c *conn) forward(d Direction, to net.Conn, seen *tail, b []byte) bool {
	if !c.proxy.admit(c, d) {
		return false
	}
	if c.silent.Load() {
		return true
	}
	upto, falls := c.proxy.due(d, seen, b)
	if falls && d == ToServer {
		abort(c.client) // before the server can answer
	}
	if _, err := to.Write(b[:upto]); err != nil {
		c.reset()
		return false
	}
	if falls {
		c.cut()
	}
	return !falls
}

// silence is for how long a server does not learn that the client of a silent connection
// has given it up, as the tables of a router forget it.
const silence = time.Minute

// wait keeps the server's side open.
func (c *conn) wait() {
	select {
	case <-c.ended:
	case <-c.proxy.ctx.Done():
	case <-clock.System().NewTimer(silence).C():
	}
}

// passEnd lets the other side know that nothing more comes.
func (c *conn) passEnd(to net.Conn) {
	if w, ok := to.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite() // it may be gone
	}
}

// cut ends the client's side and lets the server finish what it was told: a reset
// would take from it what it has not read yet.
func (c *conn) cut() {
	c.once.Do(func() { close(c.ended) })
	_ = c.client.Close() // it may be aborted
	c.passEnd(c.server)
	_, _ = io.Copy(io.Discard, c.server)
}

// reset ends both sides without a goodbye.
func (c *conn) reset() {
	c.once.Do(func() { close(c.ended) })
	abort(c.client)
	abort(c.server)
}

func abort(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // its close is a reset
	}
	_ = c.Close()
}

// cut is where a connection breaks: after the pattern, or after a number of bytes.
type cut struct {
	direction Direction
	pattern   []byte
	bytes     int
}

// find looks for the end of the cut in b, before which seen was carried.
func (c *cut) find(seen *tail, b []byte) (upto int, falls bool) {
	if c.pattern == nil {
		if rest := c.bytes - seen.total; rest <= len(b) {
			return max(rest, 0), true
		}
		return len(b), false
	}
	before := seen.last(len(c.pattern) - 1)
	at := bytes.Index(append(before, b...), c.pattern)
	if at < 0 {
		return len(b), false
	}
	return at + len(c.pattern) - len(before), true
}

// maxPattern is the longest pattern that is found across two reads.
const maxPattern = 256

// tail is what a direction has carried: how much, and the end of it.
type tail struct {
	total int
	end   []byte
}

func (t *tail) add(b []byte) {
	t.total += len(b)
	t.end = append(t.end, b...)
	t.end = bytes.Clone(t.end[max(0, len(t.end)-maxPattern):])
}

// last are the last n bytes, or all there are.
func (t *tail) last(n int) []byte { return bytes.Clone(t.end[max(0, len(t.end)-n):]) }
