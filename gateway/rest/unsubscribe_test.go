package rest

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// TestUnsubscribePage: a mail program's one click, whatever its body, and a person's two.
func TestUnsubscribePage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, body string
		headers      []string
		checkOnly    bool
		text         string
	}{
		"a person opens it":       {http.MethodGet, "", nil, true, `<form method="post">`},
		"a person confirms":       {http.MethodPost, "", []string{"Content-Type", "application/x-www-form-urlencoded"}, false, "no more messages"},
		"one click":               {http.MethodPost, "List-Unsubscribe=One-Click", []string{"Content-Type", "application/x-www-form-urlencoded"}, false, "no more messages"},
		"one click as a form":     {http.MethodPost, "--b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b--\r\n", []string{"Content-Type", "multipart/form-data; boundary=b"}, false, "no more messages"},
		"one click, no body":      {http.MethodPost, "", nil, false, "no more messages"},
		"a body that is no sense": {http.MethodPost, "\xff\x00", []string{"Content-Type", "what?"}, false, "no more messages"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := &recorder{}
			w := do(serve(t, conn), c.method, "/unsubscribe/abc-DEF_1", c.body, c.headers...)
			require.Equal(t, http.StatusOK, w.Code, w.Body.String())
			require.Contains(t, w.Body.String(), c.text)
			require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
			require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
			require.Equal(t, messagingv1.SuppressionService_Unsubscribe_FullMethodName, conn.method)
			require.True(t, proto.Equal(&messagingv1.UnsubscribeRequest{Token: "abc-DEF_1", CheckOnly: c.checkOnly}, conn.in))
		})
	}
	bad := &recorder{answer: func(proto.Message) error { return apierr.NotFound("unsubscribe link") }}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		w := do(serve(t, bad), method, "/unsubscribe/x", "")
		require.Equal(t, http.StatusNotFound, w.Code)
		require.Contains(t, w.Body.String(), "not complete")
		require.NotContains(t, w.Body.String(), "form")
	}
	require.Equal(t, http.StatusNotFound, do(serve(t, bad), http.MethodDelete, "/unsubscribe/x", "").Code)
}
