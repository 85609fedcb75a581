package sim

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"time"
)

const (
	readBuffer    = 32 << 10
	maxCommand    = 12 << 10
	maxRecipients = 100
	idleTimeout   = 5 * time.Minute
	// keepBuffer is the largest content buffer kept between messages.
	keepBuffer = 1 << 20
)

var (
	// errHangUp ends a session quietly, errReset with a TCP reset.
	errHangUp = errors.New("hang up")
	errReset  = errors.New("reset")
)

// session is one SMTP connection. Replies are gathered and written when the
// server would wait for more input, so pipelined commands cost one write.
type session struct {
	ctx    context.Context
	server *Server
	raw    net.Conn // the TCP connection below any TLS
	conn   net.Conn
	r      *bufio.Reader
	out    []byte

	secure, greeted, loggedIn bool
	from                      string
	hasFrom                   bool
	to                        []string
	script                    Script
	content                   []byte
}

func newSession(ctx context.Context, server *Server, conn net.Conn) *session {
	return &session{ctx: ctx, server: server, raw: conn, conn: conn, r: bufio.NewReaderSize(conn, readBuffer)}
}

// upgrade puts TLS on the connection. The handshake runs with the first read.
func (c *session) upgrade(conn *tls.Conn) {
	c.conn = conn
	c.secure = true
	c.r.Reset(conn)
}

func (c *session) serve() {
	c.reply("220 ", c.server.cfg.Hostname, " ESMTP simulator")
	for {
		line, err := c.readCommand()
		if err == nil {
			err = c.handle(line)
		}
		if err == nil {
			continue
		}
		if errors.Is(err, errReset) {
			c.reset()
		} else {
			_ = c.flush()
		}
		return
	}
}

// reset makes the kernel send RST instead of FIN.
func (c *session) reset() {
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.raw.Close()
}

// reply queues one reply.
func (c *session) reply(parts ...string) {
	for _, part := range parts {
		c.out = append(c.out, part...)
	}
	c.out = append(c.out, '\r', '\n')
}

func (c *session) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// readCommand returns one line without its line break, valid until the next read.
func (c *session) readCommand() ([]byte, error) {
	line, err := c.readLine()
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > maxCommand {
		c.reply("500 5.5.2 line too long")
		return nil, errHangUp
	}
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// readLine reads up to LF. Replies go out before the session waits.
func (c *session) readLine() ([]byte, error) {
	if c.r.Buffered() == 0 {
		if err := c.flush(); err != nil {
			return nil, err
		}
		if err := c.conn.SetDeadline(c.server.cfg.Clock.Now().Add(idleTimeout)); err != nil {
			return nil, err
		}
	}
	line, err := c.r.ReadSlice('\n')
	if errors.Is(err, io.EOF) {
		return nil, errHangUp
	}
	return line, err
}

// handle runs one command. An error ends the session.
func (c *session) handle(line []byte) error {
	verb, arg, _ := bytes.Cut(line, []byte(" "))
	switch string(bytes.ToUpper(verb)) {
	case "EHLO":
		c.hello()
	case "HELO":
		c.greeted = true
		c.reply("250 ", c.server.cfg.Hostname)
	case "STARTTLS":
		return c.startTLS()
	case "AUTH":
		return c.auth(string(arg))
	case "MAIL":
		return c.mail(arg)
	case "RCPT":
		return c.rcpt(arg)
	case "DATA":
		return c.data()
	case "RSET":
		c.forget()
		c.reply("250 2.0.0 flushed")
	case "NOOP":
		c.reply("250 2.0.0 OK")
	case "QUIT":
		c.reply("221 2.0.0 bye")
		return errHangUp
	default:
		c.reply("500 5.5.1 unknown command")
	}
	return nil
}

func (c *session) hello() {
	c.greeted = true
	c.forget()
	c.reply("250-", c.server.cfg.Hostname)
	c.reply("250-PIPELINING")
	c.reply("250-8BITMIME")
	c.reply("250-SMTPUTF8")
	if c.server.cfg.TLS == TLSStartTLS && !c.secure {
		c.reply("250-STARTTLS")
	}
	if c.server.cfg.Username != "" {
		c.reply("250-AUTH PLAIN LOGIN")
	}
	c.reply("250-SIZE ", strconv.Itoa(c.server.cfg.MaxMessageBytes))
	c.reply("250 ENHANCEDSTATUSCODES")
}

func (c *session) startTLS() error {
	if c.server.cfg.TLS != TLSStartTLS || c.secure {
		c.reply("502 5.5.1 not offered")
		return nil
	}
	if c.r.Buffered() > 0 {
		c.reply("501 5.5.4 commands after STARTTLS")
		return errHangUp
	}
	c.reply("220 2.0.0 go ahead")
	if err := c.flush(); err != nil {
		return err
	}
	c.upgrade(tls.Server(c.conn, c.server.tls))
	c.greeted, c.loggedIn = false, false
	c.forget()
	return nil
}

// forget ends the transaction.
func (c *session) forget() {
	c.from, c.hasFrom, c.script = "", false, Script{}
	c.to = c.to[:0]
}

func (c *session) mail(arg []byte) error {
	from, ok := path(arg, "FROM:")
	switch {
	case !c.greeted:
		c.reply("503 5.5.1 say EHLO first")
	case c.server.cfg.Username != "" && !c.loggedIn:
		c.reply("530 5.7.0 login required")
	case !ok:
		c.reply("501 5.1.7 bad sender")
	case c.hasFrom:
		c.reply("503 5.5.1 sender already given")
	default:
		c.from, c.hasFrom = from, true
		if s := scriptOf(from); s.Stage == StageMail {
			return c.act(s)
		}
		c.reply("250 2.1.0 OK")
	}
	return nil
}

func (c *session) rcpt(arg []byte) error {
	to, ok := path(arg, "TO:")
	switch {
	case !c.hasFrom:
		c.reply("503 5.5.1 MAIL first")
	case !ok || to == "":
		c.reply("501 5.1.3 bad recipient")
	case len(c.to) >= maxRecipients:
		c.reply("452 4.5.3 too many recipients")
	default:
		s := scriptOf(to)
		if s.Stage == StageRcpt {
			return c.act(s)
		}
		if s.Stage != StageNone {
			c.script = s
		}
		c.to = append(c.to, to)
		c.reply("250 2.1.5 OK")
	}
	return nil
}

// act performs a script that answers a command.
func (c *session) act(s Script) error {
	switch {
	case s.Reset:
		return errReset
	case s.HangUp:
		c.reply(s.Reply)
		return errHangUp
	}
	if s.Stage == StageMail {
		c.forget()
	}
	c.reply(s.Reply)
	return nil
}

// path takes the address out of "FROM:<a@b> SIZE=1".
func path(arg []byte, keyword string) (string, bool) {
	arg = bytes.TrimLeft(arg, " ")
	if len(arg) < len(keyword) || !bytes.EqualFold(arg[:len(keyword)], []byte(keyword)) {
		return "", false
	}
	arg = bytes.TrimLeft(arg[len(keyword):], " ")
	end := bytes.IndexByte(arg, '>')
	if len(arg) < 2 || arg[0] != '<' || end < 0 || end > 320 {
		return "", false
	}
	return string(arg[1:end]), true
}
