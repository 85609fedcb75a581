package egress_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/egress"
)

// names is a Resolver over a fixed table.
type names map[string][]string

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, text := range n[host] {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	if addrs == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

func allow(t testing.TB, text string) []egress.AllowRule {
	t.Helper()
	rules, err := egress.ParseAllow(text)
	require.NoError(t, err)
	return rules
}

// listen returns the port of a loopback server that accepts connections.
func listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	d := egress.NewDialer(egress.Options{})
	refused := []string{
		"0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.8.8.8", "169.254.169.254",
		"172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255",
		"198.51.100.1", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "100::1", "fc00::1", "fd00:ec2::254",
		"fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1", "4000::1",
	}
	for _, text := range refused {
		require.False(t, d.Allowed(netip.AddrPortFrom(netip.MustParseAddr(text), 443)), text)
	}
	for _, text := range []string{"8.8.8.8", "1.1.1.1", "100.128.0.1", "172.32.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1111", "2a00:1450::1"} {
		require.True(t, d.Allowed(netip.AddrPortFrom(netip.MustParseAddr(text), 443)), text)
	}
}

func TestAllowRules(t *testing.T) {
	t.Parallel()
	d := egress.NewDialer(egress.Options{Allow: allow(t, " 127.0.0.1/32:1025, 10.0.0.0/8:*,::1:25,[fd00::]/8:* ")})
	for text, want := range map[string]bool{
		"127.0.0.1:1025": true, "[::ffff:127.0.0.1]:1025": true, "127.0.0.1:1026": false, "127.0.0.2:1025": false,
		"10.200.0.1:1": true, "[::1]:25": true, "[::1]:26": false, "[fd12::1]:9": true, "[fe80::1]:9": false,
	} {
		require.Equal(t, want, d.Allowed(netip.MustParseAddrPort(text)), text)
		require.Equal(t, want, d.Exempt(netip.MustParseAddrPort(text)), text)
	}
	require.False(t, d.Exempt(netip.MustParseAddrPort("8.8.8.8:25")))
	for _, bad := range []string{"127.0.0.1", "127.0.0.1/33:1", "x:1", "127.0.0.1/32:0", "127.0.0.1/32:65536", "127.0.0.1/32:smtp", "::ffff:10.0.0.0/104:1"} {
		_, err := egress.ParseAllow(bad)
		require.Error(t, err, bad)
	}
	require.Empty(t, allow(t, " ,"))
}

func TestDialRefuses(t *testing.T) {
	t.Parallel()
	port := listen(t)
	d := egress.NewDialer(egress.Options{Resolver: names{
		"internal.test": {"127.0.0.1", "::1", "10.0.0.1"}, "mapped.test": {"::ffff:127.0.0.1"},
	}})
	for _, host := range []string{"127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "internal.test", "mapped.test", "169.254.169.254"} {
		_, err := d.DialContext(t.Context(), "tcp", host+":"+port)
		require.ErrorIs(t, err, egress.ErrForbidden, host)
		require.NotContains(t, strings.TrimPrefix(err.Error(), "dial "+host), "10.0.0.1")
	}
	_, err := d.DialContext(t.Context(), "udp", "8.8.8.8:53")
	require.ErrorIs(t, err, egress.ErrForbidden)
	for _, bad := range []string{"8.8.8.8", "8.8.8.8:smtp", "8.8.8.8:0", ":25"} {
		_, err := d.DialContext(t.Context(), "tcp", bad)
		require.Error(t, err, bad)
	}
	_, err = d.DialContext(t.Context(), "tcp", "nowhere.test:25")
	require.ErrorContains(t, err, "no such host")
}

func TestDialSkipsWhatIsNotAllowed(t *testing.T) {
	t.Parallel()
	port := listen(t)
	d := egress.NewDialer(egress.Options{
		Allow:    allow(t, "127.0.0.1/32:"+port),
		Resolver: names{"mail.test": {"10.0.0.1", "::1", "127.0.0.1"}},
		Timeout:  5 * time.Second,
	})
	conn, err := d.DialContext(t.Context(), "tcp", "mail.test:"+port)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:"+port, conn.RemoteAddr().String())
	require.True(t, d.ExemptConn(conn))
	require.NoError(t, conn.Close())
}

func TestDialReportsFailures(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	d := egress.NewDialer(egress.Options{Allow: allow(t, "127.0.0.1:*")})
	_, err = d.DialContext(t.Context(), "tcp", address)
	require.ErrorContains(t, err, "refused")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = d.DialContext(ctx, "tcp", address)
	require.ErrorContains(t, err, "cancel")
}

func TestHTTPClient(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/in", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)

	closed := egress.NewDialer(egress.Options{}).HTTPClient(egress.HTTPOptions{Plaintext: true})
	_, err := get(t, closed, server.URL+"/ok")
	require.ErrorIs(t, err, egress.ErrForbidden)

	d := egress.NewDialer(egress.Options{Allow: allow(t, "127.0.0.1/32:*")})
	plain := d.HTTPClient(egress.HTTPOptions{})
	t.Cleanup(plain.CloseIdleConnections)
	for path, want := range map[string]int{"/ok": 200, "/loop": 302, "/in": 302} {
		code, err := get(t, plain, server.URL+path)
		require.NoError(t, err)
		require.Equal(t, want, code)
	}
	following := d.HTTPClient(egress.HTTPOptions{FollowRedirects: true})
	t.Cleanup(following.CloseIdleConnections)
	_, err = get(t, following, server.URL+"/loop")
	require.ErrorContains(t, err, "redirects")
	_, err = get(t, following, server.URL+"/in")
	require.ErrorIs(t, err, egress.ErrForbidden)
}

func TestHTTPClientRefusesDowngrade(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+r.Host, http.StatusFound)
	}))
	t.Cleanup(server.Close)
	d := egress.NewDialer(egress.Options{Allow: allow(t, "127.0.0.1/32:*")})
	client := d.HTTPClient(egress.HTTPOptions{FollowRedirects: true})
	_, err := get(t, client, server.URL)
	require.ErrorContains(t, err, "certificate", "unknown certificates are refused")

	trusting := server.Client()
	trusting.CheckRedirect = client.CheckRedirect
	_, err = get(t, trusting, server.URL)
	require.ErrorIs(t, err, egress.ErrPlaintext)
}

func TestHTTPClientKeepsToOptions(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200 + r.ProtoMajor) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	d := egress.NewDialer(egress.Options{Allow: allow(t, "127.0.0.1/32:*")})
	for o, want := range map[egress.HTTPOptions]int{{RootCAs: roots}: 202, {RootCAs: roots, HTTP1: true}: 201} {
		client := d.HTTPClient(o)
		t.Cleanup(client.CloseIdleConnections)
		code, err := get(t, client, server.URL)
		require.NoError(t, err)
		require.Equal(t, want, code)
	}
}

func get(t *testing.T, client *http.Client, url string) (int, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	response, err := client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("get: %w", err)
	}
	return response.StatusCode, response.Body.Close()
}

func FuzzParseAllow(f *testing.F) {
	f.Add("127.0.0.1/32:1025,[::1]/128:*")
	f.Add("x:1")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := egress.ParseAllow(text)
		if err != nil {
			return
		}
		for _, rule := range rules {
			require.True(t, rule.Prefix.IsValid())
			require.Equal(t, rule.Prefix, rule.Prefix.Masked())
		}
	})
}
