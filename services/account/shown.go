package account

import (
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// What of a name is shown in a mail of ours.
const (
	shownName   = 60 // characters
	shownWords  = 8
	shownDigits = 5 // more are a code, a phone number, or an address of a network
	shownMarks  = 2 // on one letter
)

// linkish is what mail programs, and people, take for a link or an address.
var linkish = regexp.MustCompile(`(?i)://|www\.|@|[.。][\pL\pN]{2,}|[\pL\pN]/|\bh(tt|xx)ps?\b|\bdot\s+(com|net|org|info|biz|io|me|co|ru|xyz)\b`)

// ShownName is a name that a stranger chose, as our mails show it: letters, digits and what
// joins them, on one line, so that there is neither a link nor a sentence; at most 60
// characters and 8 words; and not at all if it looks like a link, a code or a phone number.
func ShownName(name string) string {
	name = strings.Map(visible, norm.NFKC.String(name))
	if linkish.MatchString(name) || strings.IndexFunc(name, unicode.IsLetter) < 0 || digitsOf(name) > shownDigits {
		return ""
	}
	words := strings.Fields(strings.Map(ofName, fewMarks(name)))
	short := words[:min(len(words), shownWords)]
	runes := []rune(strings.Join(short, " "))
	if len(runes) > shownName || len(short) < len(words) {
		return strings.TrimSpace(string(runes[:min(len(runes), shownName)])) + "…"
	}
	return string(runes)
}

// visible drops what is not seen, and makes every space one.
func visible(c rune) rune {
	switch {
	case unicode.IsSpace(c):
		return ' '
	case !unicode.IsGraphic(c), unicode.Is(unicode.Cf, c):
		return -1
	}
	return c
}

// ofName makes a space of what no name needs, such as the end of a sentence.
func ofName(c rune) rune {
	if unicode.IsLetter(c) || unicode.IsMark(c) || unicode.IsDigit(c) || strings.ContainsRune("-'’&", c) {
		return c
	}
	return ' '
}

func digitsOf(name string) (n int) {
	for _, c := range name {
		if unicode.IsNumber(c) {
			n++
		}
	}
	return n
}

// fewMarks drops marks that pile up over other lines.
func fewMarks(name string) string {
	marks := 0
	return strings.Map(func(c rune) rune {
		if !unicode.IsMark(c) {
			marks = 0
			return c
		}
		if marks++; marks > shownMarks {
			return -1
		}
		return c
	}, name)
}
