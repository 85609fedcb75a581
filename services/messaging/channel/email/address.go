package email

import (
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	maxLocal   = 64
	maxAddress = 254
)

var errAddress = errors.New("not an e-mail address")

// address is a mailbox in the form it has on the wire.
type address struct {
	// full is local@domain with an ASCII domain.
	full string
	// domain is the ASCII domain.
	domain string
	// utf8 says that the local part is not ASCII and needs SMTPUTF8.
	utf8 bool
}

// parseAddress checks a bare mailbox (RFC 5321 Dot-string, RFC 6531); quoted
// local parts, address literals and source routes are refused.
func parseAddress(s string) (address, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > maxLocal || len(s) > maxAddress {
		return address{}, errAddress
	}
	local, domain := s[:at], s[at+1:]
	utf8Local, ok := checkLocal(local)
	if !ok {
		return address{}, errAddress
	}
	ascii, ok := checkDomain(domain)
	if !ok {
		return address{}, errAddress
	}
	if ascii != domain {
		s = local + "@" + ascii
	}
	return address{full: s, domain: ascii, utf8: utf8Local}, nil
}

func checkLocal(local string) (isUTF8, ok bool) {
	last := byte('.')
	for i := range len(local) {
		c := local[i]
		switch {
		case c >= utf8.RuneSelf:
			isUTF8 = true
		case c == '.' && last == '.', c != '.' && !atext(c):
			return false, false
		}
		last = c
	}
	return isUTF8, last != '.' && (!isUTF8 || utf8.ValidString(local))
}

func checkDomain(domain string) (ascii string, ok bool) {
	if asciiDomain(domain) {
		return domain, true
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	return ascii, err == nil && asciiDomain(ascii)
}

// asciiDomain reports whether the domain is made of letter-digit-hyphen labels.
func asciiDomain(domain string) bool {
	label := 0
	for i := range len(domain) {
		c := domain[i]
		switch {
		case c == '.':
			if label == 0 || domain[i-1] == '-' {
				return false
			}
			label = 0
			continue
		case c == '-' && label == 0, c != '-' && c != '_' && !alphanumeric(c):
			return false
		}
		label++
		if label > 63 {
			return false
		}
	}
	return label > 0 && domain[len(domain)-1] != '-'
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// atext reports whether c may stand in an RFC 5322 atom.
func atext(c byte) bool {
	return alphanumeric(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}
