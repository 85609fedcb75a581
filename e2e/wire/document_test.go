package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/wire"
)

// TestDocument: the judge lets a documented answer pass and finds what is not.
func TestDocument(t *testing.T) {
	t.Parallel()
	document, err := wire.ReadDocument()
	require.NoError(t, err)
	md, err := wire.FindMethod("turumba.account.v1.AuthService/ForgotPassword")
	require.NoError(t, err)
	problem := `{"detail":"no","code":"RATE_LIMITED","request_id":"1"}`
	for _, c := range []struct {
		name, contentType, body string
		status                  int
		want                    string
	}{
		{name: "an error", status: 429, contentType: "application/json", body: problem},
		{name: "with a charset", status: 429, contentType: "application/json; charset=utf-8", body: problem},
		{name: "another status", status: 418, contentType: "application/json", body: problem, want: "418 is not documented"},
		{name: "another type", status: 429, contentType: "text/html", body: problem, want: `content "text/html"`},
		{name: "another reason", status: 429, contentType: "application/json", body: `{"detail":"no","code":"NEVER","request_id":"1"}`, want: "/code"},
		{name: "a field too many", status: 429, contentType: "application/json", body: `{"detail":"no","code":"RATE_LIMITED","request_id":"1","trace":"x"}`, want: "trace"},
		{name: "a field too few", status: 429, contentType: "application/json", body: `{"detail":"no","code":"RATE_LIMITED"}`, want: "request_id"},
		{name: "no JSON", status: 429, contentType: "application/json", body: `no`, want: "invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := document.Check(md, c.status, c.contentType, []byte(c.body))
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}
