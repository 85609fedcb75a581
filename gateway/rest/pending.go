package rest

import (
	"context"
	"net/http"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/bounds"
)

var errPending = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "too many large answers are being read at once").WithRetryAfter(time.Second)

// pending serves GET requests whose answers have room until they are read (ADR 0058). An answer
// that finds none is dropped, waits with empty hands, and is asked for once more. The
// answers of other requests are about as large as their bodies, which have room as long.
type pending struct{ room *bounds.Room }

// serve serves a GET request by call, which answers with one Write.
func (u *pending) serve(w http.ResponseWriter, r *http.Request, call func(http.ResponseWriter)) {
	a := &pendingAnswer{ResponseWriter: w, room: u.room, side: sideOf(r)}
	defer func() { a.held.Leave() }()
	if call(a); a.dropped == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), roomWait)
	defer cancel()
	held, err := u.room.Take(ctx, a.side, a.dropped)
	if err != nil {
		w.Header().Del("Content-Length")
		writeError(w, r, errPending.Wrap(err))
		return
	}
	a.held, a.dropped = held, 0
	call(a)
}

// pendingAnswer is one answer.
type pendingAnswer struct {
	http.ResponseWriter
	room    *bounds.Room
	side    string
	held    *bounds.Held
	begun   bool
	dropped int64 // its size, when it found no room
}

// Write implements io.Writer.
func (a *pendingAnswer) Write(p []byte) (int, error) {
	if !a.begun && a.held == nil {
		var ok bool
		if a.held, ok = a.room.Try(a.side, int64(len(p))); !ok {
			a.dropped = int64(len(p))
			return len(p), nil
		}
	}
	a.begin()
	return a.ResponseWriter.Write(p)
}

// begin lets the answer go out.
func (a *pendingAnswer) begin() {
	if a.begun {
		return
	}
	a.begun = true
	rc := http.NewResponseController(a.ResponseWriter)
	a.held.Sent(func() { _ = rc.SetWriteDeadline(time.Unix(1, 0)) })
}

// WriteHeader implements http.ResponseWriter.
func (a *pendingAnswer) WriteHeader(code int) {
	a.begin()
	a.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController through.
func (a *pendingAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
