package fault_test

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/e2e/chaos/fault"
	"github.com/turumba/turumba/kit/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers each line with itself and keeps all it got.
type echo struct {
	mu  sync.Mutex
	got strings.Builder
}

func (e *echo) text() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got.String()
}

func (e *echo) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	for lines := bufio.NewReader(c); ; {
		line, err := lines.ReadString('\n')
		e.mu.Lock()
		e.got.WriteString(line)
		e.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, line); err != nil {
			return
		}
	}
}

func start(t *testing.T, network string) (*fault.Proxy, *echo) {
	t.Helper()
	listen, front := "127.0.0.1:0", "127.0.0.1:0"
	if network == "unix" {
		dir := t.TempDir()
		listen, front = filepath.Join(dir, "back"), filepath.Join(dir, "front")
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), network, listen)
	require.NoError(t, err)
	e, serving := &echo{}, sync.WaitGroup{}
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { e.serve(c) })
		}
	})
	p, err := fault.New(network, front, l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() {
		p.Close()
		require.NoError(t, l.Close())
		serving.Wait()
	})
	return p, e
}

func dial(t *testing.T, network string, p *fault.Proxy) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), network, p.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// say sends a line and returns what comes back within a while.
func say(t *testing.T, c net.Conn, line string, within time.Duration) (string, error) {
	t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", err
	}
	return hear(t, c, within)
}

func hear(t *testing.T, c net.Conn, within time.Duration) (string, error) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(clock.System().Now().Add(within)))
	return bufio.NewReader(c).ReadString('\n')
}

const (
	long  = 10 * time.Second
	short = 50 * time.Millisecond
)

func TestProxy(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			p, e := start(t, network)
			c := dial(t, network, p)
			got, err := say(t, c, "hello", long)
			require.NoError(t, err)
			require.Equal(t, "hello\n", got)

			p.Stall()
			_, err = say(t, c, "stalled", short)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NotContains(t, e.text(), "stalled")
			require.NoError(t, p.Pass())
			got, err = hear(t, c, long)
			require.NoError(t, err)
			require.Equal(t, "stalled\n", got)

			p.HalfOpen(fault.ToClient)
			_, err = say(t, c, "half", short)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Contains(t, e.text(), "half")
			require.NoError(t, p.Pass())
			got, err = hear(t, c, long)
			require.NoError(t, err)
			require.Equal(t, "half\n", got)

			began := clock.System().Now()
			p.Latency(short, short)
			_, err = say(t, c, "slow", long)
			require.NoError(t, err)
			require.GreaterOrEqual(t, clock.System().Now().Sub(began), 2*short)
			require.NoError(t, p.Pass())

			p.Refuse()
			_, err = (&net.Dialer{}).DialContext(t.Context(), network, p.Addr())
			require.Error(t, err)
			_, err = say(t, c, "still open", long)
			require.NoError(t, err)
			require.NoError(t, p.Pass())

			p.Reset()
			_, err = say(t, c, "after", long)
			require.Error(t, err)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
			_, err = say(t, dial(t, network, p), "again", long)
			require.NoError(t, err)
		})
	}
}

// TestCut: the server hears all up to the pattern, the client no answer to it.
func TestCut(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			p, e := start(t, network)
			c := dial(t, network, p)
			p.CutAfter(fault.ToServer, "COMMIT\n")
			_, err := say(t, c, "BEGIN", long)
			require.NoError(t, err)
			_, err = io.WriteString(c, "COM")
			require.NoError(t, err)
			require.Eventually(t, func() bool { return p.Cuts() == 0 }, long, time.Millisecond)
			_, err = say(t, c, "MIT", long)
			require.Error(t, err)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Eventually(t, func() bool { return e.text() == "BEGIN\nCOMMIT\n" }, long, time.Millisecond)
			require.Equal(t, 1, p.Cuts())
			_, err = say(t, dial(t, network, p), "COMMIT", long)
			require.NoError(t, err, "a cut happens once")

			p.CutAfterBytes(fault.ToServer, 3)
			_, err = say(t, dial(t, network, p), "12345", long)
			require.Error(t, err)
			require.Eventually(t, func() bool { return strings.HasSuffix(e.text(), "\n123") }, long, time.Millisecond)
		})
	}
}

// TestResetIsAReset: the client sees it as one, not as an end.
func TestResetIsAReset(t *testing.T) {
	p, _ := start(t, "tcp")
	c := dial(t, "tcp", p)
	_, err := say(t, c, "hello", long)
	require.NoError(t, err)
	p.Reset()
	_, err = hear(t, c, long)
	require.ErrorIs(t, err, syscall.ECONNRESET)
}
