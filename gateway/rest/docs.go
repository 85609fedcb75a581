package rest

import (
	"embed"
	"net/http"

	"github.com/turumba/turumba/gen/openapi"
)

// assets are the documentation page and its renderer, so that it works offline.
//
//go:embed assets
var assets embed.FS

// docs serves the OpenAPI document and a rendered page of it.
func docs(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(openapi.Document) // the client went away; there is nobody to tell
	})
	for path, file := range map[string]string{
		"GET /docs":                     "docs.html",
		"GET /docs/docs.js":             "docs.js",
		"GET /docs/redoc.standalone.js": "redoc.standalone.js",
		"GET /docs/LICENSE.txt":         "redoc.LICENSE.txt",
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			http.ServeFileFS(w, r, assets, "assets/"+file)
		})
	}
}
