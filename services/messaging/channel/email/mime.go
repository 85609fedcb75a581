package email

import (
	"errors"
	"strings"
	"time"

	"github.com/turumba/turumba/services/messaging/channel"
)

const (
	// maxLine is the longest line without its line break (RFC 5322).
	maxLine = 998
	// dateLayout is the RFC 5322 date.
	dateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"
	// boundaryPrefix cannot occur in quoted-printable text.
	boundaryPrefix = "=_turumba_"

	upperHex = "0123456789ABCDEF"
)

var (
	errBody     = errors.New("body holds NUL")
	errEmpty    = errors.New("message has no body")
	errID       = errors.New("message id is not a plain token")
	errReserved = errors.New("header field is set by the adapter or has no valid name")
)

// identity is who a message comes from, with its header fields ready.
type identity struct {
	addr    address
	headers []byte
}

// newIdentity prepares the From and Reply-To fields.
func newIdentity(from, name, replyTo string) (identity, error) {
	addr, err := parseAddress(from)
	if err != nil {
		return identity{}, err
	}
	id := identity{addr: addr}
	if id.headers, err = appendMailbox(nil, "From", name, addr.full); err != nil {
		return identity{}, err
	}
	if replyTo == "" {
		return id, nil
	}
	reply, err := parseAddress(replyTo)
	if err != nil {
		return identity{}, err
	}
	id.addr.utf8 = addr.utf8 || reply.utf8
	id.headers, err = appendMailbox(id.headers, "Reply-To", "", reply.full)
	return id, err
}

// appendMailbox appends a field holding one mailbox.
func appendMailbox(dst []byte, field, name, addr string) ([]byte, error) {
	if !headerSafe(name) {
		return dst, errHeader
	}
	dst = append(dst, field...)
	dst = append(dst, ':', ' ')
	column := len(field) + 2
	if name != "" {
		dst, column = appendPhrase(dst, name, column)
		if column+len(addr)+3 > foldAt {
			dst = append(dst, '\r', '\n')
		}
		dst = append(dst, ' ')
	}
	dst = append(dst, '<')
	dst = append(dst, addr...)
	return append(dst, '>', '\r', '\n'), nil
}

// compose writes the whole message over what was in the buffer, dot-stuffed and ended by
// a line break, without the final dot. The same message always gives the same bytes.
func (c *content) compose(m *channel.Message, from *identity, to, messageID string, eightBit bool) error {
	if !m.CreatedAt.Equal(c.dateOf) || c.date == nil {
		c.date, c.dateOf = append(m.CreatedAt.In(time.UTC).AppendFormat(append(c.date[:0], "Date: "...), dateLayout), "\r\n"...), m.CreatedAt
	}
	head, err := appendHead(append(c.buffer[:0], c.date...), m, from, to, messageID)
	c.buffer, c.inserts = head, c.inserts[:0]
	if err != nil {
		return err
	}
	return c.body(m, eightBit)
}

// appendHead appends the header fields but the date and those of the content.
func appendHead(dst []byte, m *channel.Message, from *identity, to, messageID string) ([]byte, error) {
	dst = append(dst, "Message-ID: <"...)
	dst = append(dst, messageID...)
	dst = append(dst, ">\r\n"...)
	dst = append(dst, from.headers...)
	dst, err := appendMailbox(dst, "To", m.ToName, to)
	if err != nil {
		return dst, err
	}
	if dst, err = appendHeader(dst, "Subject", m.Subject); err != nil {
		return dst, err
	}
	if dst, err = appendExtra(dst, m.Headers); err != nil {
		return dst, err
	}
	return append(dst, "MIME-Version: 1.0\r\n"...), nil
}

func appendExtra(dst []byte, headers []channel.Header) ([]byte, error) {
	var err error
	for _, h := range headers {
		if !fieldName(h.Name) || reserved(h.Name) {
			return dst, errReserved
		}
		if dst, err = appendHeader(dst, h.Name, h.Value); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// fieldName reports whether s can name a header field.
func fieldName(s string) bool {
	return plainToken(s, 60) && strings.IndexByte(s, ':') < 0
}

// reserved reports whether the adapter alone sets the field.
func reserved(name string) bool {
	switch strings.ToLower(name) {
	case "date", "message-id", "from", "to", "cc", "bcc", "reply-to", "subject", "mime-version", "sender", "return-path", "received":
		return true
	}
	return len(name) >= 8 && strings.EqualFold(name[:8], "content-")
}

func appendBody(dst []byte, m *channel.Message, eightBit bool) ([]byte, error) {
	if strings.IndexByte(m.Text, 0) >= 0 || strings.IndexByte(m.HTML, 0) >= 0 {
		return dst, errBody
	}
	switch {
	case m.Text != "" && m.HTML != "":
		return appendAlternative(dst, m, eightBit), nil
	case m.HTML != "":
		return appendPart(dst, newPart("text/html", m.HTML, eightBit)), nil
	case m.Text != "":
		return appendPart(dst, newPart("text/plain", m.Text, eightBit)), nil
	default:
		return dst, errEmpty
	}
}

// appendAlternative appends both bodies, the preferred one last.
func appendAlternative(dst []byte, m *channel.Message, eightBit bool) []byte {
	boundary := boundaryPrefix + m.ID
	text := newPart("text/plain", m.Text, eightBit)
	html := newPart("text/html", m.HTML, eightBit)
	dst = append(dst, "Content-Type: multipart/alternative;\r\n boundary=\""...)
	dst = append(dst, boundary...)
	dst = append(dst, "\"\r\n"...)
	if text.encoding == eightBitPlain || html.encoding == eightBitPlain {
		dst = append(dst, "Content-Transfer-Encoding: 8bit\r\n"...)
	}
	dst = appendPart(appendDelimiter(dst, boundary), text)
	dst = appendPart(appendDelimiter(dst, boundary), html)
	dst = append(dst, "\r\n--"...)
	dst = append(dst, boundary...)
	return append(dst, "--\r\n"...)
}

func appendDelimiter(dst []byte, boundary string) []byte {
	dst = append(dst, "\r\n--"...)
	dst = append(dst, boundary...)
	return append(dst, '\r', '\n')
}

// part is one body and how it is carried.
type part struct {
	mediaType, body, encoding string
}

// newPart chooses the plainest encoding that carries the body. A body that holds what
// boundaries begin with is encoded so that it does not.
func newPart(mediaType, body string, eightBit bool) part {
	p := part{mediaType: mediaType, body: unixLines(body)}
	p.encoding = encodingOf(p.body, eightBit)
	if strings.Contains(p.body, boundaryPrefix) {
		p.encoding = quotedPrintable
	}
	return p
}

func appendPart(dst []byte, p part) []byte {
	dst = append(dst, "Content-Type: "...)
	dst = append(dst, p.mediaType...)
	dst = append(dst, "; charset=utf-8\r\nContent-Transfer-Encoding: "...)
	dst = append(dst, p.encoding...)
	dst = append(dst, "\r\n\r\n"...)
	if p.encoding == quotedPrintable {
		return appendQuotedPrintable(dst, p.body)
	}
	return appendLines(dst, p.body)
}
