package contactcsv

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/transform"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	account "github.com/turumba/turumba/services/account"
)

// maxRecord is the most bytes of one row.
const maxRecord = 1 << 20

// errRecordSize ends a file: a quote that nobody closes would take the rest of it
// for one cell.
var errRecordSize = apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "a row is larger than 1 MiB; is a quote open?")

// Reader reads the rows of a file, without its header.
type Reader struct {
	csv   *csv.Reader
	limit *limitReader
	width int
}

// NewReader begins to read a file whose format Detect found. The first row is read
// and dropped.
func NewReader(r io.Reader, f Format) (*Reader, error) {
	d, err := decoder(f.Encoding)
	if err != nil {
		return nil, err
	}
	limit := &limitReader{r: transform.NewReader(r, d)}
	text := bufio.NewReader(limit)
	if err := skipPreamble(text); err != nil {
		return nil, err
	}
	c := newCSV(text, f.Delimiter)
	if _, err := c.Read(); err != nil {
		return nil, fmt.Errorf("read the first row: %w", err)
	}
	return &Reader{csv: c, limit: limit, width: len(f.Header)}, nil
}

// skipPreamble skips what stands before the header: a byte order mark, "sep=".
func skipPreamble(r *bufio.Reader) error {
	if start, _ := r.Peek(len(byteOrderMark)); string(start) == byteOrderMark {
		if _, err := r.Discard(len(byteOrderMark)); err != nil {
			return fmt.Errorf("skip the byte order mark: %w", err)
		}
	}
	start, _ := r.Peek(16)
	if _, d := cutSeparator(string(start)); d != 0 {
		if _, err := r.ReadString('\n'); err != nil {
			return fmt.Errorf("skip the separator: %w", err)
		}
	}
	return nil
}

// Next is the next row: its cells, or the error of that row alone in Err. A row
// without any text has no cells. The error is io.EOF after the last one, and
// VALIDATION_FAILED where the file cannot be read further.
func (r *Reader) Next() (account.ImportRow, error) {
	r.limit.read = 0
	cells, err := r.csv.Read()
	var syntax *csv.ParseError
	switch {
	case errors.As(err, &syntax) && errors.Is(err, errRecordSize), errors.Is(err, errRecordSize):
		return account.ImportRow{}, errRecordSize
	case errors.As(err, &syntax):
		return account.ImportRow{Line: syntax.StartLine, Err: account.InvalidField("", "is not CSV: "+syntax.Err.Error())}, nil
	case err != nil:
		return account.ImportRow{}, err
	}
	line, _ := r.csv.FieldPos(0)
	row := account.ImportRow{Line: line, Cells: cells}
	blank := true
	for i, cell := range cells {
		cells[i] = clean(cell)
		blank = blank && cells[i] == ""
	}
	switch {
	case blank:
		row.Cells = nil
	case len(cells) != r.width:
		row.Err = account.InvalidField("", fmt.Sprintf("has %d cells, the first row has %d", len(cells), r.width))
	}
	return row, nil
}

// clean is a cell without the space around it, in UTF-8 that PostgreSQL can store.
// What is no UTF-8 in a file of UTF-8 is taken for Windows-1252, in which every
// byte means something.
func clean(cell string) string {
	if !utf8.ValidString(cell) {
		if mended, err := charmap.Windows1252.NewDecoder().String(cell); err == nil {
			cell = mended
		}
	}
	if strings.IndexByte(cell, 0) >= 0 {
		cell = strings.ReplaceAll(cell, "\x00", "")
	}
	return strings.TrimFunc(cell, func(c rune) bool { return unicode.IsSpace(c) || c == '\ufeff' || c == '\u200b' })
}

// limitReader fails when one row takes more than maxRecord.
type limitReader struct {
	r    io.Reader
	read int
}

// Read implements io.Reader.
func (l *limitReader) Read(p []byte) (int, error) {
	if l.read > maxRecord {
		return 0, errRecordSize
	}
	n, err := l.r.Read(p)
	l.read += n
	return n, err
}
