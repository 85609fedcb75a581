package rest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

// refusing is a far side that lets nobody in; public RPCs are answered.
type refusing struct{ recorder }

func (*refusing) Admit(context.Context, string) error {
	return apierr.Unauthenticated(errors.New("no token"))
}

// untouched is a body that must not be read.
type untouched struct{ read bool }

func (u *untouched) Read([]byte) (int, error) {
	u.read = true
	return 0, io.ErrUnexpectedEOF
}

// TestBodiesStayClosed: on no route of the contract a byte of the body is read of who is
// not let in, whatever the body says it is, and the connection ends.
func TestBodiesStayClosed(t *testing.T) {
	t.Parallel()
	h, err := NewHandler(t.Context(), Config{Backends: Backends{Account: &refusing{}, Messaging: &refusing{}}, Logger: telemetry.Discard(), Clock: clock.System()})
	require.NoError(t, err)
	for _, s := range contractRoutes() {
		if s.public {
			continue
		}
		for _, ct := range []string{"", "application/json", "text/csv", "multipart/form-data; boundary=x", "application/x-ndjson", "application/x-www-form-urlencoded"} {
			body := &untouched{}
			r := httptest.NewRequest(s.verb, strings.NewReplacer("{", "", "}", "").Replace(s.path), body)
			r.ContentLength = -1
			r.Header.Set("Content-Type", ct)
			r.Header.Set("Authorization", "Bearer x")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, http.StatusUnauthorized, w.Code, "%s %s %s: %s", s.verb, s.path, ct, w.Body)
			require.False(t, body.read, "%s %s %s", s.verb, s.path, ct)
			require.Equal(t, "close", w.Header().Get("Connection"))
		}
	}
}

// TestLargeBodies: a public route has room for what its fields say; compressed bodies
// have none anywhere.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	h := serve(t, &recorder{})
	w := do(h, http.MethodPost, "/v1/auth/login", `{"email":"`+strings.Repeat("x", 32<<10)+`"}`)
	require.Equal(t, http.StatusRequestEntityTooLarge, w.Code, w.Body)
	w = do(h, http.MethodPost, "/v1/auth/login", "{}", "Content-Encoding", "gzip")
	require.Equal(t, http.StatusUnsupportedMediaType, w.Code, w.Body)
	w = do(h, http.MethodPost, "/v1/contacts/batch", `{"contacts":[`+strings.Repeat("{},", 5000)+"{}]}", "Authorization", "Bearer x")
	require.Equal(t, http.StatusUnprocessableEntity, w.Code, w.Body)
	require.Contains(t, w.Body.String(), `{"field":"contacts","message":"has more than 1000 items"}`)
	w = do(h, http.MethodPost, "/v1/contacts", `{"name":"x","metadata":{"id":12345678901234567890}}`, "Authorization", "Bearer x")
	require.Equal(t, http.StatusUnprocessableEntity, w.Code, w.Body)
	require.Contains(t, w.Body.String(), `{"field":"metadata","message":"has a number that a double cannot hold"}`)
}

// TestLargeForms: names, headers of parts and values count alike, before the file and
// after it.
func TestLargeForms(t *testing.T) {
	t.Parallel()
	for name, build := range map[string]func(w *multipart.Writer){
		"long names": func(w *multipart.Writer) { _ = w.WriteField(strings.Repeat("n", 100<<10), "") },
		"many parts": func(w *multipart.Writer) {
			for range 3000 {
				_ = w.WriteField("n", "")
			}
		},
		"long values": func(w *multipart.Writer) { _ = w.WriteField("n", strings.Repeat("v", 100<<10)) },
		"after the file": func(w *multipart.Writer) {
			_, _ = w.CreateFormFile("file", "a.csv")
			_ = w.WriteField(strings.Repeat("n", 1<<20), "")
		},
	} {
		f := &files{}
		body, ct := form(t, build)
		res := do(f.handler(t), http.MethodPost, importPath, body, "Content-Type", ct, "Authorization", "Bearer x")
		require.Equal(t, http.StatusRequestEntityTooLarge, res.Code, "%s: %s", name, res.Body)
	}
}

// TestBodyDeadline: a body has time for its first bytes, must then keep its rate, and
// ends.
func TestBodyDeadline(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		elapsed, within time.Duration
		read            int64
		want            time.Duration
	}{
		"the first byte":        {0, time.Hour, 0, slowAfter},
		"at its rate":           {20 * time.Second, time.Hour, 15 << 10, 25 * time.Second},
		"below it":              {20 * time.Second, time.Hour, 5 << 10, 15 * time.Second},
		"far ahead, then still": {20 * time.Second, time.Hour, 1 << 20, 20*time.Second + idleLimit},
		"at its end":            {59 * time.Minute, time.Hour, 1 << 30, time.Hour},
		"public":                {0, slowAfter, 1 << 20, slowAfter},
	} {
		b := &gatedBody{now: func() time.Time { return start.Add(c.elapsed) }, start: start, within: c.within, n: c.read}
		require.Equal(t, c.want, b.deadline().Sub(start), name)
	}
}

// TestAdmissionIsKept: the question is asked once for a token and an RPC, and again when
// the answer is old; bad answers are not kept.
func TestAdmissionIsKept(t *testing.T) {
	t.Parallel()
	fake := clock.NewFake(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	conn := &counting{}
	s := &route{rpc: "/a/B"}
	d := newDoor(fake.Now, map[string]grpc.ClientConnInterface{s.rpc: conn})
	ask := func(token string) error {
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(nil))
		r.Header.Set("Authorization", token)
		return d.admit(r, s)
	}
	require.NoError(t, ask("a"))
	require.NoError(t, ask("a"))
	require.Equal(t, 1, conn.asked)
	require.NoError(t, ask("b"))
	require.Equal(t, 2, conn.asked)
	fake.Advance(admitFresh)
	require.NoError(t, ask("a"))
	require.Equal(t, 3, conn.asked)
	conn.err = apierr.New(errorv1.Reason_REASON_PERMISSION_DENIED, "no")
	require.Error(t, ask("c"))
	conn.err = nil
	require.NoError(t, ask("c"))
	require.Equal(t, 5, conn.asked)
	require.NoError(t, d.admit(httptest.NewRequest(http.MethodPost, "/", nil), &route{rpc: "/a/Public", public: true}))
}

// counting is a far side that counts questions.
type counting struct {
	recorder
	asked int
	err   error
}

func (c *counting) Admit(context.Context, string) error {
	c.asked++
	return c.err
}

// TestShortBody: a body that is shorter than it says is told so, and nothing of ours.
func TestShortBody(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(serve(t, &recorder{}))
	t.Cleanup(server.Close)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = io.WriteString(conn, "POST /v1/templates HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"name\":")
	require.NoError(t, err)
	half, ok := conn.(*net.TCPConn)
	require.True(t, ok)
	require.NoError(t, half.CloseWrite())
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(answer), "HTTP/1.1 408 ")
	require.Contains(t, string(answer), `"code":"REQUEST_TIMEOUT"`)
	require.NotContains(t, string(answer), "127.0.0.1")
}

// TestBodiesAsClientsSendThem: a byte order mark is left out, a PATCH may be called what it
// is (RFC 7396), and compressed bodies are refused.
func TestBodiesAsClientsSendThem(t *testing.T) {
	t.Parallel()
	h := serve(t, &recorder{})
	for name, c := range map[string]struct {
		verb, path, body string
		headers          []string
		want             int
	}{
		"a byte order mark": {"POST", "/v1/templates", "\ufeff{\"name\":\"x\"}", nil, http.StatusCreated},
		"a merge patch":     {"PATCH", "/v1/templates/t1", `{"body":"x"}`, []string{"Content-Type", "application/merge-patch+json"}, http.StatusOK},
		"one to create":     {"POST", "/v1/templates", `{"name":"x"}`, []string{"Content-Type", "application/merge-patch+json"}, http.StatusUnsupportedMediaType},
		"gzip":              {"POST", "/v1/templates", "\x1f\x8b", []string{"Content-Encoding", "gzip"}, http.StatusUnsupportedMediaType},
	} {
		w := do(h, c.verb, c.path, c.body, c.headers...)
		require.Equal(t, c.want, w.Code, "%s: %s", name, w.Body)
	}
}
