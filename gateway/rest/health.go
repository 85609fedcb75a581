package rest

import (
	"context"
	"net/http"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// readyLimit is how long a readiness check may take.
const readyLimit = 2 * time.Second

// healthz says that the process runs.
func healthz() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeOK(w)
	})
}

// readyz says whether the services behind the routes answer.
func readyz(ready func(context.Context) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ready != nil {
			ctx, cancel := context.WithTimeout(r.Context(), readyLimit)
			defer cancel()
			if err := ready(ctx); err != nil {
				writeError(w, r, apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "not ready").Wrap(err))
				return
			}
		}
		writeOK(w)
	})
}

func writeOK(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"status":"ok"}`)) // the client went away; there is nobody to tell
}
