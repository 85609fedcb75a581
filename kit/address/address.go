// Package address has the one form of each kind of address by which people are reached:
// telephone numbers (ITU-T E.164), mailboxes (RFC 5321, with the internationalised ones of
// RFC 6531) and the ids of platforms. What two people write for one address becomes one
// text, so that a contact, a message, an opt-out and an erasure mean the same person.
//
// Reading is strict about what cannot be reached and lenient about how it was written:
// marks of direction and blanks that came with a copy from a phone or a web page are left
// out.
package address

import (
	"errors"
	"strings"
	"unicode"
)

// Errors say what an address is not, to be read after the name of its field.
var (
	// ErrPhone is no number that a network could have.
	ErrPhone = errors.New("is not a phone number")
	// ErrCountry is a number whose country is not known.
	ErrCountry = errors.New("needs a leading + and the country, or a default country")
	// ErrExtension is a number of a switchboard: a message reaches nobody behind it.
	ErrExtension = errors.New("has an extension, which messages do not reach")
	// ErrEmail is no mailbox.
	ErrEmail = errors.New("is not an e-mail address")
	// ErrID is no id of a platform.
	ErrID = errors.New("is not an id of the platform")
)

// Trim leaves out what surrounds an address without being part of it: blanks of any script,
// and the marks that phones and editors put around what is written from left to right within
// other scripts (Unicode UAX #9; zero-width characters).
func Trim(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return unicode.IsSpace(r) || invisible(r) })
}

// invisible are characters that nobody sees: of direction, of width zero, and of a byte
// order.
func invisible(r rune) bool {
	switch {
	case r >= 0x200B && r <= 0x200F, // zero-width, LRM, RLM
		r >= 0x202A && r <= 0x202E, // embeddings, overrides
		r >= 0x2060 && r <= 0x2069, // word joiner, isolates
		r == 0x061C, r == 0xFEFF, r == 0x00AD, r == 0x180E:
		return true
	}
	return false
}
