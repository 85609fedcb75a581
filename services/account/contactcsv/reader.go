package contactcsv

import (
	"bufio"
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

// tooLong ends a file: a line of that length is none of a table.
func tooLong(number int) error {
	return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "line %d is larger than 1 MiB", number)
}

// Reader reads the rows of a file, without its header.
//
// What is no CSV costs no more than its own line: a quote too many would take the rows after
// it for one cell, so a record that does not come to a good end is given up at the end of its
// first line, and reading goes on with the next one. From there on until a row has all its
// cells, a line that is shorter is taken for a piece of what was broken, and rejected too.
type Reader struct {
	lines     *lines
	delimiter string
	width     int
	broken    bool // the last rows were no CSV
	damaged   bool // cells were not of the encoding
}

// NewReader begins to read a file whose format Detect found. The first row is read
// and dropped.
func NewReader(r io.Reader, f Format) (*Reader, error) {
	d, err := decoder(f.Encoding)
	if err != nil {
		return nil, err
	}
	text := bufio.NewReaderSize(transform.NewReader(r, d), SampleSize)
	if err := skipMark(text); err != nil {
		return nil, err
	}
	out := &Reader{lines: newLines(text), delimiter: string(f.Delimiter), width: len(f.Header)}
	return out, out.skipHeader()
}

// skipMark skips a byte order mark.
func skipMark(r *bufio.Reader) error {
	if start, _ := r.Peek(len(byteOrderMark)); string(start) != byteOrderMark {
		return nil
	}
	if _, err := r.Discard(len(byteOrderMark)); err != nil {
		return fmt.Errorf("skip the byte order mark: %w", err)
	}
	return nil
}

// skipHeader skips a line "sep=" and the names of the columns.
func (r *Reader) skipHeader() error {
	first, err := r.lines.next()
	if err != nil {
		return fmt.Errorf("read the first row: %w", err)
	}
	if _, d := cutSeparator(first.text + "\n"); d == 0 {
		r.lines.back([]line{first})
	}
	_, _, err = r.record()
	return err
}

// record is the next record that is CSV, with the lines that it is of; empty lines are none. An error of the record
// alone is a *recordError, and leaves all lines but the first to be read again.
func (r *Reader) record() ([]string, []line, error) {
	rec := record{delimiter: r.delimiter}
	var read []line
	for size := 0; ; {
		next, err := r.lines.next()
		switch {
		case errors.Is(err, io.EOF) && len(read) > 0:
			return nil, read[:1], r.giveUp(read, errOpenQuote)
		case err != nil:
			return nil, nil, err
		case next.text == "" && len(read) == 0:
			continue
		}
		if size += len(next.text); size > maxRecord && len(read) > 0 {
			return nil, read[:1], r.giveUp(append(read, next), errOpenQuote)
		}
		read = append(read, next)
		whole, err := rec.add(next.text, next.end)
		switch {
		case err != nil:
			return nil, read[:1], r.giveUp(read, err)
		case whole && len(read) > 1 && len(rec.cells) < r.width && r.tells(read[1:]):
			return nil, read[:1], r.giveUp(read, errOpenQuote)
		case whole:
			return rec.cells, read, nil
		}
	}
}

// recordError is why a line is no CSV.
type recordError struct{ error }

func (r *Reader) giveUp(read []line, why error) error {
	r.lines.back(read[1:])
	return recordError{why}
}

// tells reports whether one of the lines would be a row by itself: what is around it, and has
// too few cells, is no cell of several lines then but a quote that met another.
func (r *Reader) tells(read []line) bool {
	for _, one := range read {
		rec := record{delimiter: r.delimiter}
		if whole, err := rec.add(one.text, ""); err == nil && whole && len(rec.cells) == r.width {
			return true
		}
	}
	return false
}

// Next is the next row: its cells, or the error of that row alone in Err, with its text as
// the only cell where it is no CSV. A row without any text has no cells; one that lacks cells
// at its end has empty ones. The error is io.EOF after the last one, and VALIDATION_FAILED
// where the file cannot be read further.
func (r *Reader) Next() (account.ImportRow, error) {
	cells, read, err := r.record()
	var broken recordError
	switch {
	case errors.As(err, &broken):
		r.broken = true
		return account.ImportRow{Line: read[0].number, Cells: []string{clean(read[0].text)}, Err: account.InvalidField("", "is not CSV: it "+broken.Error())}, nil
	case err != nil:
		return account.ImportRow{}, err
	}
	row := account.ImportRow{Line: read[0].number, Cells: cells}
	blank := true
	for i, cell := range cells {
		r.damaged = r.damaged || !utf8.ValidString(cell)
		cells[i] = clean(cell)
		blank = blank && cells[i] == ""
	}
	for len(row.Cells) > r.width && row.Cells[len(row.Cells)-1] == "" {
		row.Cells = row.Cells[:len(row.Cells)-1]
	}
	switch {
	case blank:
		row.Cells = nil
	case len(row.Cells) > r.width:
		row.Err = account.InvalidField("", fmt.Sprintf("has %d cells, the first row has %d", len(row.Cells), r.width))
	case len(row.Cells) < r.width && r.broken:
		row.Err = account.InvalidField("", fmt.Sprintf("has %d cells, the first row has %d, and follows a line that is not CSV", len(row.Cells), r.width))
	default:
		r.broken = false
		row.Cells = append(row.Cells, make([]string, r.width-len(row.Cells))...)
	}
	return row, nil
}

// Damaged reports whether bytes so far were not of the file's encoding, and were taken for
// Windows-1252.
func (r *Reader) Damaged() bool { return r.damaged }

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
