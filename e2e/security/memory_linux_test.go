package security_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg/embedded"
)

const (
	// attackers call at once.
	attackers = 64
	// mayGrow is how much more memory a process may ever have had than before, in KiB.
	mayGrow = 32 << 10
	// attackLimit is how long one attack may take; what is slow lasts so long.
	attackLimit = 6 * time.Second
	// large is what an attack sends, if it is let.
	large = 9 << 20
)

// attack is one thing that somebody without a token does.
type attack func(ctx context.Context)

// TestMemoryBeforeIdentity: nobody without a token makes a process larger, however large
// what they send is: bodies, nesting, compression, headers, forms, and bytes that come
// slowly, on every route and RPC of the contract.
func TestMemoryBeforeIdentity(t *testing.T) {
	s := report.suite("memory before identity")
	m := startServices(t)
	rpcs := wire.Methods()
	rounds := 1
	if full {
		rounds = 4
	}
	m.warmUp(t, rpcs)
	for _, kind := range []struct {
		name    string
		attacks []attack
	}{
		{"REST bodies", m.restBodies(rpcs)},
		{"REST headers", m.restHeaders(rpcs)},
		{"REST slow", m.restSlow(rpcs)},
		{"gRPC bodies", m.grpcBodies(rpcs)},
		{"gRPC headers", m.grpcHeaders(rpcs)},
		{"gRPC slow", m.grpcSlow(rpcs)},
	} {
		before := m.peaks(t)
		for range rounds {
			m.run(t, kind.attacks)
		}
		for i, after := range m.peaks(t) {
			grown := after - before[i]
			s.check(t, grown <= mayGrow, "%s: %s grew by %d MiB, at most %d are allowed", kind.name, m.names[i], grown>>10, mayGrow>>10)
			t.Logf("%-12s %-10s %6d KiB more, %d attacks", kind.name, m.names[i], grown, len(kind.attacks)*rounds)
		}
		s.cases.Add(int64(len(kind.attacks) * rounds))
		s.passed.Add(int64(len(kind.attacks) * rounds))
	}
	s.coverage = fmt.Sprintf("%d RPCs, %d attackers, each process within %d MiB", len(rpcs), attackers, mayGrow>>10)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+m.rest+"/readyz", http.NoBody)
	require.NoError(t, err)
	res, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode, "the mesh serves afterwards")
}

// services are the gateway and what is behind it, each a process of its own.
type services struct {
	names []string
	pids  []int
	rest  string
	grpc  map[string]string // address by package of the contract
	// database is the URL of a database of theirs.
	database func(name string) string
}

func startServices(t *testing.T) *services {
	t.Helper()
	dir, root := t.TempDir(), "../.."
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", "./services/account/cmd/account", "./services/messaging/cmd/messaging", "./gateway/cmd/gateway")
	build.Dir = root
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	server, err := embedded.Start(t.Context(), embedded.Options{DataDir: t.TempDir(), Clock: clock.System()})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		require.NoError(t, server.Stop(ctx))
	})
	account, messaging, gateway := address(t), address(t), address(t)
	m := &services{rest: gateway, grpc: map[string]string{"turumba.account.v1": account, "turumba.messaging.v1": messaging}, database: server.URL}
	m.start(t, dir, "account", "GRPC_ADDR="+account, "DATABASE_URL="+server.URL("turumba_account"), "MAIL_URL=smtp://127.0.0.1:1?plaintext=true&from=no-reply@turumba.example")
	m.start(t, dir, "messaging", "GRPC_ADDR="+messaging, "DATABASE_URL="+server.URL("turumba_messaging"), "ACCOUNT_ADDR=dns:///"+account)
	m.start(t, dir, "gateway", "HTTP_ADDR="+gateway, "ACCOUNT_ADDR=dns:///"+account, "MESSAGING_ADDR=dns:///"+messaging)
	return m
}

// start runs a service and waits until it is ready.
func (m *services) start(t *testing.T, dir, name string, env ...string) {
	t.Helper()
	admin := address(t)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(dir, name))
	cmd.Env = append(os.Environ(), append(env, "ADMIN_ADDR="+admin, "SERVICE_TOKEN="+strings.Repeat("s", 32),
		"TURUMBA_MASTER_KEY="+base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32))))...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s said: %s", name, log.Bytes()[max(0, log.Len()-2000):])
		}
	})
	client := &http.Client{Timeout: 2 * time.Second}
	defer client.CloseIdleConnections()
	require.Eventually(t, func() bool {
		res, err := client.Get("http://" + admin + "/readyz")
		return err == nil && res.Body.Close() == nil && res.StatusCode == http.StatusOK
	}, time.Minute, 50*time.Millisecond, "%s becomes ready", name)
	m.names, m.pids = append(m.names, name), append(m.pids, cmd.Process.Pid)
}

func address(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }() // only its port is wanted
	return l.Addr().String()
}

// peaks are the most memory that each process ever had, in KiB.
func (m *services) peaks(t *testing.T) []int {
	t.Helper()
	var out []int
	for _, pid := range m.pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		require.NoError(t, err)
		peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
		require.NotNil(t, peak)
		n, err := strconv.Atoi(string(peak[1]))
		require.NoError(t, err)
		out = append(out, n)
	}
	return out
}

// run makes the attacks, as many at once as there are attackers.
func (m *services) run(t *testing.T, attacks []attack) {
	t.Helper()
	g := errgroup.Group{}
	g.SetLimit(attackers)
	for _, a := range attacks {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(t.Context(), attackLimit)
			defer cancel()
			a(ctx)
			return nil
		})
	}
	require.NoError(t, g.Wait())
}

// warmUp makes plain calls, as many at once as there are attackers, until no process
// becomes larger: a heap grows to some times what lives before anything is collected.
func (m *services) warmUp(t *testing.T, rpcs []protoreflect.MethodDescriptor) {
	t.Helper()
	calls, before, still := m.plain(rpcs), m.peaks(t), 0
	for round := 0; still < 2 && round < 20; round++ {
		m.run(t, calls)
		after := m.peaks(t)
		still++
		for i := range after {
			if after[i] > before[i]+512 {
				still = 0
			}
		}
		before = after
	}
	for i, peak := range m.peaks(t) {
		t.Logf("%-12s %-10s %6d KiB", "warm", m.names[i], peak)
	}
}

// plain are calls as anybody makes them without a token: what they need is no attack.
func (m *services) plain(rpcs []protoreflect.MethodDescriptor) (out []attack) {
	for range 4 {
		out = append(out, m.eachRoute(rpcs, func(verb, path string) attack {
			return m.raw(verb+" "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n", []byte("{}"))
		})...)
		out = append(out, m.eachRPC(rpcs, func(addr, path string) attack {
			return func(ctx context.Context) { call(ctx, addr, path, message(0, nil)) }
		})...)
	}
	return out
}

var variable = regexp.MustCompile(`\{[^}]*\}`)

func (m *services) eachRoute(rpcs []protoreflect.MethodDescriptor, one func(verb, path string) attack) (out []attack) {
	for _, md := range rpcs {
		if verb, path := wire.Route(md); path != "" {
			out = append(out, one(verb, variable.ReplaceAllString(path, "0190a5c8-1111-7000-8000-00000000dead")))
		}
	}
	return out
}

func (m *services) eachRPC(rpcs []protoreflect.MethodDescriptor, one func(addr, path string) attack) (out []attack) {
	for _, md := range rpcs {
		out = append(out, one(m.grpc[string(md.ParentFile().Package())], "/"+string(md.Parent().FullName())+"/"+string(md.Name())))
	}
	return out
}

// tokens are what somebody without a token says.
var forged = []string{"", "Authorization: Bearer x\r\n"}

// restBodies are large, deep, compressed and endless bodies, and forms of many parts with
// long names.
func (m *services) restBodies(rpcs []protoreflect.MethodDescriptor) (out []attack) {
	empties := []byte(`{"contacts":[` + strings.Repeat("{},", large/3) + `{}],"messages":[]}`)
	deep := bytes.Repeat([]byte(`{"metadata":[`), large/13)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(empties) // into memory
	_ = z.Close()
	var form bytes.Buffer
	for i := range large / (100 << 10) {
		fmt.Fprintf(&form, "--b\r\nContent-Disposition: form-data; name=\"%d%s\"\r\n\r\n\r\n", i, strings.Repeat("n", 100<<10))
	}
	for _, body := range []struct {
		header string
		data   []byte
	}{
		{"Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(empties)), empties},
		{"Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(deep)), deep},
		{"Content-Type: application/json\r\nTransfer-Encoding: chunked", chunked(empties)},
		{"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: " + strconv.Itoa(packed.Len()), packed.Bytes()},
		{"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: " + strconv.Itoa(form.Len()), form.Bytes()},
		{"Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked", chunked(bytes.Repeat([]byte("a&"), large/2))},
		{"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked", chunked(empties)},
	} {
		for _, token := range forged {
			out = append(out, m.eachRoute(rpcs, func(verb, path string) attack {
				return m.raw(verb+" "+path+" HTTP/1.1\r\nHost: x\r\n"+token+body.header+"\r\n\r\n", body.data)
			})...)
		}
	}
	return out
}

func chunked(data []byte) []byte {
	var out bytes.Buffer
	for len(data) > 0 {
		n := min(len(data), 64<<10)
		fmt.Fprintf(&out, "%x\r\n%s\r\n", n, data[:n])
		data = data[n:]
	}
	return append(out.Bytes(), "0\r\n\r\n"...)
}

// restHeaders are header blocks without end: many, long, in the path, in the query.
func (m *services) restHeaders(rpcs []protoreflect.MethodDescriptor) (out []attack) {
	many := []byte(strings.Repeat("X-Header: value\r\n", large/17))
	long := []byte("Authorization: Bearer " + strings.Repeat("x", large))
	query := []byte("?filter=" + strings.Repeat("x", large))
	return m.eachRoute(rpcs, func(verb, path string) attack {
		return func(ctx context.Context) {
			m.raw(verb+" "+path+" HTTP/1.1\r\nHost: x\r\n", many)(ctx)
			m.raw(verb+" "+path+" HTTP/1.1\r\nHost: x\r\n", long)(ctx)
			m.raw(verb+" "+path, query)(ctx)
		}
	})
}

// restSlow are bodies and headers that never come.
func (m *services) restSlow(rpcs []protoreflect.MethodDescriptor) (out []attack) {
	for _, token := range forged {
		out = append(out, m.eachRoute(rpcs, func(verb, path string) attack {
			return func(ctx context.Context) {
				var g errgroup.Group
				for range 2 {
					g.Go(func() error {
						m.hold(ctx, verb+" "+path+" HTTP/1.1\r\nHost: x\r\n"+token+"X-Long: "+strings.Repeat("x", 11<<10)+"\r\nContent-Length: 900\r\n\r\n{")
						return nil
					})
				}
				_ = g.Wait() // nobody fails
			}
		})...)
	}
	return out
}

// raw sends bytes until they are sent or refused, and reads the answer.
func (m *services) raw(head string, body []byte) attack {
	return func(ctx context.Context) {
		conn, ok := dialRaw(ctx, m.rest)
		if !ok {
			return
		}
		defer func() { _ = conn.Close() }() // it is over
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := io.WriteString(conn, head); err == nil {
				_, _ = conn.Write(body) // as far as it is let
			}
		})
		_, _ = io.CopyN(io.Discard, conn, 256) // an answer, or none
		_ = conn.Close()
		wg.Wait()
	}
}

// hold sends bytes and waits for the other side to have enough of it.
func (m *services) hold(ctx context.Context, head string) {
	conn, ok := dialRaw(ctx, m.rest)
	if !ok {
		return
	}
	defer func() { _ = conn.Close() }() // it is over
	_, _ = io.WriteString(conn, head)
	_, _ = io.Copy(io.Discard, conn)
}

func dialRaw(ctx context.Context, addr string) (net.Conn, bool) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, false
	}
	deadline, _ := ctx.Deadline()
	return conn, conn.SetDeadline(deadline) == nil
}

// message is a message of gRPC with its prefix.
func message(flag byte, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(data))), data...)
}

// grpcBodies are messages of many empty items, of deep nesting, and compressed ones.
func (m *services) grpcBodies(rpcs []protoreflect.MethodDescriptor) (out []attack) {
	empties := bytes.Repeat([]byte{0x12, 0x00}, large/2)
	var deep []byte
	for range 9000 {
		deep = append(binary.AppendUvarint([]byte{0x0a}, uint64(len(deep))), deep...)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(empties) // into memory
	_ = z.Close()
	for _, body := range []struct {
		data   []byte
		fields []hpack.HeaderField
	}{
		{message(0, empties), nil},
		{message(0, empties), []hpack.HeaderField{{Name: "authorization", Value: "Bearer x"}}},
		{message(0, deep), nil},
		{message(1, packed.Bytes()), []hpack.HeaderField{{Name: "grpc-encoding", Value: "gzip"}}},
	} {
		out = append(out, m.eachRPC(rpcs, func(addr, path string) attack {
			return func(ctx context.Context) { call(ctx, addr, path, body.data, body.fields...) }
		})...)
	}
	return out
}

// grpcHeaders are header blocks of 9 MiB.
func (m *services) grpcHeaders(rpcs []protoreflect.MethodDescriptor) []attack {
	return m.eachRPC(rpcs, func(addr, path string) attack {
		return func(ctx context.Context) {
			many := make([]hpack.HeaderField, 0, large/(8<<10))
			for i := range cap(many) {
				many = append(many, hpack.HeaderField{Name: fmt.Sprintf("x-%d", i), Value: strings.Repeat("~", 8<<10)})
			}
			call(ctx, addr, path, nil, many...)
		}
	})
}

// grpcSlow are calls whose message never comes, 40 on each connection, with all the
// headers that are let in.
func (m *services) grpcSlow(rpcs []protoreflect.MethodDescriptor) []attack {
	const streams = 40
	return m.eachRPC(rpcs, func(addr, path string) attack {
		return func(ctx context.Context) {
			c, ok := openH2(ctx, addr)
			if !ok {
				return
			}
			defer c.close()
			for i := range streams {
				c.headers(uint32(2*i+1), path, hpack.HeaderField{Name: "x-long", Value: strings.Repeat("~", 12<<10)})
				c.data(uint32(2*i+1), []byte{0, 0, 0})
			}
			c.wait(ctx, streams)
		}
	})
}
