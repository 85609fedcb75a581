package account

import (
	"regexp"
	"strings"
	"unicode"
)

// shownName is the most characters of a name in a mail of ours.
const shownName = 64

// linkish is what mail programs, and people, take for a link or an address.
var linkish = regexp.MustCompile(`(?i)://|www\.|@|[\pL\pN]\.[\pL]{2,}|[\pL\pN]/`)

// ShownName is a name that a stranger chose, as our mails show it: on one line, without
// control and format characters, at most 64 characters, and not at all if it looks like
// a link.
func ShownName(name string) string {
	name = strings.Map(func(c rune) rune {
		switch {
		case unicode.IsSpace(c):
			return ' '
		case !unicode.IsGraphic(c), unicode.Is(unicode.Cf, c), c == '“', c == '”':
			return -1
		}
		return c
	}, name)
	name = strings.Join(strings.Fields(name), " ")
	if linkish.MatchString(name) {
		return ""
	}
	if runes := []rune(name); len(runes) > shownName {
		name = string(runes[:shownName]) + "…"
	}
	return name
}
