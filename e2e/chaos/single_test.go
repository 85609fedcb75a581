package chaos_test

import (
	"fmt"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/kit/clock"
)

// TestKillSingleProcess kills turumba alone and, in turns, with its whole
// process tree including PostgreSQL.
func TestKillSingleProcess(t *testing.T) {
	t.Parallel()
	recipients, kills := size(t)
	simulator := startSimulator(t)
	data, http, admin := t.TempDir(), port(t), port(t)
	host, smtp := simulator.HostPort()
	p := newProgram(t, binary(t, "cmd/turumba"), "http://"+admin+"/readyz", []string{"up"},
		"TURUMBA_DATA_DIR="+data, "HTTP_ADDR="+http, "ADMIN_ADDR="+admin, "GRPC_ADDR=127.0.0.1:0", "LOG_LEVEL=WARN",
		fmt.Sprintf("MAIL_URL=smtp://%s:%d?plaintext=true&from=no-reply@turumba.example", host, smtp),
		fmt.Sprintf("EGRESS_ALLOW=%s/32:%d", host, smtp))
	t.Cleanup(p.killTree)
	b := &book{t: t, simulator: simulator, total: recipients, url: socketURL(data)}
	b.slow(20)
	done := b.send("http://" + http)
	for k := range kills {
		b.until(recipients*k/kills + 1)
		if k%2 == 0 {
			p.kill()
		} else {
			p.killTree()
		}
		p.start()
		b.check()
	}
	b.slow(0)
	require.NoError(t, <-done)
	b.compare(kills)
}

func startSimulator(t *testing.T) *single.Simulator {
	t.Helper()
	s, err := single.StartSimulator(t.Context(), t.TempDir(), clock.System())
	require.NoError(t, err)
	t.Cleanup(func() { s.Stop(t.Context()) })
	return s
}

// socketURL reaches the own PostgreSQL of a data folder as its administrator.
func socketURL(data string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/turumba_messaging"}
	u.RawQuery = url.Values{"host": {filepath.Join(data, "postgres-socket")}, "sslmode": {"disable"}}.Encode()
	return u.String()
}
