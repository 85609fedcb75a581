package rest

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

func TestClientAddress(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	cases := map[string]struct {
		peer    string
		hops    []string
		trusted []netip.Prefix
		want    string
	}{
		"no proxy":               {"203.0.113.7:4711", nil, nil, "203.0.113.7"},
		"a header of the client": {"203.0.113.7:4711", []string{"198.51.100.1"}, proxies, "203.0.113.7"},
		"one proxy":              {"10.0.0.1:4711", []string{"203.0.113.7"}, proxies, "203.0.113.7"},
		"a lie before one proxy": {"10.0.0.1:4711", []string{"127.0.0.1, 203.0.113.7"}, proxies, "203.0.113.7"},
		"two proxies":            {"10.0.0.1:4711", []string{"127.0.0.1", "203.0.113.7, 10.2.0.1"}, proxies, "203.0.113.7"},
		"only proxies":           {"10.0.0.1:4711", []string{"10.0.0.2"}, proxies, "10.0.0.2"},
		"nonsense":               {"10.0.0.1:4711", []string{"unknown"}, proxies, "10.0.0.1"},
		"no header":              {"10.0.0.1:4711", nil, proxies, "10.0.0.1"},
		"IPv6":                   {"[fd00::1]:4711", []string{"2001:db8::1"}, proxies, "2001:db8::1"},
		"IPv4 mapped":            {"[::ffff:10.0.0.1]:4711", []string{"203.0.113.7"}, proxies, "203.0.113.7"},
		"nobody is trusted":      {"10.0.0.1:4711", []string{"203.0.113.7"}, nil, "10.0.0.1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got *http.Request
			h := clientAddress(c.trusted, &untrusted{log: telemetry.Discard(), clock: clock.System()}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.RemoteAddr = c.peer
			for _, hop := range c.hops {
				r.Header.Add("X-Forwarded-For", hop)
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
			require.Equal(t, c.want, netip.MustParseAddrPort(got.RemoteAddr).Addr().String())
			require.Empty(t, got.Header.Values("X-Forwarded-For"))
		})
	}
}

// TestUntrustedProxiesAreTold: a load balancer that is not in TRUSTED_PROXIES makes one
// client of everybody behind it, which somebody has to know.
func TestUntrustedProxiesAreTold(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	now := clock.NewFake(time.Unix(1_770_000_000, 0))
	h := clientAddress([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, &untrusted{log: telemetry.NewLogger(&log, slog.LevelInfo), clock: now}, http.NotFoundHandler())
	call := func(peer string, hops ...string) (told int) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr, r.Header["X-Forwarded-For"] = peer, hops
		h.ServeHTTP(httptest.NewRecorder(), r)
		return strings.Count(log.String(), "TRUSTED_PROXIES")
	}
	require.Zero(t, call("192.0.2.1:80"))
	require.Zero(t, call("10.0.0.1:80", "203.0.113.7"))
	require.Equal(t, 1, call("192.0.2.1:80", "203.0.113.7"))
	require.Equal(t, 1, call("192.0.2.2:80", "203.0.113.7"), "once a minute")
	now.Advance(time.Minute)
	require.Equal(t, 2, call("192.0.2.1:80", "203.0.113.7"))
}
