package email

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/turumba/turumba/services/messaging/channel"
)

const (
	// readBuffer bounds one line of a reply; RFC 5321 asks for 512 octets.
	readBuffer = 4096
	// maxReplyLines and maxReplyBytes bound a multi-line reply.
	maxReplyLines = 128
	maxReplyBytes = 16 << 10
)

var errProtocol = errors.New("malformed SMTP reply")

// reply is one SMTP reply. Its text is valid until the next one is read.
type reply struct {
	code int
	// text holds the lines without their code, each ended by LF but the last.
	text []byte
}

// readReply reads one reply, whose text it appends to buf. Errors of the
// connection are returned as they are, everything malformed is errProtocol.
func readReply(r *bufio.Reader, buf []byte) (reply, error) {
	var rep reply
	for n := 0; n < maxReplyLines && len(buf) < maxReplyBytes; n++ {
		line, err := readLine(r)
		if err != nil {
			return rep, err
		}
		code, more, text, ok := splitReply(line)
		if !ok || n > 0 && code != rep.code {
			return rep, errProtocol
		}
		rep.code = code
		buf = append(buf, text...)
		if !more {
			rep.text = buf
			return rep, nil
		}
		buf = append(buf, '\n')
	}
	return rep, errProtocol
}

// readLine returns a line without its line break, valid until the next read. A
// connection that ends within a line is an unexpected EOF.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, errProtocol
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// splitReply takes "250-text" or "250 text" apart.
func splitReply(line []byte) (code int, more bool, text []byte, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !digit(line[1]) || !digit(line[2]) {
		return 0, false, nil, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, false, nil, true
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, false, nil, false
	}
	return code, line[3] == '-', line[4:], true
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// status is an enhanced status code (RFC 3463); zero when there is none.
type status struct {
	class, subject, detail int
}

// String returns "5.1.1", or "" for none.
func (s status) String() string {
	if s == (status{}) {
		return ""
	}
	return strconv.Itoa(s.class) + "." + strconv.Itoa(s.subject) + "." + strconv.Itoa(s.detail)
}

// cutStatus takes the enhanced status off the front of a reply's text.
func cutStatus(text []byte) (status, []byte) {
	word, rest, _ := bytes.Cut(text, []byte(" "))
	parts := bytes.Split(word, []byte("."))
	if len(parts) != 3 {
		return status{}, text
	}
	var n [3]int
	for i, part := range parts {
		if len(part) == 0 || len(part) > 3 {
			return status{}, text
		}
		for _, c := range part {
			if !digit(c) {
				return status{}, text
			}
			n[i] = n[i]*10 + int(c-'0')
		}
	}
	if n[0] != 2 && n[0] != 4 && n[0] != 5 {
		return status{}, text
	}
	return status{n[0], n[1], n[2]}, rest
}

// retryHint finds "in 300 seconds" or "5 minutes" in the text of a 4xx reply.
func retryHint(text []byte) time.Duration {
	for i := 0; i < len(text); i++ {
		if !digit(text[i]) {
			continue
		}
		start := i
		for i < len(text) && digit(text[i]) {
			i++
		}
		unit := unitOf(bytes.TrimLeft(text[i:], " "))
		if n, err := strconv.Atoi(string(text[start:i])); err == nil && unit > 0 {
			return channel.ClampRetryAfter(time.Duration(min(n, 24*3600)) * unit)
		}
	}
	return 0
}

func unitOf(text []byte) time.Duration {
	for _, unit := range []struct {
		word string
		d    time.Duration
	}{{"sec", time.Second}, {"min", time.Minute}, {"hour", time.Hour}} {
		if len(text) >= len(unit.word) && bytes.EqualFold(text[:len(unit.word)], []byte(unit.word)) {
			return unit.d
		}
	}
	return 0
}
