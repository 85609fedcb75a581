// Package fault is a proxy that stands before a server and breaks connections in
// the ways that networks and crashing hosts do: slow, silent, deaf on one side,
// reset, refused, or cut just after something was said.
package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/turumba/turumba/kit/clock"
)

// Direction is which way bytes go.
type Direction int

// Directions.
const (
	ToServer Direction = iota
	ToClient
)

// Proxy carries the connections of one address to another. Its methods may be
// called at any time; modes hold until Pass.
type Proxy struct {
	network, listen, target string

	ctx  context.Context
	stop context.CancelFunc
	wait sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while it refuses
	conns    map[*conn]bool
	mode     mode
	changed  chan struct{} // closed when the mode changes
	cut      *cut
	cuts     int
}

// mode is what happens to bytes now.
type mode struct {
	stalled       [2]bool // by Direction
	delay, jitter time.Duration
}

// New starts a proxy. network is tcp or unix, on both sides; listen may have port 0.
func New(network, listen, target string) (*Proxy, error) {
	p := &Proxy{network: network, listen: listen, target: target, conns: map[*conn]bool{}, changed: make(chan struct{})}
	p.ctx, p.stop = context.WithCancel(context.Background())
	if err := p.open(); err != nil {
		return nil, err
	}
	return p, nil
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listen }

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	p.stop()
	p.Refuse()
	p.Reset()
	p.wait.Wait()
}

// open listens, on the same address as before.
func (p *Proxy) open() error {
	var lc net.ListenConfig
	l, err := lc.Listen(p.ctx, p.network, p.listen)
	if err != nil {
		return fmt.Errorf("listen for the proxy: %w", err)
	}
	p.listen, p.listener = l.Addr().String(), l
	p.wait.Go(func() { p.accept(l) })
	return nil
}

// Pass ends every mode: bytes and new connections pass.
func (p *Proxy) Pass() error {
	p.set(mode{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = nil
	if p.listener != nil {
		return nil
	}
	return p.open()
}

// Latency delays everything by d and up to jitter more.
func (p *Proxy) Latency(d, jitter time.Duration) { p.set(mode{delay: d, jitter: jitter}) }

// Stall keeps connections open, takes new ones and carries nothing.
func (p *Proxy) Stall() { p.set(mode{stalled: [2]bool{true, true}}) }

// HalfOpen carries nothing in one direction.
func (p *Proxy) HalfOpen(d Direction) {
	var m mode
	m.stalled[d] = true
	p.set(m)
}

// Silence makes the connections that are open silent, for good: bytes are taken and
// nothing comes back. New ones pass. It returns how many there were.
func (p *Proxy) Silence() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.silent.Store(true)
	}
	return len(p.conns)
}

// Refuse refuses new connections; those that are open stay.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close() // ends accept
		p.listener = nil
	}
}

// Reset ends the open connections without a goodbye; new ones pass.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.reset()
	}
}

// CutAfter cuts the next connection that carries the pattern in the direction, once,
// after the pattern. Cut on its way to the server, the client gets no answer to it.
func (p *Proxy) CutAfter(d Direction, pattern string) {
	p.arm(&cut{direction: d, pattern: []byte(pattern)})
}

// CutAfterBytes cuts the next connection that has carried n bytes in the direction.
func (p *Proxy) CutAfterBytes(d Direction, n int) { p.arm(&cut{direction: d, bytes: n}) }

// Cuts is how many connections CutAfter and CutAfterBytes have cut.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

func (p *Proxy) arm(c *cut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = c
}

func (p *Proxy) set(m mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := (&net.Dialer{}).DialContext(p.ctx, p.network, p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		c := &conn{proxy: p, client: client, server: server, ended: make(chan struct{})}
		p.mu.Lock()
		p.conns[c] = true
		if p.ctx.Err() != nil {
			c.reset()
		}
		p.mu.Unlock()
		p.wait.Go(c.run)
	}
}

// admit waits until bytes may pass in the direction; false if the connection ends
// first.
func (p *Proxy) admit(c *conn, d Direction) bool {
	for {
		p.mu.Lock()
		m, changed := p.mode, p.changed
		p.mu.Unlock()
		if !m.stalled[d] {
			return m.wait(p.ctx) == nil
		}
		select {
		case <-changed:
		case <-c.ended:
			return false
		}
	}
}

func (m mode) wait(ctx context.Context) error {
	d := m.delay
	if m.jitter > 0 {
		d += rand.N(m.jitter)
	}
	if d == 0 {
		return nil
	}
	return clock.Sleep(ctx, clock.System(), d)
}

// due says how many of the bytes still pass if a cut falls into them, and takes
// the cut.
func (p *Proxy) due(d Direction, seen *tail, b []byte) (upto int, falls bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut == nil || p.cut.direction != d {
		seen.add(b)
		return len(b), false
	}
	upto, falls = p.cut.find(seen, b)
	seen.add(b)
	if falls {
		p.cut = nil
		p.cuts++
	}
	return upto, falls
}

func (p *Proxy) forget(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}
