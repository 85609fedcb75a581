package rest

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"pgregory.net/rapid"
)

// TestOutgoingAgainstTranscoder: what a call is told of a request is what the
// transcoder would tell, but for the name of the host, which nobody asks for.
func TestOutgoingAgainstTranscoder(t *testing.T) {
	t.Parallel()
	names := map[string]string{}
	for _, f := range forwarded {
		names[f.header] = f.key
	}
	theirs := runtime.NewServeMux(runtime.WithIncomingHeaderMatcher(func(name string) (string, bool) {
		if name == "Authorization" { // goes by itself
			return "", false
		}
		key, ok := names[name]
		return key, ok
	}))
	ours, err := newTranscoder(t.Context(), Backends{})
	require.NoError(t, err)
	rapid.Check(t, func(rt *rapid.T) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		name := rapid.SampledFrom([]string{
			"Authorization", "X-Request-Id", "Idempotency-Key", "User-Agent", "Accept-Language", "Tracestate",
			"Accept", "Content-Type", "Te", "Cookie", "Grpc-Metadata-X-User-Id", "X-Account-Ids", "X-Forwarded-Host", "Connection",
		})
		for range rapid.IntRange(0, 6).Draw(rt, "headers") {
			r.Header.Add(name.Draw(rt, "name"), rapid.StringMatching("[ -~]{0,20}").Draw(rt, "value")+rapid.SampledFrom([]string{"", "\t", "\x7f", "\xe4"}).Draw(rt, "end")+rapid.StringMatching("[ -~]{0,9}").Draw(rt, "rest"))
		}
		r.RemoteAddr = rapid.SampledFrom([]string{"", "192.0.2.1:99", "[2001:db8::1]:99", "nonsense"}).Draw(rt, "client")
		want, err := runtime.AnnotateContext(t.Context(), theirs, r, "/a/B")
		require.NoError(rt, err)
		got, err := ours.annotate(t.Context(), r, "/a/B")
		require.NoError(rt, err)
		md, _ := metadata.FromOutgoingContext(want)
		delete(md, "x-forwarded-host")
		for key, values := range md {
			md[key] = values[:min(len(values), 2)] // more of them say nothing else (fitting)
		}
		told, _ := metadata.FromOutgoingContext(got)
		require.Equal(rt, md.Copy(), told.Copy())
	})
}
