package rest

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
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
			h := clientAddress(c.trusted, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
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
