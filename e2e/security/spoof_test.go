package security_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
)

// spoofing is S-40 to S-45: headers, deadlines, paths, routes and listeners that
// pretend.
func spoofing(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("spoofing")
	s.coverage = "S-40–S-45"
	spoofedHeaders(t, w, s)
	timeouts(t, w, s)
	rawPaths(t, w, s)
	everyRouteAsksForAToken(t, w, s)
	overrides(t, w, s)
	innerListeners(t, w, s)
}

// spoofedHeaders sends identity that does not come from the token (S-40).
func spoofedHeaders(t *testing.T, w *world.World, s *suite) {
	t.Helper()
	md, err := wire.FindMethod("turumba.account.v1.ContextService/GetContext")
	require.NoError(t, err)
	theirs := w.Vars["foreign_account_id"]
	hops := strings.Repeat("10.0.0.1, ", 50) + "127.0.0.1"
	for _, over := range wire.All() {
		for _, as := range []string{"viewer", "none"} {
			want, err := w.Do(t.Context(), over, wire.Call{Method: md, Token: w.Token(as)})
			require.NoError(t, err)
			for name, value := range map[string]string{
				"x-account-ids": theirs, "X-Account-IDs": theirs, "x_account_ids": theirs, "x-role-ids": w.Vars["foreign_role_id"], "x-user-id": w.Vars["outsider_user_id"],
				"x-account-ids-bin": theirs, "grpc-metadata-x-account-ids": theirs, "Grpc-Metadata-Grpc-Metadata-X-Account-Ids": theirs,
				"grpcgateway-authorization": "Bearer " + w.Token("outsider"), "grpc-metadata-authorization": "Bearer " + w.Token("outsider"),
				"x-forwarded-user": "admin", "x-amzn-oidc-data": w.Token("outsider"), "x-original-url": "/v1/accounts/" + theirs, "forwarded": "for=127.0.0.1;host=evil",
				"x-forwarded-for": hops, "x-real-ip": "127.0.0.1", "x-service-token": "x", "x-turumba-service": "worker", "service-authorization": "Bearer worker", "x-advanced-context": "{}",
			} {
				got, err := w.Do(t.Context(), over, wire.Call{Method: md, Token: w.Token(as), Header: map[string]string{name: value}})
				require.NoError(t, err)
				same := got.Reason == want.Reason && wire.Canonical(got.Body) == wire.Canonical(want.Body) || got.Detail == want.Detail && want.Reason != ""
				s.check(t, same, "S-40 %s as %s over %s changed the answer: %s %v", name, as, over, got.Reason, got.Body)
			}
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.BaseURL+"/v1/context", nil)
	require.NoError(t, err)
	req.Header.Set("X-Request-Id", "evil id; <script>")
	res, err := w.HTTP.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	s.check(t, !strings.Contains(res.Header.Get("X-Request-Id"), "evil"), "S-40 a malformed request id came back: %q", res.Header.Get("X-Request-Id"))
}

// timeouts sends deadlines that are none (S-41).
func timeouts(t *testing.T, w *world.World, s *suite) {
	t.Helper()
	for value, want := range map[string]int{"0n": 200, // 0 is "no limit" to the transcoder; the server has its own
		"99999999H": 200, "garbage": 400, "-1S": 400, "5S": 200} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.BaseURL+"/v1/context", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+w.Token("viewer"))
		req.Header.Set("Grpc-Timeout", value)
		res, err := w.HTTP.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		s.check(t, res.StatusCode == want, "S-41 Grpc-Timeout %s: want %d, got %d", value, want, res.StatusCode)
	}
}

// rawPaths sends HTTP/2 frames by hand, with paths that no client sends (S-42).
func rawPaths(t *testing.T, w *world.World, s *suite) {
	t.Helper()
	const method = "turumba.account.v1.ContextService/GetContext"
	token := w.Token("owner")
	good := rawCall(t, w, "/"+method, token)
	s.check(t, good == "0", "S-42 the frames themselves: grpc-status %q", good)
	for _, path := range []string{
		method, "//" + method, "/" + method + "/", "/TURUMBA.account.v1.contextservice/getcontext", "/turumba.account.v1.ContextService//GetContext",
		"/turumba%2eaccount.v1.ContextService/GetContext", "/turumba.account.v1.ContextService%2FGetContext", "/" + method + "?x=1", "/" + method + "#x", "*", "",
		"/../" + method, "/./" + method, "/" + method + "\x00", "http://evil/" + method, "/turumba.account.v1.InternalContextService/ResolveContext",
	} {
		got := rawCall(t, w, path, token)
		s.check(t, got != "0", "S-42 path %q was served", path)
	}
}

// rawCall sends one empty gRPC message to a path and returns grpc-status, or how
// the call ended without one.
func rawCall(t *testing.T, w *world.World, path, token string) string {
	t.Helper()
	addr := w.Instance.GRPC
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }() // the answer is read
	require.NoError(t, conn.SetDeadline(w.Instance.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	f := http2.NewFramer(conn, conn)
	require.NoError(t, f.WriteSettings())
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", addr}, {"content-type", "application/grpc"}, {"te", "trailers"}, {"authorization", "Bearer " + token},
	} {
		require.NoError(t, enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
	}
	require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
	require.NoError(t, f.WriteData(1, true, []byte{0, 0, 0, 0, 0}))
	return rawStatus(f)
}

func rawStatus(f *http2.Framer) string {
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "closed: " + err.Error()
		}
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame:
			return "reset"
		case *http2.GoAwayFrame:
			return "go away"
		case *http2.MetaHeadersFrame:
			for _, h := range frame.Fields {
				if h.Name == "grpc-status" {
					return h.Value
				}
			}
			if frame.StreamEnded() {
				return fmt.Sprint(frame.Fields)
			}
		}
	}
}

var pathVariable = regexp.MustCompile(`\{[a-z_]+\}`)

// everyRouteAsksForAToken calls every route of the contract with none (S-43).
func everyRouteAsksForAToken(t *testing.T, w *world.World, s *suite) {
	t.Helper()
	for _, md := range wire.Methods() {
		verb, path := wire.Route(md)
		if path == "" || wire.AuthOf(md).GetPublic() {
			continue
		}
		req, err := http.NewRequestWithContext(t.Context(), verb, w.BaseURL+pathVariable.ReplaceAllString(path, url.PathEscape(w.Vars["nobody"])), strings.NewReader("{}"))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		res, err := w.HTTP.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		s.check(t, res.StatusCode == http.StatusUnauthorized, "S-43 %s %s without a token: %d", verb, path, res.StatusCode)
	}
}

// overrides sends one verb and means another (S-44).
func overrides(t *testing.T, w *world.World, s *suite) {
	t.Helper()
	target := w.BaseURL + "/v1/contacts/" + w.Vars["contact_id"]
	for name, change := range map[string]func(*http.Request){
		"method override": func(r *http.Request) { r.Header.Set("X-HTTP-Method-Override", http.MethodDelete) },
		"override":        func(r *http.Request) { r.Header.Set("X-Method-Override", http.MethodDelete) },
		"form":            func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") },
		"form field":      func(r *http.Request) { r.URL.RawQuery = "_method=DELETE" },
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader("a=b"))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+w.Token("owner"))
		change(req)
		res, err := w.HTTP.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		s.check(t, slices.Contains([]int{400, 404, 405, 415}, res.StatusCode), "S-44 %s: %d", name, res.StatusCode)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+w.Token("owner"))
	res, err := w.HTTP.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	s.check(t, res.StatusCode == http.StatusOK, "S-44 the contact is gone: %d", res.StatusCode)
}

// innerListeners looks for what belongs to the operators' listener (S-45).
func innerListeners(t *testing.T, w *world.World, s *suite) {
	t.Helper()
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/vars", "/debug/pprof/heap", "/channelz", "/swagger", "/admin", "/internal/context", "/context/basic"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.BaseURL+path, nil)
		require.NoError(t, err)
		res, err := w.HTTP.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		s.check(t, res.StatusCode == http.StatusNotFound, "S-45 %s: %d", path, res.StatusCode)
	}
	for _, path := range []string{
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/grpc.channelz.v1.Channelz/GetServers",
	} {
		got := rawCall(t, w, path, w.Token("owner"))
		s.check(t, got == "12", "S-45 %s: grpc-status %s", path, got)
	}
}
