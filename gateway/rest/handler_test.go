package rest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

// admitting is a far side that lets everybody in.
type admitting struct{}

func (admitting) Admit(context.Context, string) error { return nil }

// recorder is the far side of the transcoder: it keeps the last call and gives
// the answer that the test set.
type recorder struct {
	admitting
	method string
	in     proto.Message
	md     metadata.MD
	answer func(out proto.Message) error
}

func (c *recorder) Invoke(ctx context.Context, method string, in, out any, _ ...grpc.CallOption) error {
	c.method = method
	c.in, _ = in.(proto.Message)
	c.md, _ = metadata.FromOutgoingContext(ctx)
	if c.answer == nil {
		return nil
	}
	m, _ := out.(proto.Message)
	return c.answer(m)
}

func (c *recorder) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, apierr.New(errorv1.Reason_REASON_NOT_FOUND, "group message not found")
}

func serve(t *testing.T, conn *recorder, origins ...string) http.Handler {
	t.Helper()
	h, err := NewHandler(t.Context(), Config{
		Backends: Backends{Account: conn, Messaging: conn}, Logger: telemetry.Discard(), Clock: clock.System(), CORSOrigins: origins,
	})
	require.NoError(t, err)
	return h
}

func do(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestEveryFailureHasOneShape: whatever refuses a request, the body is C1's.
func TestEveryFailureHasOneShape(t *testing.T) {
	t.Parallel()
	const id = "0190a5c8-1111-7000-8000-000000000000"
	cases := []struct {
		name, method, target, body string
		headers                    []string
		status                     int
		code, detail               string
	}{
		{"no route", "GET", "/v1/nothing", "", nil, 404, "NOT_FOUND", "no such route"},
		{"no such path at all", "GET", "/nothing", "", nil, 404, "NOT_FOUND", "no such route"},
		{"wrong method", "PUT", "/v1/templates/" + id, "{}", nil, 405, "METHOD_NOT_ALLOWED", "PUT"},
		{"method override is dead", "POST", "/v1/templates/" + id, "{}", []string{"X-HTTP-Method-Override", "GET"}, 405, "METHOD_NOT_ALLOWED", "POST"},
		{"form body", "POST", "/v1/templates", "a=b", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "UNSUPPORTED_MEDIA_TYPE", "application/json"},
		{"no JSON", "POST", "/v1/templates", "hello", nil, 400, "INVALID_JSON", "invalid"},
		{"unknown key", "POST", "/v1/templates", `{"naem":"x"}`, nil, 400, "INVALID_JSON", "naem"},
		{"two values", "POST", "/v1/templates", `{} {}`, nil, 400, "INVALID_JSON", "after"},
		{"unknown parameter of a list", "GET", "/v1/templates?offset=3", "", nil, 400, "UNKNOWN_PARAMETER", "offset"},
		{"unknown parameter of a create", "POST", "/v1/templates?x=1", "{}", nil, 400, "UNKNOWN_PARAMETER", `"x"`},
		{"parameter that the path fills", "GET", "/v1/templates/" + id + "?template_id=" + id, "", nil, 400, "UNKNOWN_PARAMETER", "template_id"},
		{"limit is no number", "GET", "/v1/templates?limit=ten", "", nil, 400, "UNKNOWN_PARAMETER", "whole number"},
		{"limit twice", "GET", "/v1/templates?limit=1&limit=2", "", nil, 400, "UNKNOWN_PARAMETER", "twice|2 times"},
		{"large body", "POST", "/v1/templates", `{"name":"` + strings.Repeat("x", 8<<20) + `"}`, nil, 413, "PAYLOAD_TOO_LARGE", "limit"},
		{"long query", "GET", "/v1/templates?filter=" + strings.Repeat("x", 17<<10), "", nil, 413, "PAYLOAD_TOO_LARGE", "16 KiB"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := do(serve(t, &recorder{}), c.method, c.target, c.body, c.headers...)
			require.Equal(t, c.status, w.Code, w.Body.String())
			require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			var got map[string]any
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
			require.Equal(t, c.code, got["code"])
			require.Regexp(t, c.detail, got["detail"])
			require.Equal(t, w.Header().Get("X-Request-Id"), got["request_id"])
			for key := range got {
				require.Contains(t, []string{"detail", "code", "fields", "request_id"}, key)
			}
		})
	}
}

func TestServiceErrors(t *testing.T) {
	t.Parallel()
	conn := &recorder{answer: func(proto.Message) error {
		return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").
			WithFields(apierr.Field{Field: "name", Message: "is needed"}).GRPCStatus().Err()
	}}
	w := do(serve(t, conn), "POST", "/v1/templates", `{}`)
	require.Equal(t, 422, w.Code)
	require.JSONEq(t, `{"detail":"the request is not valid","code":"VALIDATION_FAILED","fields":[{"field":"name","message":"is needed"}],"request_id":"`+w.Header().Get("X-Request-Id")+`"}`, w.Body.String())

	conn.answer = func(proto.Message) error {
		return apierr.New(errorv1.Reason_REASON_RATE_LIMITED, "slow down").WithRetryAfter(1500e6).GRPCStatus().Err()
	}
	w = do(serve(t, conn), "GET", "/v1/templates", "")
	require.Equal(t, 429, w.Code)
	require.Equal(t, "2", w.Header().Get("Retry-After"))
}

func TestSuccess(t *testing.T) {
	t.Parallel()
	conn := &recorder{answer: func(out proto.Message) error {
		if r, ok := out.(*messagingv1.CreateTemplateResponse); ok {
			r.Template = &messagingv1.Template{Id: "t1", ChannelType: messagingv1.ChannelType_CHANNEL_TYPE_EMAIL}
		}
		return nil
	}}
	h := serve(t, conn)
	w := do(h, "POST", "/v1/templates/", `{"name":"x","channel_type":"email"}`, "Idempotency-Key", "k1", "X-Account-Ids", "a", "Grpc-Metadata-X-User-Id", "u", "Authorization", "Bearer t")
	require.Equal(t, 201, w.Code, w.Body.String())
	require.Contains(t, w.Body.String(), `"id":"t1"`, "the bare resource")
	require.Contains(t, w.Body.String(), `"channel_type":"email"`)
	require.Equal(t, "/turumba.messaging.v1.TemplateService/CreateTemplate", conn.method)
	require.Equal(t, messagingv1.ChannelType_CHANNEL_TYPE_EMAIL, conn.in.(*messagingv1.CreateTemplateRequest).GetChannelType())
	require.Equal(t, []string{"Bearer t"}, conn.md.Get("authorization"))
	require.Equal(t, []string{"k1"}, conn.md.Get("idempotency-key"))
	for key := range conn.md {
		require.NotContains(t, []string{"x-account-ids", "x-user-id", "x-role-ids"}, key)
	}

	w = do(h, "DELETE", "/v1/templates/t1", "")
	require.Equal(t, 204, w.Code)
	require.Empty(t, w.Body.String())

	w = do(h, "GET", "/v1/templates?filter=name:eq:x&filter=is_active:eq:true&sort=name:desc&limit=5&skip=2", "")
	require.Equal(t, 200, w.Code)
	in := conn.in.(*messagingv1.ListTemplatesRequest)
	require.Equal(t, []string{"name:eq:x", "is_active:eq:true"}, in.GetFilter())
	require.Equal(t, int32(5), in.GetLimit())

	w = do(h, "PATCH", "/v1/templates/t1", `{"body":"new","channel_type":"sms"}`)
	require.Equal(t, 200, w.Code, w.Body.String())
	update := conn.in.(*messagingv1.UpdateTemplateRequest)
	require.ElementsMatch(t, []string{"body", "channel_type"}, update.GetUpdateMask().GetPaths())
	require.Equal(t, messagingv1.ChannelType_CHANNEL_TYPE_SMS, update.GetTemplate().GetChannelType())
	for _, name := range []string{"update_mask", "updateMask"} {
		w = do(h, "PATCH", "/v1/templates/t1?"+name+"=body", `{"body":"new"}`)
		require.Equal(t, 400, w.Code, "the keys of the body are the mask, a query has none")
		require.Contains(t, w.Body.String(), "UNKNOWN_PARAMETER")
	}
}

// TestMethods walks the contract: each path answers HEAD where it answers GET, says on 405
// what it answers, and a preflight says the same.
func TestMethods(t *testing.T) {
	t.Parallel()
	h := serve(t, &recorder{})
	verbs := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
	for _, route := range contractRoutes() {
		path := strings.NewReplacer("{", "", "}", "").Replace(route.path)
		preflight := do(h, "OPTIONS", path, "", "Origin", "https://a.example", "Access-Control-Request-Method", "GET")
		allowed := strings.Split(preflight.Header().Get("Access-Control-Allow-Methods"), ", ")
		require.Contains(t, allowed, route.verb, path)
		if slices.Contains(allowed, "GET") && !route.stream {
			require.Contains(t, allowed, "HEAD", path)
		}
		for _, verb := range verbs {
			if slices.Contains(allowed, verb) {
				continue
			}
			w := do(h, verb, path, "")
			require.Equal(t, http.StatusMethodNotAllowed, w.Code, "%s %s", verb, path)
			require.Equal(t, allowed, strings.Split(w.Header().Get("Allow"), ", "), "%s %s", verb, path)
		}
	}
	get, head := do(h, "GET", "/v1/templates", ""), do(h, "HEAD", "/v1/templates", "")
	require.Equal(t, get.Code, head.Code)
	require.Equal(t, get.Header().Get("Content-Length"), head.Header().Get("Content-Length"))
}

func TestCORS(t *testing.T) {
	t.Parallel()
	open := serve(t, &recorder{})
	w := do(open, "OPTIONS", "/v1/templates", "", "Origin", "https://a.example", "Access-Control-Request-Method", "PATCH")
	require.Equal(t, 204, w.Code)
	require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
	require.Equal(t, "GET, HEAD, OPTIONS, POST", w.Header().Get("Access-Control-Allow-Methods"), "what the path has")
	require.Contains(t, w.Header().Get("Access-Control-Allow-Headers"), "Idempotency-Key")
	require.Equal(t, "600", w.Header().Get("Access-Control-Max-Age"))
	require.Empty(t, w.Header().Get("Access-Control-Allow-Credentials"))

	strict := serve(t, &recorder{}, "https://a.example")
	w = do(strict, "GET", "/v1/templates", "", "Origin", "https://a.example")
	require.Equal(t, "https://a.example", w.Header().Get("Access-Control-Allow-Origin"))
	require.Equal(t, "true", w.Header().Get("Access-Control-Allow-Credentials"))
	w = do(strict, "GET", "/v1/templates", "", "Origin", "https://b.example")
	require.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
	w = do(open, "POST", "/v1/webhooks/twilio/x/y", "", "Origin", "https://a.example")
	require.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
}

func TestDocsWorkOffline(t *testing.T) {
	t.Parallel()
	h := serve(t, &recorder{})
	for _, path := range []string{"/docs", "/docs/docs.js", "/docs/redoc.standalone.js", "/v1/openapi.json", "/healthz", "/readyz"} {
		w := do(h, "GET", path, "")
		require.Equal(t, 200, w.Code, path)
		body, err := io.ReadAll(w.Body)
		require.NoError(t, err)
		if path == "/docs" {
			require.NotContains(t, string(body), "http://")
			require.NotContains(t, string(body), "https://")
		}
	}
}

func TestGzip(t *testing.T) {
	t.Parallel()
	w := do(serve(t, &recorder{}), "GET", "/v1/openapi.json", "", "Accept-Encoding", "gzip")
	require.Equal(t, "gzip", w.Header().Get("Content-Encoding"))
}

// TestLength: an answer says how long it is, unless it is compressed or has no body.
func TestLength(t *testing.T) {
	t.Parallel()
	conn := &recorder{answer: func(out proto.Message) error {
		if list, ok := out.(*messagingv1.ListMessagesResponse); ok {
			list.Data = []*messagingv1.Message{{MessageBody: strings.Repeat("a", 5000)}}
		}
		return nil
	}}
	h := serve(t, conn)
	for _, encoding := range []string{"identity", "gzip"} {
		list := do(h, http.MethodGet, "/v1/messages", "", "Accept-Encoding", encoding)
		want := strconv.Itoa(list.Body.Len())
		if encoding == "gzip" {
			want = ""
		}
		require.Equal(t, want, list.Result().Header.Get("Content-Length"), encoding)
		deleted := do(h, http.MethodDelete, "/v1/contacts/0190a5c8-1111-7000-8000-000000000000", "", "Accept-Encoding", encoding)
		require.Equal(t, 204, deleted.Code)
		require.Empty(t, deleted.Result().Header.Get("Content-Length"), encoding)
		require.Zero(t, deleted.Body.Len())
	}
}
