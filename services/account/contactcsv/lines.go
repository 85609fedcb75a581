package contactcsv

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// line is one line of a file: its text, and what ended it.
type line struct {
	number int // from 1
	text   string
	end    string // "\n", whatever the file has; empty at its end
}

// lines reads the lines of a file, and takes lines back.
type lines struct {
	r     *bufio.Reader
	end   byte // '\n', or '\r' in files that know no other
	last  int
	ahead []line // lines that were taken back, the next first
}

// newLines begins to read; old spreadsheets end lines with a carriage return alone, which
// shows in how the file begins.
func newLines(r *bufio.Reader) *lines {
	l := &lines{r: r, end: '\n'}
	if start, _ := r.Peek(r.Size()); bytes.IndexByte(start, '\n') < 0 && bytes.IndexByte(start, '\r') >= 0 {
		l.end = '\r'
	}
	return l
}

// next is the next line; io.EOF after the last, tooLong for one that is.
func (l *lines) next() (line, error) {
	if len(l.ahead) > 0 {
		first := l.ahead[0]
		l.ahead = l.ahead[1:]
		return first, nil
	}
	var text []byte
	for {
		part, err := l.r.ReadSlice(l.end)
		text = append(text, part...)
		switch {
		case len(text) > maxRecord:
			return line{}, tooLong(l.last + 1)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(text) == 0:
			return line{}, io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			return line{}, err
		}
		break
	}
	l.last++
	read := line{number: l.last, text: string(text)}
	if cut, ok := strings.CutSuffix(read.text, string(l.end)); ok {
		read.text, read.end = cut, "\n"
		if l.end == '\n' {
			read.text = strings.TrimSuffix(cut, "\r")
		}
	}
	return read, nil
}

// back takes lines back that were read.
func (l *lines) back(read []line) { l.ahead = append(read[:len(read):len(read)], l.ahead...) }
