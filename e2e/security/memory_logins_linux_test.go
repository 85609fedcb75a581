package security_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/e2e/wire"
)

const (
	// hashMemory is what the check of a password needs, in KiB; as many are checked at once
	// as there are cores.
	hashMemory = 32 << 10
	// usedMemory is what a connection may need that calls at once and again, in KiB.
	usedMemory = 64
	// loginSides is from how many addresses somebody logs in at once.
	loginSides = 200

	loginPassword = "a long sentence of a person"
	// loginHash is loginPassword with the parameters of the product.
	loginHash = "$argon2id$v=19$m=32768,t=2,p=1$RgAHf3rzA5kZ5NGyFddTcQ$t0T96JpZBr8qaxpBKqVUFNf9+JAuO9RY8q/R/B0MzXQ"
)

// TestMemoryOfLogins: 200 addresses that log in at once, with right and with wrong
// passwords, make no process larger than what is checked at once needs.
func TestMemoryOfLogins(t *testing.T) {
	s := report.suite("memory of logins")
	m := startServices(t)
	m.addUsers(t)
	m.warmUp(t, wire.Methods())
	lasts := 10 * time.Second
	if full {
		lasts = 2 * time.Minute
	}
	before := m.peaks(t)
	answers := m.logIn(t, lasts)
	for i, after := range m.peaks(t) {
		may := mayGrow + loginSides*usedMemory
		if m.names[i] == "account" {
			may = mayGrow + runtime.GOMAXPROCS(0)*hashMemory
		}
		grown := after - before[i]
		s.check(t, grown <= may, "logins: %s grew by %d MiB, at most %d are allowed", m.names[i], grown>>10, may>>10)
		t.Logf("%-12s %-10s %6d KiB more", "logins", m.names[i], grown)
	}
	checked := answers[http.StatusOK] + answers[http.StatusUnauthorized]
	s.check(t, answers[http.StatusOK] > 0 && answers[http.StatusUnauthorized] > 0, "logins were answered %v", answers)
	s.coverage = fmt.Sprintf("%d addresses, %.1f passwords checked a second, answers %v", loginSides, float64(checked)/lasts.Seconds(), answers)
	t.Log(s.coverage)
}

// addUsers gives each address a user.
func (m *services) addUsers(t *testing.T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), m.database("turumba_account"))
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `INSERT INTO users (id, email, idp_issuer, idp_subject, password_hash, created_at, updated_at)
		SELECT gen_random_uuid(), 'person' || n || '@people.example', 'http://test', n, $1, now(), now() FROM generate_series(1, $2::int) n`, loginHash, loginSides)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
}

// logIn logs in from all addresses at once, again and again, every other time with a wrong
// password, and counts the answers by status.
func (m *services) logIn(t *testing.T, lasts time.Duration) map[int]int {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), lasts)
	defer stop()
	var mu sync.Mutex
	answers := map[int]int{}
	var g errgroup.Group
	for side := range loginSides {
		client := from(fmt.Sprintf("127.0.1.%d", 1+side))
		g.Go(func() error {
			defer client.CloseIdleConnections()
			for n := 0; ctx.Err() == nil; n++ {
				status := m.tryLogin(ctx, client, fmt.Sprintf("person%d@people.example", 1+side), n%2 == 0)
				mu.Lock()
				answers[status]++
				mu.Unlock()
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	delete(answers, 0)
	return answers
}

// tryLogin logs in and returns the status of the answer, 0 without one.
func (m *services) tryLogin(ctx context.Context, client *http.Client, email string, right bool) int {
	login := map[string]string{"email": email, "password": loginPassword}
	if !right {
		login["password"] += "?"
	}
	body, err := json.Marshal(login)
	if err != nil {
		return 0
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.rest+"/v1/auth/login", bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, res.Body) // the status is enough
	_ = res.Body.Close()
	return res.StatusCode
}

const (
	// idleREST and idleGRPC are how many connections are held; restMemory and grpcMemory
	// are what each may cost, in KiB.
	idleREST, restMemory = 4000, 32
	idleGRPC, grpcMemory = 3000, 64
)

// holds is how many of n connections the files of this process suffice for.
func holds(t *testing.T, n int) int {
	t.Helper()
	var files syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	return min(n, int(files.Cur)*3/4)
}

// TestMemoryOfConnections: thousands of connections that nobody uses cost what is said of
// each and no more: REST ones that are kept after a call, and those of gRPC.
func TestMemoryOfConnections(t *testing.T) {
	s := report.suite("memory of connections")
	m := startServices(t)
	m.warmUp(t, wire.Methods())
	rest, calls := holds(t, idleREST), holds(t, idleGRPC)
	if full {
		rest, calls = holds(t, 3*idleREST), holds(t, 4000)
	}
	for _, kind := range []struct {
		name, process string
		n, each       int
		open          func(ctx context.Context) net.Conn
	}{
		{"REST kept", "gateway", rest, restMemory, m.openREST},
		{"gRPC idle", "account", calls, grpcMemory, m.openGRPC},
	} {
		before := m.peaks(t)
		open := m.openAll(t, kind.n, kind.open)
		for i, after := range m.peaks(t) {
			may := mayGrow
			if m.names[i] == kind.process {
				may += kind.n * kind.each
			}
			grown := after - before[i]
			s.check(t, grown <= may, "%s: %s grew by %d MiB, at most %d are allowed", kind.name, m.names[i], grown>>10, may>>10)
			t.Logf("%-12s %-10s %6d KiB more, %d KiB a connection", kind.name, m.names[i], grown, grown/kind.n)
		}
		s.check(t, open == kind.n, "%s: %d of %d connections were open", kind.name, open, kind.n)
	}
	s.coverage = fmt.Sprintf("%d REST of %d KiB, %d gRPC of %d KiB at most", rest, restMemory, calls, grpcMemory)
}

// openAll opens so many connections, a part of them at once, and returns how many opened.
func (m *services) openAll(t *testing.T, n int, open func(ctx context.Context) net.Conn) (opened int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conns := make([]net.Conn, n)
	var g errgroup.Group
	g.SetLimit(attackers)
	for i := range conns {
		g.Go(func() error {
			conns[i] = open(ctx)
			return nil
		})
	}
	require.NoError(t, g.Wait())
	for _, c := range conns {
		if c != nil {
			opened++
			_ = c.Close() // it was only held
		}
	}
	return opened
}

// openREST makes a call on a new connection and keeps it.
func (m *services) openREST(ctx context.Context) net.Conn {
	return m.openIdle(ctx, m.rest, "GET /v1/users/me HTTP/1.1\r\nHost: x\r\n\r\n")
}

// openGRPC shakes hands for HTTP/2 and keeps the connection.
func (m *services) openGRPC(ctx context.Context) net.Conn {
	return m.openIdle(ctx, m.grpc["turumba.account.v1"], "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
}

// openIdle sends and waits for the first byte of the answer; nil without one.
func (m *services) openIdle(ctx context.Context, addr, hello string) net.Conn {
	conn, ok := dialRaw(ctx, addr)
	if !ok {
		return nil
	}
	if _, err := io.WriteString(conn, hello); err != nil {
		_ = conn.Close()
		return nil
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		_ = conn.Close()
		return nil
	}
	return conn
}
