package contactcsv

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	account "github.com/turumba/turumba/services/account"
)

// Columns are those of an export that names none.
func Columns() []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

// Writer writes contacts as CSV.
type Writer struct {
	csv     *csv.Writer
	columns []string
}

// NewWriter writes the names of the columns, after a byte order mark if that is wanted. An
// unknown column is VALIDATION_FAILED.
func NewWriter(w io.Writer, columns []string, mark bool) (*Writer, error) {
	for _, c := range columns {
		if byName[c] == nil && !known(c) {
			return nil, account.InvalidField("column", fmt.Sprintf("%q is not a field of a contact", c))
		}
	}
	if mark {
		if _, err := io.WriteString(w, byteOrderMark); err != nil {
			return nil, err
		}
	}
	out := &Writer{csv: newWriter(w), columns: columns}
	return out, out.csv.Write(guarded(columns))
}

func newWriter(w io.Writer) *csv.Writer {
	c := csv.NewWriter(w)
	c.UseCRLF = true // RFC 4180, section 2
	return c
}

// Write writes a contact.
func (w *Writer) Write(c *account.Contact) error {
	var metadata map[string]json.RawMessage
	cells := make([]string, len(w.columns))
	for i, column := range w.columns {
		key, isKey := strings.CutPrefix(column, metadataPrefix)
		if !isKey {
			cells[i] = guard(byName[column].get(c))
			continue
		}
		if metadata == nil {
			metadata = map[string]json.RawMessage{}
			if len(c.Metadata) > 0 {
				if err := json.Unmarshal(c.Metadata, &metadata); err != nil {
					return fmt.Errorf("read metadata: %w", err)
				}
			}
		}
		cells[i] = guard(plainJSON(metadata[key]))
	}
	return w.csv.Write(cells)
}

// Flush hands what was written to the writer below.
func (w *Writer) Flush() error {
	w.csv.Flush()
	return w.csv.Error()
}

// plainJSON is a text as it is and every other value as JSON.
func plainJSON(raw json.RawMessage) string {
	var text string
	if len(raw) > 0 && json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// ErrorWriter writes rejected rows as CSV: what is wrong, then the row itself.
type ErrorWriter struct {
	csv   *csv.Writer
	width int
}

// NewErrorWriter writes the names of the columns.
func NewErrorWriter(w io.Writer, header []string) (*ErrorWriter, error) {
	out := &ErrorWriter{csv: newWriter(w), width: len(header)}
	return out, out.csv.Write(guarded(append([]string{"line", "code", "field", "message"}, header...)))
}

// Write writes a rejected row.
func (w *ErrorWriter) Write(r *account.RejectedRow) error {
	cells := guarded(append([]string{strconv.Itoa(r.Line), r.Code, r.Field, r.Message}, r.Cells...))
	for len(cells) < w.width+4 {
		cells = append(cells, "")
	}
	return w.csv.Write(cells)
}

// Flush hands what was written to the writer below.
func (w *ErrorWriter) Flush() error {
	w.csv.Flush()
	return w.csv.Error()
}

func guarded(cells []string) []string {
	out := make([]string, len(cells))
	for i, c := range cells {
		out[i] = guard(c)
	}
	return out
}

// guard keeps spreadsheets from taking a cell for a formula (OWASP, CSV injection):
// it gets a leading ', which they do not show. A phone number in E.164 is none.
func guard(cell string) string {
	if startsFormula(cell) {
		return "'" + cell
	}
	return cell
}

// unguard undoes guard.
func unguard(cell string) string {
	if rest, ok := strings.CutPrefix(cell, "'"); ok && startsFormula(rest) {
		return rest
	}
	return cell
}

// startsFormula reports whether the cell begins, after any ', with what a
// spreadsheet may calculate.
func startsFormula(cell string) bool {
	rest := strings.TrimLeft(cell, "'")
	if rest == "" || !strings.ContainsRune("=+-@\t\r\n＝＋－＠", []rune(rest)[0]) {
		return false
	}
	digits, isPhone := strings.CutPrefix(rest, "+")
	if isPhone && len(rest) == len(cell) && digits != "" && strings.Trim(digits, "0123456789") == "" {
		return false
	}
	return true
}
