package chaos_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/e2e/chaos/fault"
	"github.com/turumba/turumba/kit/bus/rabbitmq/rabbittest"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/pg/embedded"
)

// world is the mesh as the rows break it: the four binaries with failpoints, their
// servers, and a proxy on every way between them. It is shared by all rows, so a
// row leaves it whole: trial.settle starts what the row has killed.
type world struct {
	dir       string // of the binaries
	data      string // of PostgreSQL
	env       []string
	postgres  *embedded.Server
	broker    *rabbittest.Broker
	simulator *single.Simulator
	sql       *pgxpool.Pool // the messaging database past every rule and proxy
	people    *pgxpool.Pool // the account database likewise

	// Proxies: before the database of each process, the broker, the account service as
	// the worker and messaging see it, and the provider as channels see it.
	apiDB, workerDB, accountDB, amqp, accounts, provider *fault.Proxy
	// other is a second provider, behind which is the same simulator.
	other *fault.Proxy

	account, messaging, worker, gateway *program
	accountConn, messagingConn          *grpcserver.Conn
	rest                                string // URL of the gateway
	watch                               *watch
}

// mesh are the binaries.
func mesh() []string {
	return []string{"services/account/cmd/account", "services/messaging/cmd/messaging", "worker/cmd/worker", "gateway/cmd/gateway"}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	var building sync.WaitGroup
	building.Go(func() { _, _ = build(t.Context(), mesh(), "-tags", "chaos") }) // its error is that of the next build
	w := &world{broker: rabbittest.Start(t), simulator: startSimulator(t), data: t.TempDir()}
	w.startPostgres(t)
	building.Wait()
	w.dir = binaries(t, mesh(), "-tags", "chaos")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		require.NoError(t, w.postgres.Stop(ctx))
	})
	host, smtp := w.simulator.HostPort()
	w.provider = proxied(t, "tcp", "127.0.0.1:0", fmt.Sprintf("%s:%d", host, smtp))
	w.other = proxied(t, "tcp", "127.0.0.1:0", fmt.Sprintf("%s:%d", host, smtp))
	w.amqp = proxied(t, "tcp", "127.0.0.1:0", w.broker.Addr())
	w.apiDB, w.workerDB, w.accountDB = w.proxiedDB(t), w.proxiedDB(t), w.proxiedDB(t)
	w.env = []string{
		"TURUMBA_MASTER_KEY=" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32))),
		"SERVICE_TOKEN=" + strings.Repeat("s", 32),
		"EGRESS_ALLOW=" + strings.Join([]string{"127.0.0.1/32:" + portOf(w.provider.Addr()), "127.0.0.1/32:" + portOf(w.other.Addr()), fmt.Sprintf("%s/32:%d", host, smtp), "127.0.0.1/32:" + portOf(strings.TrimPrefix(w.simulator.API, "http://"))}, ","),
	}
	w.startMesh(t, fmt.Sprintf("smtp://%s:%d?plaintext=true&from=no-reply@turumba.example", host, smtp))
	w.sql, w.people = w.pool(t, "turumba_messaging"), w.pool(t, "turumba_account")
	w.installHistory(t)
	w.watch = startWatch(t, w.sql)
	return w
}

// startPostgres starts the server, again after it was killed.
func (w *world) startPostgres(t *testing.T) {
	t.Helper()
	var err error
	w.postgres, err = embedded.Start(t.Context(), embedded.Options{DataDir: w.data, Clock: clock.System()})
	require.NoError(t, err)
}

func (w *world) startMesh(t *testing.T, mailURL string) {
	t.Helper()
	accountAddr, messagingAddr, httpAddr := port(t), port(t), port(t)
	w.account = w.program(t, "account", "GRPC_ADDR="+accountAddr, "DATABASE_URL="+socketOf(w.accountDB, "turumba_account"), "MAIL_URL="+mailURL)
	w.accounts = proxied(t, "tcp", "127.0.0.1:0", accountAddr)
	w.messaging = w.program(t, "messaging", "GRPC_ADDR="+messagingAddr, "DATABASE_URL="+socketOf(w.apiDB, "turumba_messaging"), "ACCOUNT_ADDR=dns:///"+w.accounts.Addr())
	w.worker = w.newWorker(t)
	w.gateway = w.program(t, "gateway", "HTTP_ADDR="+httpAddr, "ACCOUNT_ADDR=dns:///"+accountAddr, "MESSAGING_ADDR=dns:///"+messagingAddr)
	w.rest, w.accountConn, w.messagingConn = "http://"+httpAddr, dial(t, accountAddr), dial(t, messagingAddr)
}

// newWorker starts a worker; rows that need several start more, which end with the
// row.
func (w *world) newWorker(t *testing.T, env ...string) *program {
	t.Helper()
	return w.program(t, "worker", append([]string{
		"DATABASE_URL=" + socketOf(w.workerDB, "turumba_messaging"),
		"ACCOUNT_ADDR=dns:///" + w.accounts.Addr(), "AMQP_URL=amqp://guest:guest@" + w.amqp.Addr() + "/",
	}, env...)...)
}

func (w *world) program(t *testing.T, name string, env ...string) *program {
	t.Helper()
	at := port(t)
	return newProgram(t, filepath.Join(w.dir, name), "http://"+at+"/readyz", nil, append(append([]string{"ADMIN_ADDR=" + at}, w.env...), env...)...)
}

// programs are those that all rows share.
func (w *world) programs() []*program {
	return []*program{w.account, w.messaging, w.worker, w.gateway}
}

func (w *world) proxies() []*fault.Proxy {
	return []*fault.Proxy{w.apiDB, w.workerDB, w.accountDB, w.amqp, w.accounts, w.provider, w.other}
}

func (w *world) pool(t *testing.T, database string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), w.postgres.URL(database))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func (w *world) proxiedDB(t *testing.T) *fault.Proxy {
	t.Helper()
	u, err := url.Parse(w.postgres.URL("postgres"))
	require.NoError(t, err)
	const socket = ".s.PGSQL.5432"
	return proxied(t, "unix", filepath.Join(t.TempDir(), socket), filepath.Join(u.Query().Get("host"), socket))
}

// socketOf is the URL of a database behind a proxy.
func socketOf(p *fault.Proxy, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/" + database}
	u.RawQuery = url.Values{"host": {filepath.Dir(p.Addr())}, "sslmode": {"disable"}}.Encode()
	return u.String()
}

func proxied(t *testing.T, network, listen, target string) *fault.Proxy {
	t.Helper()
	p, err := fault.New(network, listen, target)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, addr string) *grpcserver.Conn {
	t.Helper()
	conn, err := grpcserver.Mesh{}.Dial("passthrough:///"+addr, "", clock.System())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
