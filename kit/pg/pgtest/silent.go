package pgtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Silent stands before PostgreSQL. Connections that are open when it freezes take bytes
// from then on and never answer; new ones work: what a failover or a frozen host leaves.
type Silent struct {
	listener        net.Listener
	network, target string
	carrying        sync.WaitGroup

	mu    sync.Mutex
	conns []*pair
}

type pair struct {
	client, server net.Conn
	frozen         bool
}

// Silence puts one before the server of url, and returns the URL that leads through it.
// Call Cut before a pool is closed: closing waits for silent connections.
func Silence(t testing.TB, url string) (s *Silent, through string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	s = &Silent{}
	s.network, s.target = pgconn.NetworkAddress(cfg.Host, cfg.Port)
	var lc net.ListenConfig
	if s.listener, err = lc.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	s.carrying.Go(s.accept)
	t.Cleanup(func() {
		_ = s.listener.Close()
		s.Cut()
		s.carrying.Wait()
	})
	return s, fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", cfg.User, cfg.Password, s.listener.Addr(), cfg.Database)
}

func (s *Silent) accept() {
	for {
		client, err := s.listener.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		server, err := d.DialContext(context.Background(), s.network, s.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p := &pair{client: client, server: server}
		s.mu.Lock()
		s.conns = append(s.conns, p)
		s.mu.Unlock()
		s.carrying.Go(func() { s.carry(p, server, client) })
		s.carrying.Go(func() { s.carry(p, client, server) })
	}
}

func (s *Silent) carry(p *pair, to io.WriteCloser, from io.ReadCloser) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		s.mu.Lock()
		frozen := p.frozen
		s.mu.Unlock()
		if frozen {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// Freeze makes every open connection silent, and returns how many there were.
func (s *Silent) Freeze() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.conns {
		p.frozen = true
	}
	return len(s.conns)
}

// Cut ends all connections.
func (s *Silent) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.conns {
		_, _ = p.client.Close(), p.server.Close()
	}
}
