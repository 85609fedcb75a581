package sim

import (
	"cmp"
	"compress/gzip"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/turumba/turumba/kit/clock"
)

const (
	twilioProvider = "twilio"
	maxForm        = 64 << 10
	// maxTwilioBody is the longest text that Twilio takes, in characters.
	maxTwilioBody = 1600
)

// apiHandler serves the faces of HTTP providers, each under its own paths.
func (s *Server) apiHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2010-04-01/Accounts/{account}/Messages.json", s.twilio(s.twilioMessage))
	mux.HandleFunc("GET /2010-04-01/Accounts/{account}/Messages.json", s.twilio(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"messages": []any{}, "page": 0, "page_size": 1})
	}))
	mux.HandleFunc("GET /2010-04-01/Accounts/{account}", s.twilio(func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, map[string]any{"sid": accountOf(r), "status": "active", "type": "Full"})
	}))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		twilioError(w, http.StatusNotFound, 20404, "The requested resource "+r.URL.Path+" was not found")
	})
	return mux
}

// accountOf is the account of the path, with or without its ending.
func accountOf(r *http.Request) string { return strings.TrimSuffix(r.PathValue("account"), ".json") }

// twilio lets in who logs in as the account of the path or with a key. Any password
// will do, unless logins are refused.
func (s *Server) twilio(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		known := password != "" && (user == accountOf(r) || strings.HasPrefix(user, "SK"))
		if !known || s.control.get().RefuseLogin {
			twilioError(w, http.StatusUnauthorized, 20003, "Authenticate")
			return
		}
		next(w, r)
	}
}

// twilioMessage takes a message, or does what the recipient's number asks for.
func (s *Server) twilioMessage(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		twilioError(w, http.StatusBadRequest, 20001, "The form cannot be read")
		return
	}
	if code, message := twilioProblem(r.PostForm); code != 0 {
		twilioError(w, http.StatusBadRequest, code, message)
		return
	}
	to := r.PostForm.Get("To")
	script, drawn := phoneScript(to), s.control.draw(s.cfg.Clock.Now(), senderOf(r.PostForm), to)
	if script == (PhoneScript{}) {
		script = drawn.phone()
	}
	pause := time.Duration(s.control.get().LatencyMS)*time.Millisecond + script.Delay
	if clock.Sleep(r.Context(), s.cfg.Clock, pause) != nil {
		hangUp(w)
		return
	}
	if script.Reset && !script.Accept {
		hangUp(w)
		return
	}
	refused := !script.Accept && script.Status != 0
	if !refused && !script.Accept && s.control.unlucky() {
		refused, script = true, PhoneScript{Status: http.StatusServiceUnavailable, Code: 20503, Message: "failing as told", RetryAfter: "1"}
	}
	if refused {
		script.answer(w)
		return
	}
	s.twilioAccept(w, r, script)
}

// senderOf is who sends: a number, a name or a service.
func senderOf(form url.Values) string {
	return cmp.Or(form.Get("From"), form.Get("MessagingServiceSid"))
}

// twilioProblem is what is wrong with the form; 0 for nothing.
func twilioProblem(form url.Values) (code int, message string) {
	switch {
	case form.Get("To") == "":
		return 21604, "A 'To' phone number is required."
	case form.Get("From") == "" && form.Get("MessagingServiceSid") == "":
		return 21603, "A 'From' phone number is required."
	case form.Get("Body") == "":
		return 21602, "Message body is required."
	case utf8.RuneCountInString(form.Get("Body")) > maxTwilioBody:
		return 21617, "The concatenated message body exceeds the 1600 character limit"
	}
	return 0, ""
}

// twilioAccept journals the message before anything is answered.
func (s *Server) twilioAccept(w http.ResponseWriter, r *http.Request, script PhoneScript) {
	form, now, sid := r.PostForm, s.cfg.Clock.Now(), twilioSID()
	to, text := form.Get("To"), []byte(form.Get("Body"))
	n, err := s.journal.append(entry{
		time: now, to: []string{to}, messageID: []byte(twilioReference(form)), provider: twilioProvider, providerID: sid,
		bytes: len(text), sum: crc32.Checksum(text, castagnoli()),
	})
	if err != nil {
		twilioError(w, http.StatusServiceUnavailable, 20503, "journal failed")
		return
	}
	from := form.Get("From")
	s.mailbox.add(n, now, from, []string{to}, asMail(from, to, text))
	switch {
	case script.Reset:
		hangUp(w)
	case script.Silent:
		<-r.Context().Done()
		hangUp(w)
	case script.Status != 0:
		script.answer(w)
	default:
		twilioAccepted(w, form, sid, now)
	}
}

func twilioAccepted(w http.ResponseWriter, form url.Values, sid string, now time.Time) {
	status := "queued"
	if form.Get("MessagingServiceSid") != "" {
		status = "accepted"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	writeJSON(w, map[string]any{
		"sid": sid, "status": status, "to": form.Get("To"), "from": form.Get("From"), "body": form.Get("Body"), "direction": "outbound-api",
		"num_segments": "1", "num_media": "0", "error_code": nil, "error_message": nil, "date_created": now.UTC().Format(time.RFC1123Z),
	})
}

// twilioReference is the sender's own id in the query of its callback.
func twilioReference(form url.Values) string {
	callback, err := url.Parse(form.Get("StatusCallback"))
	if err != nil {
		return ""
	}
	return callback.Query().Get("m")
}

func twilioSID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return "SM" + hex.EncodeToString(id[:])
}

// asMail lets the mailbox show a text message.
func asMail(from, to string, text []byte) []byte {
	head := fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: SMS\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n", oneLine(from), oneLine(to))
	return append([]byte(head), text...)
}

func oneLine(s string) string { return strings.NewReplacer("\r", " ", "\n", " ").Replace(s) }

// answer writes what the script says.
func (p PhoneScript) answer(w http.ResponseWriter) {
	if p.RetryAfter != "" {
		w.Header().Set("Retry-After", p.RetryAfter)
	}
	if p.Body == "" {
		twilioError(w, p.Status, p.Code, p.Message)
		return
	}
	out := io.Writer(w)
	if p.Gzip {
		w.Header().Set("Content-Encoding", "gzip")
		packed, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // it knows that level
		defer func() { _ = packed.Close() }()               // who asked may be gone
		out = packed
	}
	w.WriteHeader(p.Status)
	_, _ = io.WriteString(out, p.Body)
	for block, left := strings.Repeat(" ", 32<<10), p.Fill; left > 0; left -= len(block) {
		if _, err := io.WriteString(out, block[:min(left, len(block))]); err != nil {
			return // nobody reads that much
		}
	}
}

func twilioError(w http.ResponseWriter, status, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	writeJSON(w, map[string]any{"code": code, "message": message, "more_info": "", "status": status})
}

// hangUp resets the connection under the request.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
