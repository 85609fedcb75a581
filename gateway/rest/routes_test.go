package rest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

// TestRouting: words before variables, each path to its own service, and no path to
// one that it is not of.
func TestRouting(t *testing.T) {
	t.Parallel()
	const id = "0190a5c8-1111-7000-8000-000000000000"
	cases := []struct {
		method, path string
		status       int
		rpc          string // empty: no call
	}{
		{"GET", "/v1/contacts/" + id, 200, "/turumba.account.v1.ContactService/GetContact"},
		{"GET", "/v1/contacts/", 200, "/turumba.account.v1.ContactService/ListContacts"},
		{"GET", "/v1/contacts/imports", 200, "/turumba.account.v1.ContactImportService/ListContactImports"},
		{"POST", "/v1/messages/estimate", 200, "/turumba.messaging.v1.MessageService/EstimateMessage"},
		{"POST", "/v1/messages/" + id + "/cancel", 200, "/turumba.messaging.v1.MessageService/CancelMessage"},
		{"PUT", "/v1/contacts/" + id, 405, ""},
		{"HEAD", "/v1/contacts", 200, "/turumba.account.v1.ContactService/ListContacts"},
		{"POST", "/v1/messages/" + id, 405, ""},
		{"GET", "/v1/contacts/" + id + "/nothing", 404, ""},
		{"GET", "/v1", 404, ""},
		{"GET", "/v2/contacts", 404, ""},
		{"GET", "/v1/contacts//x", 307, ""},
		{"GET", "/v1/contacts/..", 307, ""},
	}
	for _, c := range cases {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			t.Parallel()
			conn := &recorder{}
			w := do(serve(t, conn), c.method, c.path, "")
			require.Equal(t, c.status, w.Code, w.Body.String())
			require.Equal(t, c.rpc, conn.method)
		})
	}
}

// TestEveryRouteLeadsToItsRPC, with what its path says, unless it is served by hand.
func TestEveryRouteLeadsToItsRPC(t *testing.T) {
	t.Parallel()
	conn := &recorder{}
	calls, err := newTranscoder(t.Context(), Backends{Account: conn, Messaging: conn})
	require.NoError(t, err)
	routes := contractRoutes()
	require.Greater(t, len(routes), 80)
	require.Len(t, calls.handlers, len(routes))
	for _, s := range routes {
		if s.stream || s.rpc == messagingv1.MessageService_SendMessages_FullMethodName {
			continue // the recorder answers single calls
		}
		path := variable.ReplaceAllStringFunc(s.path, func(name string) string { return "the-" + strings.Trim(name, "{}") })
		require.True(t, s.fits(path))
		r := httptest.NewRequestWithContext(t.Context(), s.verb, path, strings.NewReader("{}"))
		calls.handler(s).ServeHTTP(httptest.NewRecorder(), r)
		require.Equal(t, s.rpc, conn.method)
		for _, name := range s.names {
			if fd := conn.in.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name)); fd != nil {
				require.Equal(t, "the-"+name, conn.in.ProtoReflect().Get(fd).String())
			}
		}
	}
}

var variable = regexp.MustCompile(`{[^}]*}`)

// telling is a service that tells the id of the request, as the chain does.
type telling struct{ recorder }

func (c *telling) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	sent, _ := metadata.FromOutgoingContext(ctx)
	for _, o := range opts {
		if o, ok := o.(grpc.HeaderCallOption); ok {
			*o.HeaderAddr = metadata.Pairs("x-request-id", sent.Get("x-request-id")[0], "idempotency-replayed", "true", "x-other", "secret")
		}
	}
	return c.recorder.Invoke(ctx, method, in, out)
}

// TestAnswerNamesTheRequestOnce: by the gateway, although the service names it too.
func TestAnswerNamesTheRequestOnce(t *testing.T) {
	t.Parallel()
	conn := &telling{}
	h, err := NewHandler(t.Context(), Config{Backends: Backends{Account: conn, Messaging: conn}, Clock: clock.System(), Logger: telemetry.Discard()})
	require.NoError(t, err)
	w := do(h, http.MethodGet, "/v1/contacts", "", "X-Request-Id", "mine")
	require.Equal(t, 200, w.Code)
	require.Equal(t, []string{"mine"}, w.Header().Values("X-Request-Id"))
	require.Equal(t, "true", w.Header().Get("Idempotency-Replayed"))
	require.Empty(t, w.Header().Get("X-Other"))
}
