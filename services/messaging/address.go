package messaging

import (
	"net/mail"
	"strings"
)

// maxEmail is the longest e-mail address (RFC 5321).
const maxEmail = 254

// CheckAddress returns the address as a channel of the type writes it, and whether
// it can be one. A phone number without a country takes countryCode, for example
// "+251", in the place of its leading zero.
func CheckAddress(channelType, address, countryCode string) (string, bool) {
	address = strings.TrimSpace(address)
	switch channelType {
	case TypeEmail:
		return address, isEmail(address)
	case "sms", "smpp", "whatsapp":
		return phoneNumber(address, countryCode)
	}
	return address, address != "" && !strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' })
}

// isEmail accepts a bare mailbox; the adapter has the last word on what can travel.
func isEmail(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s && a.Name == "" && len(s) <= maxEmail
}

// phoneNumber brings a number into the form of E.164: + and 7 to 15 digits.
func phoneNumber(s, countryCode string) (string, bool) {
	digits := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" -.()/", r) {
			return -1
		}
		return r
	}, s)
	switch {
	case strings.HasPrefix(digits, "+"):
	case strings.HasPrefix(digits, "00"):
		digits = "+" + digits[2:]
	case countryCode != "":
		digits = countryCode + strings.TrimPrefix(digits, "0")
	}
	number, ok := strings.CutPrefix(digits, "+")
	if !ok || len(number) < 7 || len(number) > 15 || number[0] == '0' {
		return "", false
	}
	for _, c := range []byte(number) {
		if c < '0' || c > '9' {
			return "", false
		}
	}
	return digits, true
}
