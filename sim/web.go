package sim

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"slices"
	"strconv"
)

const (
	defaultList = 50
	maxList     = 1000
	maxControl  = 4 << 10
)

//go:embed pages
var pages embed.FS

// Status is what GET /api/status answers.
type Status struct {
	// Accepted is the number of journal records.
	Accepted int64 `json:"accepted"`
	// Connections is the number of open SMTP connections.
	Connections int `json:"connections"`
	// SMTP is the address of the SMTP server.
	SMTP string `json:"smtp"`
	// API is the base URL of the HTTP providers' faces.
	API string `json:"api"`
	// Journal is the path of the journal.
	Journal string `json:"journal"`
	// Control is the present behaviour.
	Control Control `json:"control"`
}

// handler serves the mailbox pages, their JSON and the control endpoint.
func (s *Server) handler() http.Handler {
	views := template.Must(template.ParseFS(pages, "pages/*.html"))
	assets, err := fs.Sub(pages, "pages")
	if err != nil {
		panic("sim: embedded pages are missing: " + err.Error())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.listPage(views))
	mux.HandleFunc("GET /messages/{n}", s.messagePage(views))
	mux.HandleFunc("GET /messages/{n}/raw", s.rawMessage)
	mux.HandleFunc("GET /messages/{n}/html", s.htmlMessage)
	mux.HandleFunc("GET /api/messages", s.listJSON)
	mux.HandleFunc("GET /api/messages/{n}", s.messageJSON)
	mux.HandleFunc("GET /api/status", s.statusJSON)
	mux.HandleFunc("GET /api/calls", s.callsJSON)
	mux.HandleFunc("GET /control", s.readControl)
	mux.HandleFunc("POST /control", s.changeControl)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.Handle("GET /style.css", http.FileServerFS(assets))
	return guard(mux)
}

// guard keeps mail content from doing anything in the reader's browser.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; frame-src 'self'; img-src data:; base-uri 'none'; form-action 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func (s *Server) status() Status {
	return Status{
		Accepted: s.journal.count(), Connections: s.conns.count(), SMTP: s.SMTPAddr(), API: s.APIURL(),
		Journal: s.cfg.Journal, Control: s.control.get(),
	}
}

func (s *Server) statusJSON(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.status()) }

func (s *Server) readControl(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.control.get()) }

// changeControl changes the fields that the body names. It insists on JSON, so
// that no web page elsewhere can post to it unasked.
func (s *Server) changeControl(w http.ResponseWriter, r *http.Request) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		http.Error(w, "send application/json", http.StatusUnsupportedMediaType)
		return
	}
	next := s.control.get()
	next.Faults = slices.Clone(next.Faults) // the decoder writes into what it finds
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControl))
	body.DisallowUnknownFields()
	if err := body.Decode(&next); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := s.control.set(next); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	writeJSON(w, next)
}

// wanted returns the messages a list request asks for, decoded without bodies.
func (s *Server) wanted(r *http.Request) ([]Message, error) {
	limit := defaultList
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxList {
			return nil, fmt.Errorf("limit must be between 1 and %d", maxList)
		}
		limit = n
	}
	out := []Message{}
	for _, m := range s.mailbox.list(r.URL.Query().Get("to"), limit) {
		out = append(out, m.decode(false))
	}
	return out, nil
}

func (s *Server) listJSON(w http.ResponseWriter, r *http.Request) {
	messages, err := s.wanted(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, map[string]any{"messages": messages})
}

func (s *Server) listPage(views *template.Template) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		messages, err := s.wanted(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		render(w, views, "list.html", map[string]any{"Messages": messages, "Status": s.status(), "Prefixes": Prefixes(), "Phones": Phones()})
	}
}

// callsJSON lists what was handed in, of one sender if from is given.
func (s *Server) callsJSON(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, map[string]any{"calls": s.control.calls.of(r.URL.Query().Get("from"))})
}

// lookUp finds the message of the path, or answers 404.
func (s *Server) lookUp(w http.ResponseWriter, r *http.Request) (mail, bool) {
	n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
	if err == nil {
		if m, ok := s.mailbox.get(n); ok {
			return m, true
		}
	}
	http.Error(w, "no such message is kept", http.StatusNotFound)
	return mail{}, false
}

func (s *Server) messageJSON(w http.ResponseWriter, r *http.Request) {
	if m, ok := s.lookUp(w, r); ok {
		writeJSON(w, m.decode(true))
	}
}

func (s *Server) messagePage(views *template.Template) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if m, ok := s.lookUp(w, r); ok {
			render(w, views, "message.html", m.decode(true))
		}
	}
}

func (s *Server) rawMessage(w http.ResponseWriter, r *http.Request) {
	if m, ok := s.lookUp(w, r); ok {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(m.raw)
	}
}

// htmlMessage serves the HTML body for the frame of the message page: no script,
// no form, no request to anywhere.
func (s *Server) htmlMessage(w http.ResponseWriter, r *http.Request) {
	if m, ok := s.lookUp(w, r); ok {
		w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(m.decode(true).HTML))
	}
}

func render(w http.ResponseWriter, views *template.Template, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := views.ExecuteTemplate(w, name, data); err != nil {
		http.Error(w, "page failed", http.StatusInternalServerError)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(v)
}
