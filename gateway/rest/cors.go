package rest

import (
	"net/http"
	"slices"
	"strings"
)

// The headers of decision C9.
const (
	corsHeaders = "Accept-Language, Authorization, Content-Type, Idempotency-Key"
	corsExpose  = "X-Request-Id, Retry-After"
	corsMaxAge  = "600"
)

// cors answers preflights and marks answers for browsers. Without origins any
// origin may call, without credentials. Webhooks get none. methods are those of a path.
func cors(origins []string, methods func(path string) []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if origin == "" || strings.HasPrefix(r.URL.Path, "/v1/webhooks/") {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		switch {
		case len(origins) == 0:
			h.Set("Access-Control-Allow-Origin", "*")
		case slices.Contains(origins, origin):
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Credentials", "true")
			h.Add("Vary", "Origin")
		default:
			h.Add("Vary", "Origin")
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Expose-Headers", corsExpose)
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", strings.Join(methods(r.URL.Path), ", "))
			h.Set("Access-Control-Allow-Headers", corsHeaders)
			h.Set("Access-Control-Max-Age", corsMaxAge)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}
