package email

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/turumba/turumba/services/messaging/channel"
)

// keepBuffer is the largest message buffer a connection keeps between messages.
const keepBuffer = 1 << 20

// extensions is what the server offered in its answer to EHLO.
type extensions struct {
	pipelining, eightBit, utf8, startTLS, plain, login bool
	// sizeGiven says that SIZE was offered; size is the limit, 0 for none.
	sizeGiven bool
	size      int64
}

// wire is one connection. One goroutine uses it at a time.
type wire struct {
	s    *sender
	conn net.Conn
	r    *bufio.Reader
	ext  extensions
	// commands, content and text are buffers kept between messages.
	commands, text []byte
	content        content
	pieces         [][]byte
	// steps are where the commands of a transaction end.
	steps []step
	// sent counts transactions; from the second on each begins with RSET.
	sent int
	// idleSince is when the connection was last given back.
	idleSince time.Time
}

// connect opens a connection and brings it to the point where MAIL may follow.
// On failure the Result is not nil and the connection is closed.
func (s *sender) connect(ctx context.Context) (*wire, *channel.Result) {
	address := net.JoinHostPort(s.set.Host, strconv.Itoa(s.set.Port))
	dialCtx, cancel := context.WithTimeout(ctx, s.cfg.Timeouts.Connect)
	defer cancel()
	conn, err := s.cfg.Dialer.DialContext(dialCtx, "tcp", address)
	if err != nil {
		res := dialFailure(ctx, err)
		return nil, &res
	}
	w := &wire{s: s, conn: conn, r: bufio.NewReaderSize(conn, readBuffer)}
	stop := w.watch(ctx)
	failed := w.setUp(ctx)
	if !stop() && failed == nil {
		res := fail(channel.ClassTransient, codeCancelled)
		failed = &res
	}
	if failed != nil {
		_ = w.conn.Close()
		return nil, failed
	}
	return w, nil
}

// watch ends waiting on the connection when ctx ends. stop reports false when
// that has happened; the connection is then of no more use.
func (w *wire) watch(ctx context.Context) (stop func() bool) {
	conn := w.conn
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// within sets the deadline of the next exchange. Asking ctx afterwards closes the
// gap in which its end would have been overwritten.
func (w *wire) within(ctx context.Context, d time.Duration) error {
	if err := w.conn.SetDeadline(w.s.cfg.Clock.Now().Add(d)); err != nil {
		return err
	}
	return ctx.Err()
}

func (w *wire) setUp(ctx context.Context) *channel.Result {
	set := &w.s.set
	if set.TLS == channel.TLSImplicit {
		if failed := w.handshake(ctx); failed != nil {
			return failed
		}
	}
	if failed := w.expect(ctx, stageGreeting, 220); failed != nil {
		return failed
	}
	if set.TLS == channel.TLSNone && !set.AllowPlaintext && !w.s.cfg.Dialer.ExemptConn(w.conn) {
		res := fail(channel.ClassConfig, codePlaintext)
		return &res
	}
	if failed := w.hello(ctx); failed != nil {
		return failed
	}
	if set.TLS == channel.TLSStartTLS {
		if failed := w.startTLS(ctx); failed != nil {
			return failed
		}
	}
	return w.login(ctx)
}

// handshake replaces the connection by a TLS one.
func (w *wire) handshake(ctx context.Context) *channel.Result {
	err := w.within(ctx, w.s.cfg.Timeouts.Connect)
	if err == nil {
		secure := tls.Client(w.conn, w.s.tls)
		if err = secure.HandshakeContext(ctx); err == nil {
			w.conn = secure
			w.r.Reset(secure)
			return nil
		}
	}
	res := tlsFailure(ctx, err)
	return &res
}

func (w *wire) startTLS(ctx context.Context) *channel.Result {
	if !w.ext.startTLS {
		res := fail(channel.ClassConfig, codeNoStartTLS)
		return &res
	}
	if failed := w.command(ctx, stageStartTLS, 220, "STARTTLS"); failed != nil {
		return failed
	}
	if w.r.Buffered() > 0 {
		// Bytes sent before the handshake would be read as if they were protected.
		res := fail(channel.ClassTransient, codeProtocol)
		return &res
	}
	if failed := w.handshake(ctx); failed != nil {
		return failed
	}
	return w.hello(ctx)
}

// hello names us. A server that does not know EHLO, or does not take it, is greeted as older
// ones are, and offers no extensions then (RFC 5321, sections 3.2 and 4.1.1.1; 4.1.4 has the
// replies: 500, 501, 502, 550).
func (w *wire) hello(ctx context.Context) *channel.Result {
	name := w.s.set.HeloName
	if name == "" {
		name = addressLiteral(w.conn.LocalAddr())
	}
	w.ext = extensions{}
	failed := w.command(ctx, stageHello, 250, "EHLO "+name)
	if failed == nil {
		w.ext = parseExtensions(w.text)
		return nil
	}
	if !strings.HasPrefix(failed.Code, "5") || w.command(ctx, stageHello, 250, "HELO "+name) != nil {
		return failed
	}
	return nil
}

// addressLiteral returns the local address as RFC 5321 section 4.1.3 writes it.
func addressLiteral(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	switch {
	case !ok:
		return "localhost"
	case tcp.IP.To4() != nil:
		return "[" + tcp.IP.String() + "]"
	default:
		return "[IPv6:" + tcp.IP.String() + "]"
	}
}

// parseExtensions reads the text of the answer to EHLO; the first line is the
// server's greeting.
func parseExtensions(text []byte) extensions {
	var ext extensions
	for i, line := range bytes.Split(text, []byte("\n")) {
		if i == 0 {
			continue
		}
		words := bytes.Fields(bytes.ToUpper(bytes.Replace(line, []byte("AUTH="), []byte("AUTH "), 1)))
		if len(words) > 0 {
			ext.add(string(words[0]), words[1:])
		}
	}
	return ext
}

func (e *extensions) add(keyword string, args [][]byte) {
	switch keyword {
	case "PIPELINING":
		e.pipelining = true
	case "8BITMIME":
		e.eightBit = true
	case "SMTPUTF8":
		e.utf8 = true
	case "STARTTLS":
		e.startTLS = true
	case "SIZE":
		e.sizeGiven = true
		if len(args) > 0 {
			e.size, _ = strconv.ParseInt(string(args[0]), 10, 64)
		}
	case "AUTH":
		for _, arg := range args {
			e.plain = e.plain || string(arg) == "PLAIN"
			e.login = e.login || string(arg) == "LOGIN"
		}
	}
}

// command writes one line and expects the code.
func (w *wire) command(ctx context.Context, at stage, code int, line string) *channel.Result {
	err := w.within(ctx, w.s.cfg.Timeouts.Command)
	if err == nil {
		w.commands = append(append(w.commands[:0], line...), '\r', '\n')
		_, err = w.conn.Write(w.commands)
	}
	if err != nil {
		res := fail(channel.ClassTransient, ioCode(ctx, err))
		return &res
	}
	return w.expect(ctx, at, code)
}

// expect reads one reply and turns any other code into a Result.
func (w *wire) expect(ctx context.Context, at stage, code int) *channel.Result {
	err := w.within(ctx, w.s.cfg.Timeouts.Command)
	var r reply
	if err == nil {
		r, err = w.read()
	}
	var res channel.Result
	switch {
	case err != nil:
		res = fail(channel.ClassTransient, ioCode(ctx, err))
	case r.code != code:
		res = refused(w.s.redact, at, r)
		res.Outcome = channel.NotSent
	default:
		return nil
	}
	return &res
}

// read reads one reply into the connection's text buffer.
func (w *wire) read() (reply, error) {
	r, err := readReply(w.r, w.text[:0])
	if err == nil {
		w.text = r.text
	}
	return r, err
}

// quit says goodbye without waiting for the answer.
func (w *wire) quit() {
	if w.conn.SetDeadline(w.s.cfg.Clock.Now().Add(time.Second)) == nil {
		_, _ = w.conn.Write([]byte("QUIT\r\n"))
	}
	_ = w.conn.Close()
}
