package channeltest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
)

// Hostname is the host that the settings of a suite name; it is the name in the
// certificate of peers that speak TLS.
const Hostname = "provider.example.test"

// Peer plays the provider on one connection. An error fails the test.
type Peer func(*Conn) error

// Conn is the provider's end of a connection. What it reads is recorded.
type Conn struct {
	net.Conn
	ctx  context.Context
	tls  *tls.Config
	r    *bufio.Reader
	seen *bytes.Buffer
}

// Read reads from the adapter and records it.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.seen.Write(p[:n])
	return n, err
}

// Line reads one line and returns it without its line break.
func (c *Conn) Line() (string, error) {
	line, err := c.r.ReadString('\n')
	c.seen.WriteString(line)
	return strings.TrimRight(line, "\r\n"), err
}

// StartTLS puts TLS on the connection.
func (c *Conn) StartTLS() error {
	secure := tls.Server(c.Conn, c.tls)
	if err := secure.HandshakeContext(c.ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.Conn = secure
	c.r.Reset(secure)
	return nil
}

// Reset closes the connection with a TCP reset.
func (c *Conn) Reset() error {
	inner := c.Conn
	if secure, ok := inner.(*tls.Conn); ok {
		inner = secure.NetConn()
	}
	if tcp, ok := inner.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	return inner.Close()
}

// Hold reads until the adapter closes the connection.
func (c *Conn) Hold() error {
	_, _ = io.Copy(io.Discard, c)
	return nil
}

// Dialogue returns a Peer for a protocol of lines. Each step is one of
//
//	"S: text"   the peer says a line
//	"C: text"   the adapter must say a line that begins with text
//	"C..."      the adapter sends lines up to a single dot
//	"tls"       a TLS handshake; "tls-refused" is one that the adapter must break off
//	"close"     the peer closes; "reset" does so with a TCP reset
//	"hold"      the peer says nothing more and waits for the adapter to go
//
// After the last step it reads until the adapter goes.
func Dialogue(steps ...string) Peer {
	return func(c *Conn) error {
		for _, step := range steps {
			done, err := c.perform(step)
			if err != nil {
				return fmt.Errorf("step %q: %w", step, err)
			}
			if done {
				return nil
			}
		}
		return c.Hold()
	}
}

func (c *Conn) perform(step string) (done bool, err error) {
	if text, ok := strings.CutPrefix(step, "S: "); ok {
		_, err := io.WriteString(c, text+"\r\n")
		return false, err
	}
	if text, ok := strings.CutPrefix(step, "C: "); ok {
		line, err := c.Line()
		if err == nil && !strings.HasPrefix(line, text) {
			err = fmt.Errorf("the adapter said %q", line)
		}
		return false, err
	}
	switch step {
	case "C...":
		return false, c.untilDot()
	case "tls":
		return false, c.StartTLS()
	case "tls-refused":
		if c.StartTLS() == nil && c.mustRead() {
			return true, errors.New("the adapter trusted the peer")
		}
		return true, nil
	case "close":
		return true, c.Close()
	case "reset":
		return true, c.Reset()
	case "hold":
		return true, c.Hold()
	default:
		return true, errors.New("unknown step")
	}
}

// mustRead reports whether the adapter says anything. In TLS 1.3 the peer learns
// of a refused certificate only when it reads.
func (c *Conn) mustRead() bool {
	n, err := c.Read(make([]byte, 1))
	return n > 0 && err == nil
}

func (c *Conn) untilDot() error {
	for {
		line, err := c.Line()
		if err != nil || line == "." {
			return err
		}
	}
}

// peers listens on the loopback interface and gives each connection its Peer.
type peers struct {
	ctx      context.Context
	listener net.Listener
	tls      *tls.Config
	roots    *x509.CertPool
	group    sync.WaitGroup

	mu       sync.Mutex
	script   []Peer
	seen     []*bytes.Buffer
	failures []error
	dialed   []string
	refuse   error
}

func listen(t *testing.T, script []Peer, names ...string) *peers {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &peers{ctx: t.Context(), listener: listener, script: script}
	p.tls, p.roots = certificate(t, names)
	p.group.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.group.Wait()
	})
	return p
}

func (p *peers) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		if len(p.script) == 0 {
			p.failures = append(p.failures, errors.New("the adapter opened one connection too many"))
			p.mu.Unlock()
			_ = conn.Close()
			continue
		}
		peer := p.script[0]
		p.script = p.script[1:]
		seen := &bytes.Buffer{}
		p.seen = append(p.seen, seen)
		p.mu.Unlock()
		p.group.Go(func() { p.serve(conn, peer, seen) })
	}
}

func (p *peers) serve(conn net.Conn, peer Peer, seen *bytes.Buffer) {
	c := &Conn{Conn: conn, ctx: p.ctx, tls: p.tls, r: bufio.NewReader(conn), seen: seen}
	_ = conn.SetDeadline(clock.System().Now().Add(limit))
	err := peer(c)
	_ = c.Close()
	if err != nil {
		p.mu.Lock()
		p.failures = append(p.failures, err)
		p.mu.Unlock()
	}
}

// wait lets the peers finish and returns what they saw.
func (p *peers) wait(t *testing.T) string {
	t.Helper()
	_ = p.listener.Close()
	p.group.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.NoError(t, errors.Join(p.failures...))
	require.Empty(t, p.script, "the adapter opened too few connections")
	var all strings.Builder
	for _, seen := range p.seen {
		all.Write(seen.Bytes())
	}
	return all.String()
}

func (p *peers) refuseWith(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = err
}

func (p *peers) dialedAddresses() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialed
}

// certificate makes the identity of the names; empty ones do not count.
func certificate(t *testing.T, names []string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	now := clock.System().Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: Hostname},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(time.Hour),
		DNSNames:     slices.DeleteFunc(names, func(name string) bool { return name == "" }),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:   tls.VersionTLS12,
	}, roots
}
