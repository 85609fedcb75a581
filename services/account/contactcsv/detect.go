// Package contactcsv reads contacts from CSV files as people have them, and writes
// them (RFC 4180): it finds out encoding and delimiter, maps columns to fields by
// their names, and keeps spreadsheets from taking cells for formulas.
package contactcsv

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/transform"

	account "github.com/turumba/turumba/services/account"
)

const (
	// SampleSize is how many bytes of a file Detect should see, or all of a smaller one.
	SampleSize = 64 << 10
	// MaxColumns is the most columns of a file.
	MaxColumns = 200
	// maxHeader is the most characters of a column's name.
	maxHeader = 255
	// sampleRows is how many rows tell the delimiter.
	sampleRows = 20
)

const (
	utf8Name    = "utf-8"
	windows1252 = "windows-1252"
)

// Format is how a file writes its rows.
type Format struct {
	// Encoding is the WHATWG name of the encoding.
	Encoding string
	// Delimiter separates cells.
	Delimiter rune
	// Header is the names of the columns.
	Header []string
}

// Detect finds out the format of a file from how it begins; encodingName and
// delimiter are what the caller says, if anything. Errors are VALIDATION_FAILED.
func Detect(sample []byte, encodingName, delimiter string) (Format, error) {
	f := Format{Encoding: utf8Name}
	var err error
	if encodingName != "" {
		if f.Encoding, err = canonical(encodingName); err != nil {
			return f, err
		}
	} else if f.Encoding, err = guessEncoding(sample); err != nil {
		return f, err
	}
	text, err := decodeSample(sample, f.Encoding)
	if err != nil {
		return f, err
	}
	body, named := cutSeparator(text)
	switch {
	case delimiter != "":
		f.Delimiter, _ = utf8.DecodeRuneInString(delimiter)
		if !fairDelimiter(f.Delimiter) {
			return f, account.InvalidField("delimiter", "cannot separate cells")
		}
	case named != 0:
		f.Delimiter = named
	default:
		f.Delimiter = guessDelimiter(body, len(sample) < SampleSize)
	}
	f.Header, err = readHeader(body, f.Delimiter)
	return f, err
}

func canonical(name string) (string, error) {
	e, err := htmlindex.Get(name)
	if err == nil {
		name, err = htmlindex.Name(e)
	}
	if err != nil {
		return "", account.InvalidField("encoding", "is not an encoding that we know, for example utf-8, utf-16le or windows-1252")
	}
	return name, nil
}

// guessEncoding goes by the byte order mark, by zero bytes, and by whether the
// bytes are UTF-8.
func guessEncoding(sample []byte) (string, error) {
	switch {
	case bytes.HasPrefix(sample, []byte("PK\x03\x04")), bytes.HasPrefix(sample, []byte("\xd0\xcf\x11\xe0")):
		return "", account.InvalidField("data", "is a workbook or an archive; save the sheet as CSV")
	case bytes.HasPrefix(sample, []byte("\x1f\x8b")):
		return "", account.InvalidField("data", "is compressed; send it unpacked")
	case bytes.HasPrefix(sample, []byte("\xef\xbb\xbf")):
		return utf8Name, nil
	case bytes.HasPrefix(sample, []byte("\xff\xfe")):
		return "utf-16le", nil
	case bytes.HasPrefix(sample, []byte("\xfe\xff")):
		return "utf-16be", nil
	}
	if zeros := bytes.Count(sample, []byte{0}); zeros > 0 {
		return guessUTF16(sample, zeros)
	}
	if whole, alone := runes(sample); whole >= alone && whole+alone > 0 || utf8.Valid(wholeRunes(sample)) {
		return utf8Name, nil
	}
	return windows1252, nil
}

// runes counts the characters beyond ASCII that are UTF-8, and the bytes that are none. Other
// encodings have hardly any of the former by chance: a file with more of them is UTF-8 with
// damage, and would be unreadable as anything else.
func runes(sample []byte) (whole, alone int) {
	for sample = wholeRunes(sample); len(sample) > 0; {
		r, size := utf8.DecodeRune(sample)
		switch {
		case r == utf8.RuneError && size == 1:
			alone++
		case size > 1:
			whole++
		}
		sample = sample[size:]
	}
	return whole, alone
}

// guessUTF16 tells by which half of the pairs is zero: that of Latin letters and
// of commas.
func guessUTF16(sample []byte, zeros int) (string, error) {
	high := 0
	for i := 0; i < len(sample); i += 2 {
		if sample[i] == 0 {
			high++
		}
	}
	switch {
	case zeros < len(sample)/8:
	case high*4 <= zeros:
		return "utf-16le", nil
	case high*4 >= zeros*3:
		return "utf-16be", nil
	}
	return "", account.InvalidField("data", "is not text")
}

// wholeRunes is the sample without the character that its end cuts.
func wholeRunes(sample []byte) []byte {
	for n := 1; n <= min(utf8.UTFMax-1, len(sample)); n++ {
		if tail := sample[len(sample)-n:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return sample[:len(sample)-n]
			}
			break
		}
	}
	return sample
}

// decoder turns bytes of the encoding into UTF-8, and drops the byte order mark.
// What is no UTF-8 in a file of UTF-8 passes; Reader mends it cell by cell.
func decoder(name string) (transform.Transformer, error) {
	if name == utf8Name {
		return encoding.Nop.NewDecoder(), nil
	}
	e, err := htmlindex.Get(name)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", name, err)
	}
	return e.NewDecoder(), nil
}

const byteOrderMark = "\ufeff"

func decodeSample(sample []byte, name string) (string, error) {
	d, err := decoder(name)
	if err != nil {
		return "", err
	}
	text, _, err := transform.Bytes(d, sample)
	if err != nil {
		return "", account.InvalidField("data", "is not "+name)
	}
	return strings.TrimPrefix(string(text), byteOrderMark), nil
}

// cutSeparator cuts a first line "sep=;", with which some spreadsheets name the
// delimiter; zero without one.
func cutSeparator(text string) (rest string, delimiter rune) {
	line, rest, found := strings.Cut(text, "\n")
	if line = strings.TrimSuffix(line, "\r"); !found {
		line, rest, _ = strings.Cut(text, "\r")
	}
	if after, ok := strings.CutPrefix(line, "sep="); ok {
		if r, size := utf8.DecodeRuneInString(after); size == len(after) && fairDelimiter(r) {
			return rest, r
		}
	}
	return text, 0
}

// fairDelimiter is what can separate cells.
func fairDelimiter(r rune) bool {
	return r != 0 && r != '"' && r != '\r' && r != '\n' && r != utf8.RuneError && utf8.ValidRune(r)
}

// guessDelimiter takes the one that gives the most rows as many cells as the first
// has, and the most cells.
func guessDelimiter(text string, whole bool) rune {
	if cut := strings.LastIndexAny(text, "\r\n"); !whole && cut > 0 {
		text = text[:cut+1] // the last line may be cut
	}
	best, bestScore := ',', 0
	for _, d := range []rune{',', ';', '\t', '|'} {
		if score := delimiterScore(text, d); score > bestScore {
			best, bestScore = d, score
		}
	}
	return best
}

func delimiterScore(text string, d rune) int {
	r := sampleReader(text, d)
	first, _, err := r.record()
	if err != nil || len(first) < 2 {
		return 0
	}
	rows, alike := 1, 1
	for ; rows < sampleRows; rows++ {
		cells, _, err := r.record()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && len(cells) == len(first) {
			alike++
		}
	}
	return alike*1000/rows*MaxColumns + min(len(first), MaxColumns)
}

// sampleReader reads the beginning of a file, its header too.
func sampleReader(text string, delimiter rune) *Reader {
	return &Reader{lines: newLines(bufio.NewReaderSize(strings.NewReader(text), SampleSize)), delimiter: string(delimiter)}
}

func readHeader(text string, delimiter rune) ([]string, error) {
	header, _, err := sampleReader(text, delimiter).record()
	switch {
	case errors.Is(err, io.EOF):
		return nil, account.InvalidField("data", "is empty; the first row must name the columns")
	case err != nil:
		return nil, account.InvalidField("data", "has a first row that is not CSV: it "+err.Error())
	case len(header) > MaxColumns:
		return nil, account.InvalidField("data", fmt.Sprintf("has %d columns, at most %d are allowed", len(header), MaxColumns))
	}
	seen := map[string]bool{}
	for i := range header {
		header[i] = clean(header[i])
		switch {
		case len(header[i]) > maxHeader:
			return nil, account.InvalidField("data", fmt.Sprintf("names column %d with more than %d bytes", i+1, maxHeader))
		case header[i] != "" && seen[header[i]]:
			return nil, account.InvalidField("data", fmt.Sprintf("has the column %q twice", header[i]))
		}
		seen[header[i]] = true
	}
	return header, nil
}
