package channel

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const mask = "***"

// addressLike matches anything that looks like an e-mail address.
var addressLike = regexp.MustCompile(`[^\s<>:;,"'()\[\]]+@[^\s<>:;,"'()\[\]]+`)

// Redactor cleans what a provider said before it is stored or shown.
type Redactor struct {
	forms []string // what is hidden wherever it stands, squeezed
	words []string // what is hidden as a whole word only, in lower case
}

// NewRedactor returns a Redactor that hides the secrets, also inside base64, in hex and
// percent-encoded, in upper or lower case, and with white space between their letters, as
// servers fold long lines; and everything that looks like an e-mail address. What is written
// in few characters is hidden as a whole word only: parts of other words say the same.
func NewRedactor(secrets ...string) *Redactor {
	r := &Redactor{}
	for _, s := range secrets {
		if s == "" {
			continue
		}
		r.hide(s)
		for _, form := range forms(s) {
			r.hide(form)
		}
		for _, form := range cores(s) {
			if len(form) >= shortest {
				r.hide(form)
			}
		}
	}
	return r
}

// hide adds one way in which a secret is written.
func (r *Redactor) hide(form string) {
	if squeezed, _ := squeeze(form); utf8.RuneCountInString(squeezed) >= shortest {
		r.forms = append(r.forms, squeezed)
	} else {
		r.words = append(r.words, lower(form))
	}
}

// squeeze is the text in lower case and without white space and control characters; at says
// where each of its bytes stands in the text.
func squeeze(text string) (squeezed string, at []int) {
	b := make([]byte, 0, len(text))
	at = make([]int, 0, len(text))
	for i := range len(text) {
		c := text[i]
		if c <= ' ' || c == 0x7f {
			continue
		}
		b, at = append(b, lowerByte(c)), append(at, i)
	}
	return string(b), at
}

// lower is the text with its letters A to Z small, byte by byte as long as it was.
func lower(text string) string {
	b := []byte(text)
	for i, c := range b {
		b[i] = lowerByte(c)
	}
	return string(b)
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// places calls with each place at which s stands in text.
func places(text, s string, with func(from, to int)) {
	for from := 0; ; from++ {
		i := strings.Index(text[from:], s)
		if i < 0 {
			return
		}
		from += i
		with(from, from+len(s))
	}
}

// isWord reports whether what stands in text there is not part of a longer word.
func isWord(text string, from, to int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:from])
	first, _ := utf8.DecodeRuneInString(text[from:])
	last, _ := utf8.DecodeLastRuneInString(text[:to])
	after, _ := utf8.DecodeRuneInString(text[to:])
	begins, ends := !inWord(before) || !inWord(first), !inWord(last) || !inWord(after)
	return begins && ends
}

func inWord(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r) || r == '_')
}

// cover masks the forms wherever they stand in the text, and the words as whole ones.
func cover(text string, forms, words []string) string {
	squeezed, at := squeeze(text)
	var hidden []bool // by byte of the text; nil while nothing is found
	mark := func(from, to int) {
		if hidden == nil {
			hidden = make([]bool, len(text))
		}
		for k := from; k < to; k++ {
			hidden[k] = true
		}
	}
	for _, form := range forms {
		places(squeezed, form, func(from, to int) { mark(at[from], at[to-1]+1) })
	}
	small := lower(text)
	for _, word := range words {
		places(small, word, func(from, to int) {
			if isWord(text, from, to) {
				mark(from, to)
			}
		})
	}
	return masked(text, hidden)
}

// masked is the text with one mask for each run of hidden bytes.
func masked(text string, hidden []bool) string {
	if hidden == nil {
		return text
	}
	var out strings.Builder
	for i := range len(text) {
		switch {
		case !hidden[i]:
			out.WriteByte(text[i])
		case i == 0 || !hidden[i-1]:
			out.WriteString(mask)
		}
	}
	return out.String()
}

// shortest is the least number of characters of what is looked for inside other words, and over the ends
// of lines: what is shorter would be found everywhere.
const shortest = 8

// forms are the ways in which a secret is written by itself.
func forms(s string) []string {
	return []string{hex.EncodeToString([]byte(s)), base64.StdEncoding.EncodeToString([]byte(s)), base64.URLEncoding.EncodeToString([]byte(s)), url.QueryEscape(s)}
}

// cores are what a secret looks like inside longer base64.
func cores(s string) (list []string) {
	for shift := range 3 {
		// The characters at both ends also hold bits of what stands beside it.
		whole := strings.TrimRight(base64.StdEncoding.EncodeToString([]byte("xx"[:shift]+s)), "=")
		core := whole[(8*shift+5)/6 : len(whole)-1]
		list = append(list, core, strings.NewReplacer("+", "-", "/", "_").Replace(core))
	}
	return list
}

// Clean returns text without secrets and addresses, as one line of valid UTF-8
// of at most limit bytes. Literals are further values to hide, such as the
// recipient's address.
func (r *Redactor) Clean(text string, limit int, literals ...string) string {
	all := Redactor{forms: slices.Clone(r.forms), words: slices.Clone(r.words)}
	for _, literal := range literals {
		if literal != "" {
			all.hide(literal)
		}
	}
	text = cover(strings.ToValidUTF8(text, "?"), all.forms, all.words)
	if strings.IndexByte(text, '@') >= 0 {
		text = addressLike.ReplaceAllString(text, mask)
	}
	text = strings.TrimSpace(strings.Map(printable, text))
	return truncate(text, limit)
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

// truncate shortens text to at most limit bytes without splitting a rune.
func truncate(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
