package rest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOAuthForm is RFC 6749 sections 2.3.1 and 4.4.2 as clients send them.
func TestOAuthForm(t *testing.T) {
	t.Parallel()
	const form = "application/x-www-form-urlencoded"
	cases := map[string]struct {
		contentType, body, user, password string
		want                              string // JSON that goes on
		status                            int    // or the refusal
	}{
		"the key in the form":  {form, "grant_type=client_credentials&client_id=k&client_secret=s", "", "", `{"client_id":"k","client_secret":"s","grant_type":"client_credentials"}`, 0},
		"the key as Basic":     {form, "grant_type=client_credentials", "k", "s%2Bx", `{"client_id":"k","client_secret":"s+x","grant_type":"client_credentials"}`, 0},
		"a charset":            {form + "; charset=utf-8", "grant_type=client_credentials", "", "", `{"grant_type":"client_credentials"}`, 0},
		"a scope":              {form, "grant_type=client_credentials&scope=a+b", "", "", `{"grant_type":"client_credentials"}`, 0},
		"JSON passes":          {"application/json", `{"grant_type":"x"}`, "", "", `{"grant_type":"x"}`, 0},
		"twice":                {form, "grant_type=a&grant_type=b", "", "", "", 400},
		"an unknown parameter": {form, "grant_type=a&x=b", "", "", "", 400},
		"no form":              {form, "%zz", "", "", "", 400},
		"a large form":         {form, "x=" + strings.Repeat("a", maxForm), "", "", "", 413},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			h := oauthForm(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				require.NoError(t, err)
				require.Equal(t, "application/json", r.Header.Get("Content-Type"))
				got = string(b)
			}))
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, tokenPath, strings.NewReader(c.body))
			r.Header.Set("Content-Type", c.contentType)
			if c.user != "" {
				r.SetBasicAuth(c.user, c.password)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if c.status != 0 {
				require.Equal(t, c.status, w.Code)
				require.Empty(t, got)
				return
			}
			require.JSONEq(t, c.want, got)
		})
	}
}

func FuzzOAuthForm(f *testing.F) {
	f.Add("grant_type=client_credentials&client_id=k", "Basic azpz")
	f.Add("a=b&a=c", "")
	f.Fuzz(func(t *testing.T, body, authorization string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, tokenPath, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		oauthForm(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		require.Contains(t, []int{200, 400, 413}, w.Code)
	})
}
