package rest

import (
	"html/template"
	"net/http"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// unsubscribePath is where the links in mails lead. Mail programs POST to it, with one
// click (RFC 8058); people open it and confirm, because what only looks at links must
// not unsubscribe anybody.
const unsubscribePath = "/unsubscribe/{token}"

// wayOut serves the pages of those who want no more messages.
type wayOut struct {
	calls        *transcoder
	suppressions messagingv1.SuppressionServiceClient
}

func (h *wayOut) register(top *http.ServeMux) {
	top.HandleFunc("GET "+unsubscribePath, func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, true) })
	top.HandleFunc("POST "+unsubscribePath, func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, false) })
}

// serve never reads the body: whatever it says, the link says who it is.
func (h *wayOut) serve(w http.ResponseWriter, r *http.Request, ask bool) {
	ctx, err := h.calls.annotate(r.Context(), r, messagingv1.SuppressionService_Unsubscribe_FullMethodName)
	if err == nil {
		_, err = h.suppressions.Unsubscribe(ctx, &messagingv1.UnsubscribeRequest{Token: r.PathValue("token"), CheckOnly: ask})
	}
	page, status := wayOutPage{Title: "You are unsubscribed", Text: "You will get no more messages of this kind from this sender."}, http.StatusOK
	switch e := apierr.From(err); {
	case err == nil && ask:
		page = wayOutPage{Title: "Unsubscribe", Text: "Do you want no more messages of this kind from this sender?", Ask: true}
	case err == nil:
	case e.Reason == errorv1.Reason_REASON_NOT_FOUND || e.Reason == errorv1.Reason_REASON_VALIDATION_FAILED:
		page, status = wayOutPage{Title: "This link is not complete", Text: "Please open it from the message once more."}, http.StatusNotFound
	default:
		page, status = wayOutPage{Title: "That did not work", Text: "Please try again in a few minutes."}, apierr.HTTPStatus(e.Reason)
	}
	page.write(w, status)
}

// wayOutPage is a page for a person.
type wayOutPage struct {
	Title, Text string
	Ask         bool
}

var wayOutHTML = template.Must(template.New("unsubscribe").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Title}}</title>
<style>body{font:18px/1.5 system-ui,sans-serif;max-width:32em;margin:4em auto;padding:0 1em}button{font:inherit;padding:.5em 1em}</style>
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
{{if .Ask}}<form method="post"><button>Unsubscribe</button></form>{{end}}
</html>
`))

func (p wayOutPage) write(w http.ResponseWriter, status int) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Robots-Tag", "noindex")
	w.WriteHeader(status)
	_ = wayOutHTML.Execute(w, p) // the reader went away
}
