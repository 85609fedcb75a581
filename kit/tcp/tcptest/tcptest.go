// Package tcptest is a TCP proxy whose open connections can be made silent, as a frozen
// host, a failover or a NAT table that lost its state do: bytes are taken, nothing comes
// back, and nothing tells it.
package tcptest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/turumba/turumba/kit/tcp"
)

// Proxy stands between a client and a server until the test ends.
type Proxy struct {
	listener        net.Listener
	network, target string

	mu     sync.Mutex
	open   map[net.Conn]*atomic.Bool // by connection, whether it is silent; nil after the end
	opened atomic.Int64
	done   sync.WaitGroup
}

// New starts a proxy to a server at a network ("tcp", "unix") and address.
func New(t testing.TB, network, target string) *Proxy {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("tcptest: %v", err)
	}
	p := &Proxy{listener: l, network: network, target: target, open: map[net.Conn]*atomic.Bool{}}
	p.done.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Opened is how many connections there were so far.
func (p *Proxy) Opened() int { return int(p.opened.Load()) }

// Silence makes all connections that are open silent, for good; new ones work. It returns
// how many there were.
func (p *Proxy) Silence() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, silent := range p.open {
		silent.Store(true)
	}
	return len(p.open) / 2
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := tcp.Dialer().Dial(p.network, p.target)
		if err != nil {
			_ = client.Close() // there is no server
			continue
		}
		silent := &atomic.Bool{}
		if !p.add(silent, client, server) {
			return
		}
		p.opened.Add(1)
		p.done.Go(func() { p.carry(server, client, silent) })
		p.done.Go(func() { p.carry(client, server, silent) })
	}
}

func (p *Proxy) add(silent *atomic.Bool, conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.open == nil {
			_ = c.Close() // the test has ended
			continue
		}
		p.open[c] = silent
	}
	return p.open != nil
}

// carry copies what comes, and drops it once the connection is silent.
func (p *Proxy) carry(to, from net.Conn, silent *atomic.Bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if silent.Load() {
			if err != nil {
				p.forget(from) // its end is not told to the other side
				return
			}
			continue
		}
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			p.forget(to, from)
			return
		}
	}
}

func (p *Proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // it is over
		delete(p.open, c)
	}
}

func (p *Proxy) close() {
	_ = p.listener.Close() // nothing is pending on it
	p.mu.Lock()
	for c := range p.open {
		_ = c.Close() // the test is over
	}
	p.open = nil
	p.mu.Unlock()
	p.done.Wait()
}
