package channel

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

const mask = "***"

// addressLike matches anything that looks like an e-mail address.
var addressLike = regexp.MustCompile(`[^\s<>:;,"'()\[\]]+@[^\s<>:;,"'()\[\]]+`)

// Redactor cleans what a provider said before it is stored or shown.
type Redactor struct {
	short *strings.Replacer // secrets that are too short to be looked for in other forms
	forms []string          // of the others, squeezed
}

// NewRedactor returns a Redactor that hides the secrets, also inside base64, in hex and
// percent-encoded, in upper or lower case, and with white space between their letters, as
// servers fold long lines; and everything that looks like an e-mail address.
func NewRedactor(secrets ...string) *Redactor {
	r := &Redactor{}
	var short []string
	for _, s := range secrets {
		if s == "" {
			continue
		}
		for _, form := range forms(s) {
			if squeezed, _ := squeeze(form); len(squeezed) >= shortest {
				r.forms = append(r.forms, squeezed)
			} else {
				short = append(short, form, mask)
			}
		}
	}
	r.short = strings.NewReplacer(short...)
	return r
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
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b, at = append(b, c), append(at, i)
	}
	return string(b), at
}

// hide masks each of the squeezed forms in text, wherever it stands.
func hide(text string, forms ...string) string {
	squeezed, at := squeeze(text)
	var hidden []bool // by byte of the text; nil while nothing is found
	for _, form := range forms {
		for from := 0; ; {
			i := strings.Index(squeezed[from:], form)
			if i < 0 {
				break
			}
			if hidden == nil {
				hidden = make([]bool, len(text))
			}
			from += i + 1
			for k := at[from-1]; k <= at[from+len(form)-2]; k++ {
				hidden[k] = true
			}
		}
	}
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

// shortest is the least length of a secret that is looked for in hex and inside other
// base64: what those make of a shorter one would be found everywhere.
const shortest = 6

// forms are the ways in which a secret is written.
func forms(s string) []string {
	plain := []string{base64.StdEncoding.EncodeToString([]byte(s)), s}
	if len(s) < shortest {
		return plain
	}
	hexed := hex.EncodeToString([]byte(s))
	list := append([]string{hexed, strings.ToUpper(hexed), base64.URLEncoding.EncodeToString([]byte(s)), url.QueryEscape(s)}, plain...)
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
	text = strings.ToValidUTF8(text, "?")
	long := r.forms[:len(r.forms):len(r.forms)]
	for _, literal := range literals {
		if squeezed, _ := squeeze(literal); len(squeezed) >= shortest {
			long = append(long, squeezed)
		} else if literal != "" {
			text = strings.ReplaceAll(text, literal, mask)
		}
	}
	text = r.short.Replace(hide(text, long...))
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
