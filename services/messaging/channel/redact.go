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
	secrets *strings.Replacer
}

// NewRedactor returns a Redactor that hides the secrets, also inside base64, in hex
// and percent-encoded, and everything that looks like an e-mail address. Of two
// secrets that begin at the same place the earlier one is hidden.
func NewRedactor(secrets ...string) *Redactor {
	var pairs []string
	for _, s := range secrets {
		if s == "" {
			continue
		}
		for _, form := range forms(s) {
			pairs = append(pairs, form, mask)
		}
	}
	return &Redactor{secrets: strings.NewReplacer(pairs...)}
}

// shortest is the least length of a secret that is looked for in hex and inside other
// base64: what those make of a shorter one would be found everywhere.
const shortest = 6

// forms are the ways in which a secret is written, the longest first.
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
	text = r.secrets.Replace(text)
	for _, literal := range literals {
		if literal != "" {
			text = strings.ReplaceAll(text, literal, mask)
		}
	}
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
