package twilio

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging/channel"
)

// FuzzReply reads answers that Twilio, or whoever stands before it, may give.
func FuzzReply(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	require.NoError(f, err)
	for _, name := range files {
		raw, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(201, "", raw)
	}
	f.Add(400, "", []byte(`{"code":"21211","message":"hunter22 +251911000001","status":400}`))
	f.Add(429, "Fri, 31 Dec 2100 23:59:59 GMT", []byte(`{"code":-1,"status":{}}`))
	f.Add(503, "3", []byte("<html>"))
	s := &sender{cfg: Config{Clock: clock.System()}, redact: channel.NewRedactor("hunter22")}
	m := &channel.Message{To: "+251911000001"}
	f.Fuzz(func(t *testing.T, status int, hint string, body []byte) {
		r := reply{status: status, header: http.Header{"Retry-After": {hint}}, body: body}
		res := s.understand(r, m)
		require.NotEqual(t, "invalid", res.Outcome.String())
		require.NotEqual(t, "invalid", res.Class.String())
		require.Equal(t, res.Outcome == channel.Accepted, res.Class == channel.ClassOK)
		require.Equal(t, res.Outcome == channel.Unknown, res.Class == channel.ClassUnknown)
		require.Equal(t, res.Outcome == channel.Accepted, len(res.ProviderIDs) == 1)
		require.LessOrEqual(t, res.RetryAfter, channel.MaxRetryAfter)
		for _, text := range []string{res.Text, res.RawExcerpt} {
			require.LessOrEqual(t, len(text), channel.MaxExcerpt)
			require.True(t, utf8.ValidString(text))
			require.NotContains(t, text, "hunter22")
			require.NotContains(t, text, "251911000001")
		}
		require.LessOrEqual(t, len(res.Text), channel.MaxText)
		v := s.judge(r)
		require.Equal(t, v.Outcome == channel.Accepted, v.Class == channel.ClassOK)
	})
}
