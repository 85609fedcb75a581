package grpcserver_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	meshv1 "github.com/turumba/turumba/gen/turumba/mesh/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/grpcserver/certtest"
	"github.com/turumba/turumba/kit/jobs"
)

// today is real: the handshakes of the standard library know no other time.
func today() time.Time { return clock.System().Now() }

func valid(service string) certtest.Cert {
	return certtest.Cert{Names: []string{service}, Begin: today().Add(-time.Hour), End: today().AddDate(0, 3, 0)}
}

func meshOf(f certtest.Files) grpcserver.Mesh {
	return grpcserver.Mesh{CertFile: f.Cert, KeyFile: f.Key, CAFile: f.CA}
}

// TestSettingsNeedAProof: without anything by which services prove themselves, none
// starts.
func TestSettingsNeedAProof(t *testing.T) {
	t.Parallel()
	_, err := config.Load[grpcserver.Mesh](nil)
	require.ErrorContains(t, err, "SERVICE_TOKEN: is required, unless GRPC_TLS_CERT")
	_, err = config.Load[grpcserver.Mesh]([]string{"SERVICE_TOKEN="})
	require.Error(t, err)
	_, err = config.Load[grpcserver.Mesh]([]string{"GRPC_TLS_CERT=a"})
	require.ErrorContains(t, err, "needed together")
	require.NotContains(t, err.Error(), "SERVICE_TOKEN", "who begins with mTLS needs no token")
	for _, env := range [][]string{{"SERVICE_TOKEN=" + token}, certtest.Files{Cert: "a", Key: "b", CA: "c"}.Env()} {
		_, err = config.Load[grpcserver.Mesh](env)
		require.NoError(t, err)
	}
}

// TestCertificatesAreCheckedAtStart: whatever other services would refuse is told in
// plain words before anything starts.
func TestCertificatesAreCheckedAtStart(t *testing.T) {
	t.Parallel()
	ca, foreign, old := certtest.NewCA(t, today().AddDate(1, 0, 0)), certtest.NewCA(t, today().AddDate(1, 0, 0)), certtest.NewCA(t, today().AddDate(0, 0, -1))
	write := func(by *certtest.CA, want certtest.Cert, change func(f certtest.Files)) certtest.Files {
		f := by.Write(t, t.TempDir(), want)
		if change != nil {
			change(f)
		}
		return f
	}
	put := func(path string, content []byte) { require.NoError(t, os.WriteFile(path, content, 0o600)) }
	change := func(c certtest.Cert, do func(*certtest.Cert)) certtest.Cert {
		do(&c)
		return c
	}
	for name, c := range map[string]struct {
		files certtest.Files
		want  string
	}{
		"expired":           {write(ca, change(valid("messaging"), func(c *certtest.Cert) { c.End = today().Add(-time.Minute) }), nil), "has expired on"},
		"not yet":           {write(ca, change(valid("messaging"), func(c *certtest.Cert) { c.Begin = today().Add(time.Hour) }), nil), "is not valid before"},
		"another authority": {write(foreign, valid("messaging"), func(f certtest.Files) { put(f.CA, ca.PEM()) }), "is not signed by an authority of GRPC_TLS_CA"},
		"an old authority":  {write(old, valid("messaging"), nil), "is not signed by an authority of GRPC_TLS_CA"},
		"another key": {write(ca, valid("messaging"), func(f certtest.Files) {
			_, key := ca.Issue(t, valid("messaging"))
			put(f.Key, key)
		}), "GRPC_TLS_KEY: "},
		"another service":  {write(ca, valid("worker"), nil), `its first DNS name must be "messaging"`},
		"a service second": {write(ca, certtest.Cert{Names: []string{"x.example", "messaging"}, Begin: today().Add(-time.Hour), End: today().Add(time.Hour)}, nil), `its first DNS name must be "messaging"`},
		"no name":          {write(ca, change(valid("messaging"), func(c *certtest.Cert) { c.Nameless = true }), nil), `its first DNS name must be "messaging"`},
		"only for clients": {write(ca, change(valid("messaging"), func(c *certtest.Cert) { c.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), nil), "is not made for servers"},
		"only for servers": {write(ca, change(valid("messaging"), func(c *certtest.Cert) { c.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), nil), "is not made for clients"},
		"half a file": {write(ca, valid("messaging"), func(f certtest.Files) {
			b, err := os.ReadFile(f.Cert)
			require.NoError(t, err)
			put(f.Cert, b[:len(b)/2])
		}), "GRPC_TLS_CERT"},
		"no authority": {write(ca, valid("messaging"), func(f certtest.Files) { put(f.CA, []byte("none")) }), "GRPC_TLS_CA: "},
		"no files":     {certtest.Files{Cert: "/nowhere/c", Key: "/nowhere/k", CA: "/nowhere/a"}, "GRPC_TLS_KEY: open /nowhere/k"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := meshOf(c.files).Open(t.Context(), grpcserver.NodeConfig{Service: "messaging", Serves: true, Calls: true, Logger: slog.New(slog.DiscardHandler), Clock: clock.System()})
			require.ErrorContains(t, err, c.want)
		})
	}
	for service, r := range map[string][2]bool{"messaging": {true, true}, "gateway": {false, true}, "account": {true, false}} {
		n, err := meshOf(write(ca, valid(service), nil)).Open(t.Context(), grpcserver.NodeConfig{Service: service, Serves: r[0], Calls: r[1], Logger: slog.New(slog.DiscardHandler), Clock: clock.System()})
		require.NoError(t, err, service)
		require.NoError(t, n.Checks()["certificate"](t.Context()))
	}
	_, err := meshOf(write(ca, valid("account.internal"), nil)).Open(t.Context(), grpcserver.NodeConfig{Service: "account", Serves: true, Logger: slog.New(slog.DiscardHandler), Clock: clock.System()})
	require.NoError(t, err, "nobody knows a service that calls nobody by its first name")
}

// TestEndOfCertificates: 14 days before the end it is told of daily, there is a metric,
// and afterwards the process is not ready.
func TestEndOfCertificates(t *testing.T) {
	t.Parallel()
	now, log, registry := clock.NewFake(today()), &logged{}, prometheus.NewRegistry()
	end := today().Add(20 * 24 * time.Hour).Truncate(time.Second)
	ca := certtest.NewCA(t, end) // which ends before what it signed
	f := ca.Write(t, t.TempDir(), valid("worker"))
	loops := loopsOf(t, now)
	node, err := meshOf(f).Open(t.Context(), grpcserver.NodeConfig{Service: "worker", Calls: true, Logger: log.logger(), Clock: now, Registry: registry, Loops: loops})
	require.NoError(t, err)
	got, err := testutil.GatherAndCount(registry, "turumba_mesh_certificate_expiry_timestamp_seconds")
	require.NoError(t, err)
	require.Equal(t, 1, got)
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(fmt.Sprintf(`# HELP turumba_mesh_certificate_expiry_timestamp_seconds When the certificate of this service ends, or what signed it if that is sooner; Unix time.
# TYPE turumba_mesh_certificate_expiry_timestamp_seconds gauge
turumba_mesh_certificate_expiry_timestamp_seconds %g
`, float64(end.Unix())))))
	runs(t, node)
	pass := func(d time.Duration) {
		waitForRest(t, now, loops)
		now.Advance(d)
		waitForRest(t, now, loops)
	}
	pass(5 * 24 * time.Hour)
	require.Empty(t, log.lines("level=WARN"))
	pass(25 * time.Hour)
	require.Eventually(t, func() bool { return len(log.lines("level=WARN", "ends soon", "days_left=13")) == 1 }, 10*time.Second, time.Millisecond, log.String())
	pass(23 * time.Hour)
	require.Len(t, log.lines("level=WARN"), 1)
	pass(2 * time.Hour)
	require.Eventually(t, func() bool { return len(log.lines("level=WARN", "ends soon")) == 2 }, 10*time.Second, time.Millisecond)
	require.NoError(t, node.Checks()["certificate"](t.Context()))
	pass(14 * 24 * time.Hour)
	require.ErrorContains(t, node.Checks()["certificate"](t.Context()), "has expired")
}

func loopsOf(t *testing.T, now clock.Clock) *jobs.Loops {
	t.Helper()
	loops, err := jobs.NewLoops(now, prometheus.NewRegistry())
	require.NoError(t, err)
	return loops
}

// waitForRest waits until the loop that looks at the certificates rests, in each process.
func waitForRest(t *testing.T, now *clock.Fake, processes ...*jobs.Loops) {
	t.Helper()
	now.Advance(1) // ages what is under way, not what rests
	for _, loops := range processes {
		require.Eventually(t, func() bool { age, runs := loops.Ages()["mesh.certificates"]; return runs && age == 0 }, 10*time.Second, time.Millisecond)
	}
	require.NoError(t, now.WaitForTimers(t.Context(), len(processes)))
}

// runs runs a node until the test ends.
func runs(t *testing.T, n *grpcserver.Node) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

// side is one process of a mesh with certificates.
type side struct {
	files certtest.Files
	log   *logged
	loops *jobs.Loops
	node  *grpcserver.Node
}

func newSide(t *testing.T, ca *certtest.CA, service string, serves, calls bool, now clock.Clock) side {
	t.Helper()
	s := side{files: ca.Write(t, t.TempDir(), valid(service)), log: &logged{}, loops: loopsOf(t, now)}
	var err error
	s.node, err = meshOf(s.files).Open(t.Context(), grpcserver.NodeConfig{Service: service, Serves: serves, Calls: calls, Logger: s.log.logger(), Clock: now, Loops: s.loops})
	require.NoError(t, err)
	runs(t, s.node)
	return s
}

// TestRenewedCertificates walks both sides from one authority to another while calls are
// made over a standing connection and over new ones: none fails, and each step counts
// within 10 s. What is wrong in between is not taken.
func TestRenewedCertificates(t *testing.T) {
	t.Parallel()
	now := clock.NewFake(today())
	first, second := certtest.NewCA(t, today().AddDate(1, 0, 0)), certtest.NewCA(t, today().AddDate(1, 0, 0))
	account, worker := newSide(t, first, "account", true, false, now), newSide(t, first, "worker", false, true, now)
	sides := []side{account, worker}

	s, err := grpcserver.New(grpcserver.Config{Name: "account", Logger: slog.New(slog.DiscardHandler), Clock: clock.System(), Verifier: tokens{}, Context: people{}, Mesh: account.node.Mesh()})
	require.NoError(t, err)
	l := listen(t)
	serve(t, l, s)
	prove := func(conn grpc.ClientConnInterface) string { // and the certificate of the server
		var p peer.Peer
		resp, err := meshv1.NewMeshServiceClient(conn).Prove(t.Context(), &meshv1.ProveRequest{}, grpc.Peer(&p))
		require.NoError(t, err)
		require.Equal(t, "worker", resp.GetCaller())
		info, ok := p.AuthInfo.(credentials.TLSInfo)
		require.True(t, ok)
		return info.State.PeerCertificates[0].SerialNumber.String()
	}
	dial := func() *grpcserver.Conn {
		conn, err := worker.node.Mesh().Dial("dns:///"+l.Addr().String(), "worker", clock.System())
		require.NoError(t, err)
		return conn
	}
	anew := func() string {
		conn := dial()
		defer func() { require.NoError(t, conn.Close()) }()
		return prove(conn)
	}
	standing := dial()
	began := prove(standing)
	require.Equal(t, began, anew())

	var calls atomic.Int64
	var busy sync.WaitGroup
	stop := make(chan struct{})
	for _, one := range []func(){func() { prove(standing) }, func() { anew() }} {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					one()
					calls.Add(1)
				}
			}
		})
	}
	put := func(path string, content []byte) { require.NoError(t, os.WriteFile(path, content, 0o600)) }
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		return b
	}
	pass := func() { // less than 10 s
		waitForRest(t, now, account.loops, worker.loops)
		now.Advance(6 * time.Second)
	}
	taken := 0
	counts := func() {
		taken++
		pass()
		for _, s := range sides {
			require.Eventually(t, func() bool { return len(s.log.lines("level=INFO", "read again")) == taken }, 10*time.Second, time.Millisecond, s.log.String())
		}
	}
	refused := func(n int, want string) {
		pass()
		for _, s := range sides {
			require.Eventually(t, func() bool { return len(s.log.lines("level=ERROR", "is not taken")) == n }, 10*time.Second, time.Millisecond, s.log.String())
			require.Contains(t, s.log.String(), want)
		}
		require.Equal(t, began, anew(), "the former stays")
	}

	names := []string{"account", "worker"}
	for i, s := range sides {
		cert, _ := first.Issue(t, valid(names[i]))
		put(s.files.Cert, cert) // its key is not there yet
	}
	refused(1, "GRPC_TLS_KEY")
	for _, s := range sides {
		put(s.files.Cert, read(s.files.Cert)[:100]) // half written
	}
	refused(2, "GRPC_TLS_CERT")
	for i, s := range sides {
		cert, key := second.Issue(t, valid(names[i])) // of an authority that nobody knows
		put(s.files.Cert, cert)
		put(s.files.Key, key)
	}
	refused(3, "is not signed by an authority")

	for _, s := range sides { // now in the right order
		cert, key := first.Issue(t, valid(names[0]))
		if s.node == worker.node {
			cert, key = first.Issue(t, valid(names[1]))
		}
		put(s.files.Cert, cert)
		put(s.files.Key, key)
		put(s.files.CA, append(append([]byte{}, first.PEM()...), second.PEM()...))
	}
	counts()
	for i, s := range sides {
		cert, key := second.Issue(t, valid(names[i]))
		put(s.files.Cert, cert)
		put(s.files.Key, key)
	}
	counts()
	require.NotEqual(t, began, anew())
	for _, s := range sides {
		put(s.files.CA, second.PEM())
	}
	counts()
	require.NotEqual(t, began, anew(), "both sides show and accept only what is new")
	require.Equal(t, began, prove(standing), "who is connected stays so")
	before := calls.Load()
	require.Eventually(t, func() bool { return calls.Load() > before+10 }, 20*time.Second, time.Millisecond)
	close(stop)
	busy.Wait()
	require.NoError(t, standing.Close())
}

// TestForeignCertificates: a service whose certificate another does not accept is not
// ready, and says why.
func TestForeignCertificates(t *testing.T) {
	t.Parallel()
	ours, theirs := certtest.NewCA(t, today().AddDate(1, 0, 0)), certtest.NewCA(t, today().AddDate(1, 0, 0))
	account := newSide(t, ours, "account", true, false, clock.System())
	s, err := grpcserver.New(grpcserver.Config{Name: "account", Logger: slog.New(slog.DiscardHandler), Clock: clock.System(), Verifier: tokens{}, Context: people{}, Mesh: account.node.Mesh()})
	require.NoError(t, err)
	l := listen(t)
	serve(t, l, s)
	for name, ca := range map[string]*certtest.CA{"of another authority": theirs, "that the other refuses": theirs, "fine": ours} {
		f, log := ca.Write(t, t.TempDir(), valid("worker")), &logged{}
		if name == "that the other refuses" { // we know them, they do not know us
			require.NoError(t, os.WriteFile(f.CA, append(append([]byte{}, ours.PEM()...), theirs.PEM()...), 0o600))
		}
		worker, err := meshOf(f).Open(t.Context(), grpcserver.NodeConfig{Service: "worker", Calls: true, Logger: log.logger(), Clock: clock.System()})
		require.NoError(t, err)
		p, err := worker.Dial("account", "dns:///"+l.Addr().String())
		require.NoError(t, err)
		err = p.Ready(t.Context())
		if name == "fine" {
			require.NoError(t, err)
		} else {
			require.Error(t, err, name)
			require.NotEmpty(t, log.lines("level=ERROR", "cannot be reached"), "%s: %s", name, log.String())
		}
		if name == "that the other refuses" {
			require.Len(t, account.log.lines("level=ERROR", "certificate of a caller is not accepted", "worker"), 1, account.log.String())
		}
		worker.Close()
	}
}
