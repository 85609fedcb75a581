package address

import (
	"strings"
	"unicode"
)

// ID is an id that a platform gave to somebody, as 123456789 of Telegram: without what
// surrounds it, its digits in ASCII. Its error is ErrID.
func ID(s string) (string, error) {
	s = strings.Map(digit, Trim(s))
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7F || unicode.IsSpace(r) || invisible(r) }) {
		return "", ErrID
	}
	return s, nil
}

// digit is a decimal digit of any script in ASCII, and every other character itself. Those of
// a script are ten in a row (Unicode, section 4.6).
func digit(r rune) rune {
	if r < 0x80 || !unicode.IsDigit(r) {
		return r
	}
	zero := r
	for unicode.IsDigit(zero-1) && r-zero < 9 {
		zero--
	}
	return '0' + (r-zero)%10
}
