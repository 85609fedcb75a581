package rest

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// tokenPath is the token endpoint (RFC 6749 section 3.2).
const tokenPath = "/v1/auth/token"

// maxForm is the most bytes of a form at the token endpoint.
const maxForm = 8 << 10

// oauthForm lets OAuth clients speak as RFC 6749 has it: the grant as a form
// (section 4.4.2) and the key as HTTP Basic credentials (section 2.3.1). Both
// become the JSON of the contract.
func oauthForm(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, basic := r.BasicAuth()
		mt, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if mt != "application/x-www-form-urlencoded" {
			next.ServeHTTP(w, r) // JSON, or what is refused
			return
		}
		grant, err := readForm(r)
		if err != nil {
			writeError(w, r, err)
			return
		}
		if basic {
			r.Header.Del("Authorization")
			grant["client_id"], grant["client_secret"] = unescaped(id), unescaped(secret)
		}
		body, err := json.Marshal(grant)
		if err != nil {
			writeError(w, r, apierr.Internal(err))
			return
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.Header.Set("Content-Type", "application/json")
		next.ServeHTTP(w, r)
	})
}

// readForm reads the parameters of the grant; scope is accepted and ignored, as
// section 3.3 allows, any other is unknown.
func readForm(r *http.Request) (map[string]string, error) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxForm+1))
	if err != nil || len(raw) > maxForm {
		return nil, apierr.New(errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "the form is larger than 8 KiB").Wrap(err)
	}
	form, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil, apierr.New(errorv1.Reason_REASON_INVALID_JSON, "the body is not a form").Wrap(err)
	}
	grant := map[string]string{}
	for name, values := range form {
		switch {
		case len(values) > 1:
			return nil, apierr.New(errorv1.Reason_REASON_UNKNOWN_PARAMETER, "parameter %q is given twice", name)
		case name == "scope":
		case name == "grant_type" || name == "client_id" || name == "client_secret":
			grant[name] = values[0]
		default:
			return nil, apierr.New(errorv1.Reason_REASON_UNKNOWN_PARAMETER, "parameter %q is unknown; the grant has grant_type, client_id and client_secret", name)
		}
	}
	return grant, nil
}

// unescaped undoes the form encoding of section 2.3.1; text that is none stays.
func unescaped(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

// noStore keeps tokens and codes out of every cache (RFC 6749 section 5.1).
func noStore(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/auth/") {
			w.Header().Set("Cache-Control", "no-store")
		}
		next.ServeHTTP(w, r)
	})
}
