package contactcsv

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	account "github.com/turumba/turumba/services/account"
)

// Warnings are what a file may not mean as it is read: an encoding that nothing in it says
// (D18), and columns that no field of a contact is called like (D06). said is whether the
// caller named the encoding, chosen which columns the caller placed.
func Warnings(sample []byte, f Format, said bool, columns []account.ImportColumn, chosen map[string]string) (out []account.ImportWarning) {
	if !said && f.Encoding == windows1252 {
		other := alternative(sample)
		out = append(out, account.ImportWarning{
			Code: account.WarnEncoding, Alternative: other,
			Message: fmt.Sprintf("nothing in the file says its encoding, and it is no UTF-8: it was read as %s; where letters are wrong, send it again with encoding=%s", f.Encoding, other),
		})
	}
	var rows [][]string
	for i, c := range columns {
		_, placed := chosen[c.Header]
		switch {
		case placed || strings.HasPrefix(c.Header, metadataPrefix):
			continue
		case c.Field == "" && suggest(c.Header) != "":
			out = append(out, account.ImportWarning{Code: account.WarnColumn, Column: c.Header, Message: fmt.Sprintf("the column %q is left out: another one is called alike", short(c.Header))})
			continue
		case !strings.HasPrefix(c.Field, metadataPrefix):
			continue
		}
		if rows == nil {
			rows = sampledRows(sample, f)
		}
		out = append(out, unknownColumn(c, lookOf(rows, i), columns))
	}
	return out
}

// unknownColumn is the warning of a column that became free data. like is the field that its
// cells look like, which counts where no other column went there.
func unknownColumn(c account.ImportColumn, like string, columns []account.ImportColumn) account.ImportWarning {
	w := account.ImportWarning{Code: account.WarnColumn, Column: c.Header, Message: fmt.Sprintf("no field of a contact is called like the column %q: it is kept as %s", short(c.Header), short(c.Field))}
	if like != "" && !slices.ContainsFunc(columns, func(other account.ImportColumn) bool { return other.Field == like }) {
		w.Alternative = like
		w.Message += fmt.Sprintf("; its cells look like the field %s, which a mapping can name", like)
	}
	return w
}

// short is a name that fits into a sentence.
func short(name string) string {
	const most = 60
	if r := []rune(name); len(r) > most {
		return string(r[:most]) + "…"
	}
	return name
}

// alternative is the most likely encoding of a file that was taken for Windows-1252. Letters that stand side by side with their like are another
// alphabet's, mostly Cyrillic; those below 0xA0 are signs in Windows-1252 and letters on the
// old Macintosh; else Windows-1250 has the letters of Central Europe in the same places.
func alternative(sample []byte) string {
	if whole, alone := runes(sample); whole > 0 && whole*4 >= alone {
		return utf8Name // with more damage than letters, in a file of a few rows
	}
	var alone, low, neighbours int
	for i := 0; i < len(sample); {
		if sample[i] < utf8.RuneSelf {
			i++
			continue
		}
		if r, size := utf8.DecodeRune(sample[i:]); r != utf8.RuneError {
			i += size
			continue
		}
		alone++
		if sample[i] < 0xa0 {
			low++
		}
		if i > 0 && sample[i-1] >= 0xc0 || i+1 < len(sample) && sample[i+1] >= 0xc0 {
			neighbours++
		}
		i++
	}
	switch {
	case neighbours*2 > alone:
		return "windows-1251"
	case low*2 > alone:
		return "macintosh"
	}
	return "windows-1250"
}

// sampledRows are the first rows of a file.
func sampledRows(sample []byte, f Format) (rows [][]string) {
	text, err := decodeSample(sample, f.Encoding)
	if err != nil {
		return nil
	}
	body, _ := cutSeparator(text)
	r := sampleReader(body, f.Delimiter)
	for n := 0; n <= sampleRows; n++ {
		cells, _, err := r.record()
		if err != nil {
			break
		}
		if n > 0 { // after the header
			rows = append(rows, cells)
		}
	}
	return rows
}

// lookOf is the field that most cells of a column look like; empty for none.
func lookOf(rows [][]string, column int) string {
	var filled, emails, phones int
	for _, cells := range rows {
		if column >= len(cells) || clean(cells[column]) == "" {
			continue
		}
		filled++
		switch cell := clean(cells[column]); {
		case looksLikeEmail(cell):
			emails++
		case looksLikePhone(cell):
			phones++
		}
	}
	switch {
	case emails*2 > filled:
		return "email"
	case phones*2 > filled:
		return "phone"
	}
	return ""
}

func looksLikeEmail(cell string) bool {
	local, domain, found := strings.Cut(cell, "@")
	return found && local != "" && strings.Contains(domain, ".") && !strings.ContainsAny(cell, " \t,;<>") && !strings.Contains(domain, "@")
}

// looksLikePhone takes what begins as numbers do that people write, + or 0, and has as many
// digits; dates and numbers of customers do not.
func looksLikePhone(cell string) bool {
	if !strings.HasPrefix(cell, "+") && !strings.HasPrefix(cell, "0") && !strings.HasPrefix(cell, "(0") {
		return false
	}
	digits := 0
	for _, c := range cell {
		switch {
		case '0' <= c && c <= '9':
			digits++
		case !strings.ContainsRune("+()- ", c):
			return false
		}
	}
	return digits >= 9 && digits <= 15
}
