package contactcsv

import (
	"errors"
	"strings"
)

// What is wrong with a record that is no CSV (RFC 4180, section 2).
var (
	errBareQuote  = errors.New(`has a quote inside a cell that does not begin with one`)
	errAfterQuote = errors.New(`has text after the quote that ends a cell; is a quote too many or not doubled?`)
	errOpenQuote  = errors.New(`has a quote that nothing closes`)
)

// record takes in the lines of one record until it is whole.
type record struct {
	delimiter string
	cells     []string
	cell      strings.Builder // of the cell in quotes that is open
	open      bool
}

// add takes in a line without its end; end is what a cell that goes on in the next line gets.
// It reports whether the record is whole; the error is why it can never be.
func (r *record) add(line, end string) (whole bool, err error) {
	for {
		if !r.open && !strings.HasPrefix(line, `"`) {
			cell, rest, more := strings.Cut(line, r.delimiter)
			if strings.Contains(cell, `"`) {
				return false, errBareQuote
			}
			r.cells = append(r.cells, cell)
			if line = rest; !more {
				return true, nil
			}
			continue
		}
		if !r.open {
			r.open, line = true, line[1:]
		}
		rest, closed := r.quoted(line)
		if !closed {
			r.cell.WriteString(end)
			return false, nil
		}
		r.cells = append(r.cells, r.cell.String())
		r.cell.Reset()
		r.open = false
		if rest == "" {
			return true, nil
		}
		var more bool
		if line, more = strings.CutPrefix(rest, r.delimiter); !more {
			return false, errAfterQuote
		}
	}
}

// quoted takes in a cell in quotes, to the quote that ends it if that is in the line.
func (r *record) quoted(line string) (rest string, closed bool) {
	for {
		text, rest, found := strings.Cut(line, `"`)
		r.cell.WriteString(text)
		if !found {
			return "", false
		}
		if line, found = strings.CutPrefix(rest, `"`); !found {
			return rest, true
		}
		r.cell.WriteByte('"')
	}
}
