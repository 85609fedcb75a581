package email

import (
	"errors"
	"mime"
	"strings"
	"time"

	"github.com/turumba/turumba/services/messaging/channel"
)

const (
	mixedPrefix   = boundaryPrefix + "m_"
	relatedPrefix = boundaryPrefix + "r_"
	// maxName is the longest file name in bytes, so that its field stays one line.
	maxName = 255
)

var errAttachment = errors.New("attachment has no valid name, type or content id")

// insert is a file that stands in the content before the byte at; the content itself
// stays small however long the files are.
type insert struct {
	at   int
	file []byte
}

// content is a message on its way into a buffer, with the files beside it.
type content struct {
	buffer  []byte
	inserts []insert
	// date is the Date field of dateOf: all messages of a send have the same.
	date   []byte
	dateOf time.Time
}

// size is how long the whole message is.
func (m *content) size() int {
	n := len(m.buffer)
	for _, in := range m.inserts {
		n += len(in.file)
	}
	return n
}

// pieces are the parts of the message in their order.
func (m *content) pieces(to [][]byte) [][]byte {
	from := 0
	for _, in := range m.inserts {
		to = append(to, m.buffer[from:in.at], in.file)
		from = in.at
	}
	return append(to, m.buffer[from:])
}

// body appends the texts and the files: mixed { related { texts, inline images }, files }.
// Images that no HTML can refer to are files like others.
func (m *content) body(msg *channel.Message, eightBit bool) error {
	var inline, files []*channel.Attachment
	for _, a := range msg.Attachments {
		if !validAttachment(a) {
			return errAttachment
		}
		if a.ContentID != "" && msg.HTML != "" {
			inline = append(inline, a)
		} else {
			files = append(files, a)
		}
	}
	eight := eightBit && (!ascii(msg.Text) || !ascii(msg.HTML))
	if len(files) == 0 {
		return m.related(msg, inline, eightBit, eight)
	}
	boundary := mixedPrefix + msg.ID
	m.multipart("multipart/mixed", boundary, eight)
	m.buffer = appendDelimiter(m.buffer, boundary)
	if err := m.related(msg, inline, eightBit, eight); err != nil {
		return err
	}
	m.files(boundary, files)
	return nil
}

func (m *content) related(msg *channel.Message, inline []*channel.Attachment, eightBit, eight bool) (err error) {
	if len(inline) == 0 {
		m.buffer, err = appendBody(m.buffer, msg, eightBit)
		return err
	}
	boundary := relatedPrefix + msg.ID
	m.multipart("multipart/related", boundary, eight)
	m.buffer = appendDelimiter(m.buffer, boundary)
	if m.buffer, err = appendBody(m.buffer, msg, eightBit); err != nil {
		return err
	}
	m.files(boundary, inline)
	return nil
}

func (m *content) multipart(mediaType, boundary string, eight bool) {
	m.buffer = append(m.buffer, "Content-Type: "+mediaType+";\r\n boundary=\""+boundary+"\"\r\n"...)
	if eight {
		m.buffer = append(m.buffer, "Content-Transfer-Encoding: 8bit\r\n"...)
	}
}

// files appends each file as a part, and the end of the multipart.
func (m *content) files(boundary string, list []*channel.Attachment) {
	for _, a := range list {
		m.buffer = appendDelimiter(m.buffer, boundary)
		disposition := "attachment"
		if a.ContentID != "" {
			disposition = "inline"
			m.buffer = append(m.buffer, "Content-ID: <"+a.ContentID+">\r\n"...)
		}
		m.buffer = append(m.buffer, "Content-Type: "+a.MediaType+"\r\n"...)
		m.buffer = append(m.buffer, "Content-Disposition: "+mime.FormatMediaType(disposition, map[string]string{"filename": a.Filename})+"\r\n"...)
		m.buffer = append(m.buffer, "Content-Transfer-Encoding: base64\r\n\r\n"...)
		m.inserts = append(m.inserts, insert{at: len(m.buffer), file: a.Base64()})
	}
	m.buffer = append(m.buffer, "\r\n--"+boundary+"--\r\n"...)
}

func validAttachment(a *channel.Attachment) bool {
	mt, params, err := mime.ParseMediaType(a.MediaType)
	return err == nil && len(params) == 0 && mt == a.MediaType && strings.Contains(mt, "/") && !strings.HasPrefix(mt, "multipart/") &&
		a.Filename != "" && len(a.Filename) <= maxName && headerSafe(a.Filename) &&
		(a.ContentID == "" || plainToken(a.ContentID, 100) && !strings.ContainsAny(a.ContentID, "<>"))
}
