package address

import (
	"net/mail"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// Limits of RFC 5321, section 4.5.3.1, in octets; a path of 256 has two angle brackets.
const (
	maxLocal   = 64
	maxMailbox = 254
)

// domains are those that can be looked up (RFC 5891, with the mapping of UTS #46): labels of
// letters, digits and hyphens, in any script, of at most 63 octets each.
var domains = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// Email is a mailbox as it was written, without what surrounds it: what is shown, and what
// the mail is sent to. Quoted local parts ("a b"@example.org) and domains that are an address
// are no mailboxes of people, and refused. Its error is ErrEmail.
func Email(s string) (string, error) {
	s = Trim(s)
	if isPlain(s) {
		return s, nil
	}
	if _, err := emailKey(s); err != nil {
		return "", err
	}
	return s, nil
}

// Mailbox is a mailbox as mail is sent to it, in one of the forms by which EmailForms finds it
// again: as it was written, but in NFC, and with a domain that is not ASCII in small letters
// of its own script. Its error is ErrEmail.
func Mailbox(s string) (string, error) {
	s = Trim(s)
	if isPlain(s) {
		return s, nil
	}
	key, err := emailKey(s)
	if err != nil {
		return "", err
	}
	at := strings.LastIndexByte(s, '@')
	local, domain := norm.NFC.String(s[:at]), s[at+1:]
	if !isASCII(domain) {
		if domain, err = domains.ToUnicode(key[strings.LastIndexByte(key, '@')+1:]); err != nil {
			return "", ErrEmail
		}
	}
	return local + "@" + domain, nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

// EmailForms are the texts, in small letters, under which a mailbox may have been stored: as
// it is given, as its key, and as its key with the domain in its own script.
func EmailForms(s string) []string {
	key := EmailKey(s)
	forms := []string{strings.ToLower(s), strings.ToLower(Trim(s)), key}
	if local, domain, ok := strings.Cut(key, "@"); ok {
		if shown, err := domains.ToUnicode(domain); err == nil {
			forms = append(forms, local+"@"+shown)
		}
	}
	slices.Sort(forms)
	return slices.Compact(forms)
}

// EmailKey is the form in which mailboxes are the same person's: the local part in NFC and
// small letters, the domain in ASCII (RFC 5890). Servers that tell large from small letters
// (RFC 5321, section 2.4) are not worth a complaint. What is no mailbox is in small letters.
func EmailKey(s string) string {
	if isPlain(s) {
		return strings.ToLower(s)
	}
	s = Trim(s)
	if key, err := emailKey(s); err == nil {
		return key
	}
	return strings.ToLower(s)
}

func emailKey(s string) (string, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 1 {
		return "", ErrEmail
	}
	local, domain := s[:at], s[at+1:]
	if !isDotAtom(local) || strings.ContainsFunc(s, invisible) {
		return "", ErrEmail
	}
	if a, err := mail.ParseAddress(s); err != nil || a.Address != s || a.Name != "" {
		return "", ErrEmail
	}
	ascii, err := domains.ToASCII(domain)
	if err != nil || len(local) > maxLocal || len(local)+1+len(ascii) > maxMailbox {
		return "", ErrEmail
	}
	return norm.NFC.String(strings.ToLower(norm.NFC.String(local))) + "@" + strings.ToLower(ascii), nil
}

// isPlain reports whether s is a mailbox of letters, digits and the marks that most have, which
// needs no library to be read: nearly all are.
func isPlain(s string) bool {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > maxLocal || len(s) > maxMailbox || s[0] == '.' || s[at-1] == '.' {
		return false
	}
	for i := range at {
		if single := s[i] == '.' && s[i+1] != '.'; !isWord(s[i]) && !single && s[i] != '+' && s[i] != '_' {
			return false
		}
	}
	label := 0
	for i := at + 1; i < len(s); i++ {
		switch {
		case s[i] == '.' && label > 0 && s[i-1] != '-':
			label = 0
		case s[i] == '-' && (label == 0 || label == 3): // xn-- and the like
			return false
		case isWord(s[i]) && label < 63:
			label++
		default:
			return false
		}
	}
	return label > 0 && s[len(s)-1] != '-'
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-'
}

// isDotAtom reports whether a local part is words with single dots between (RFC 5322,
// section 3.2.3; RFC 6532 for other scripts).
func isDotAtom(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == 0x7F || unicode.IsSpace(r) || strings.ContainsRune(`()<>[]:;@\,"`, r)
	})
}
