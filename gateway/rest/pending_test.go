package rest

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
)

// TestUnreadAnswers: who reads none of their answers fills their share of the room and no more.
// Others find room at once, or when somebody who is too slow was cut, and a caller who
// finds none is told when to come again.
func TestUnreadAnswers(t *testing.T) {
	t.Parallel()
	const size = 6 << 20
	h := serve(t, &recorder{answer: func(out proto.Message) error {
		if list, ok := out.(*accountv1.ListContactsResponse); ok {
			list.Data = []*accountv1.Contact{{Name: strings.Repeat("x", size)}}
		}
		return nil
	}})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = r.Header.Get("X-Side") + ":1"
		h.ServeHTTP(w, r)
	}))
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetWriteBuffer(16 << 10) // what the system keeps is not the process's
		}
		return ctx
	}
	server.Start()
	t.Cleanup(server.Close)
	ask := func(side string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/contacts", http.NoBody)
		require.NoError(t, err)
		req.Header.Set("X-Side", side)
		client := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
		res, err := client.Do(req)
		require.NoError(t, err)
		return res
	}
	var unread []*http.Response
	for _, side := range []string{"10.1.0.1", "10.2.0.1", "10.3.0.1", "10.4.0.1", "10.5.0.1"} { // ten of 6 MiB fit
		for range 2 {
			unread = append(unread, ask(side))
		}
	}
	crowded := ask("10.1.0.1")
	require.Equal(t, http.StatusServiceUnavailable, crowded.StatusCode, "its share is taken")
	require.Equal(t, "1", crowded.Header.Get("Retry-After"))
	require.NoError(t, crowded.Body.Close())
	res := ask("10.9.0.1")
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode, "somebody was cut by now")
	require.Greater(t, len(body), size)
	require.NoError(t, res.Body.Close())
	cut := 0
	for _, res := range unread {
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			cut++
		}
		require.NoError(t, res.Body.Close())
	}
	require.Positive(t, cut)
	require.Less(t, cut, len(unread), "and no more than had to be")
}
