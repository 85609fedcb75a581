package rest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/bounds"
)

// Limits of bodies in time (ADR 0041). A body has slowAfter for its first bytes and must
// then have come at minRate on the average.
const (
	slowAfter = 10 * time.Second
	minRate   = 1 << 10 // bytes a second
	// uploadLimit is how long an upload may take at most.
	uploadLimit = time.Hour
	// refusedLimit is how long a connection whose body is not wanted stays for the client
	// to read the answer.
	refusedLimit = time.Second
)

// roomWait is how long a body waits for room, for its bytes and for what they become, before
// it is refused. Bodies that are read whole count for what they say they have.
const roomWait = 10 * time.Second

// bodies guards the bodies of all requests: none is read before its route has opened it,
// which it does after the call was let in.
type bodies struct {
	now    func() time.Time
	bytes  *bounds.Room // of what is read of bodies
	values *bounds.Room // of what they become
}

func newBodies(now func() time.Time) *bodies {
	return &bodies{now: now, bytes: bounds.NewRoom(bounds.Bytes), values: bounds.NewRoom(bounds.Values)}
}

// guard closes the body of every request, and refuses what no route could mean.
func (b *bodies) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.RawQuery) > 16<<10 {
			writeError(w, r, apierr.New(errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "the query string is larger than 16 KiB"))
			return
		}
		if r.Body == nil || r.ContentLength == 0 {
			r.Body = http.NoBody
			next.ServeHTTP(w, r)
			return
		}
		body := &gatedBody{src: r.Body, rc: http.NewResponseController(w), now: b.now, length: r.ContentLength, of: b, ctx: r.Context(), side: sideOf(r)}
		defer body.release()
		r.Body, w = body, &gatedWriter{ResponseWriter: w, body: body}
		if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
			writeError(w, r, apierr.New(errorv1.Reason_REASON_UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// gatedBody is the body of a request.
type gatedBody struct {
	src    io.ReadCloser
	rc     *http.ResponseController
	now    func() time.Time
	ctx    context.Context
	length int64 // as the client says; -1 where it does not
	of     *bodies
	side   string
	begun  bool         // its room was asked for
	read   *bounds.Held // room of its bytes
	became *bounds.Held // room of what the body became

	opened bool
	whole  bool // it is read into memory as a whole
	limit  int64
	within time.Duration
	start  time.Time

	n    int64 // bytes that were read
	done bool  // came to its end
	err  error
}

var errClosedBody = errors.New("the body was read before the call was let in")

// open lets a body be read: limit bytes within a time, as a whole or piece by piece.
func (b *gatedBody) open(limit int64, within time.Duration, whole bool) {
	b.opened, b.limit, b.within, b.whole, b.start = true, limit, within, whole, b.now()
}

// Read implements io.Reader.
func (b *gatedBody) Read(p []byte) (int, error) {
	if b.err == nil && b.n == 0 {
		b.err = b.begin()
	}
	if b.err != nil {
		return 0, b.err
	}
	// A writer without deadlines (tests) is served without.
	_ = b.rc.SetReadDeadline(b.deadline())
	if left := b.limit - b.n + 1; int64(len(p)) > left {
		p = p[:left]
	}
	n, err := b.src.Read(p)
	if b.n += int64(n); b.n > b.limit {
		n, err = 0, &http.MaxBytesError{Limit: b.limit}
	}
	if errors.Is(err, io.EOF) {
		b.done = true
		_ = b.rc.SetReadDeadline(time.Time{}) // or it ends the call that the body was for
	}
	b.err = err
	return n, err
}

// begin is the first read: too much is refused unread, and what is read whole waits for
// room.
func (b *gatedBody) begin() error {
	switch {
	case !b.opened:
		return apierr.Internal(errClosedBody)
	case b.length > b.limit:
		return &http.MaxBytesError{Limit: b.limit}
	case !b.whole || b.begun:
		return nil
	}
	n := b.length
	if n < 0 {
		n = b.limit
	}
	ctx, cancel := context.WithTimeout(b.ctx, roomWait)
	defer cancel()
	b.begun = true
	var err error
	if b.read, err = b.of.bytes.Take(ctx, b.side, n); err != nil {
		return errCrowded.Wrap(err)
	}
	return nil
}

// deadline is when the next bytes must have come.
func (b *gatedBody) deadline() time.Time {
	slow := b.start.Add(slowAfter + time.Duration(b.n)*time.Second/minRate)
	last := b.start.Add(b.within)
	if idle := b.now().Add(idleLimit); idle.Before(slow) {
		slow = idle
	}
	if last.Before(slow) {
		return last
	}
	return slow
}

func (b *gatedBody) release() {
	b.read.Leave()
	b.answered()
}

// answered gives back the room of what the body became: the answer is made.
func (b *gatedBody) answered() { b.became.Leave() }

// take reads the body of a request for r as a whole, and waits for room for what it becomes
// as a message of type md. The body is what was read from then on.
func (b *gatedBody) take(r *http.Request, md protoreflect.MessageDescriptor) error {
	data, err := io.ReadAll(b)
	if err != nil {
		return unread(err)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // RFC 8259, section 8.1: a parser may ignore it
	values, err := bounds.JSON(data, md)
	if err != nil {
		return malformed(beyond(err))
	}
	if values > 0 {
		ctx, cancel := context.WithTimeout(r.Context(), roomWait)
		defer cancel()
		if b.became, err = b.of.values.Take(ctx, b.side, int64(values)); err != nil {
			return errCrowded.Wrap(err)
		}
	}
	r.Body = &takenBody{Reader: bytes.NewReader(data), data: data}
	return nil
}

var errCrowded = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "too many large requests at once").WithRetryAfter(time.Second)

// unread is why a body could not be read. What the transport says of it names addresses of
// ours, and stays in the log.
func unread(err error) error {
	var tooLarge *http.MaxBytesError
	var own *apierr.Error
	if errors.As(err, &tooLarge) || errors.As(err, &own) {
		return err
	}
	return errIncomplete.Wrap(err)
}

var errIncomplete = apierr.New(errorv1.Reason_REASON_REQUEST_TIMEOUT, "the body did not come to its end: it came too slowly, or is shorter than the Content-Length")

// malformed is why a body could not be decoded.
func malformed(err error) error {
	var own *apierr.Error
	if errors.As(err, &own) {
		return err
	}
	return apierr.New(errorv1.Reason_REASON_INVALID_JSON, "%s", err)
}

// takenBody is a body that was read, and whose values were counted.
type takenBody struct {
	*bytes.Reader
	data []byte
}

// Close implements io.Closer.
func (*takenBody) Close() error { return nil }

// sideOf is from where a request came.
func sideOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return auth.Client{IP: host}.Side().String()
}

// Close implements io.Closer.
func (b *gatedBody) Close() error { return b.src.Close() }

// gatedWriter answers a request whose body was not read to its end by closing the
// connection: the server would wait for the rest of it otherwise.
type gatedWriter struct {
	http.ResponseWriter
	body *gatedBody
	told bool
}

// WriteHeader implements http.ResponseWriter.
func (g *gatedWriter) WriteHeader(code int) {
	g.end()
	g.ResponseWriter.WriteHeader(code)
}

// Write implements io.Writer.
func (g *gatedWriter) Write(p []byte) (int, error) {
	g.end()
	return g.ResponseWriter.Write(p)
}

func (g *gatedWriter) end() {
	if g.told {
		return
	}
	g.told = true
	g.body.answered()
	if g.body.done || g.body.length == g.body.n {
		return
	}
	g.Header().Set("Connection", "close")
	_ = g.body.rc.SetReadDeadline(g.body.now().Add(refusedLimit)) // as above
}

// Unwrap lets http.ResponseController through.
func (g *gatedWriter) Unwrap() http.ResponseWriter { return g.ResponseWriter }
