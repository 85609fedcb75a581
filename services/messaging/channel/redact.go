package channel

import (
	"encoding/base64"
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

// NewRedactor returns a Redactor that hides the secrets, also in base64, and
// everything that looks like an e-mail address.
func NewRedactor(secrets ...string) *Redactor {
	var pairs []string
	for _, s := range secrets {
		if s == "" {
			continue
		}
		pairs = append(pairs, s, mask, base64.StdEncoding.EncodeToString([]byte(s)), mask)
	}
	return &Redactor{secrets: strings.NewReplacer(pairs...)}
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
