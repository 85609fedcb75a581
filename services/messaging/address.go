package messaging

import (
	"errors"
	"net/mail"
	"strings"

	"github.com/turumba/turumba/kit/address"
)

// maxEmail is the longest e-mail address (RFC 5321).
const maxEmail = 254

var (
	errEmail = errors.New("is not an e-mail address")
	errID    = errors.New("is not an id of the platform")
)

// CheckAddress returns the address as a channel of the type writes it. A phone number
// without a country is one of the country with the calling code, for example +251. Its
// errors are to be read after the name of the address.
func CheckAddress(channelType, to, callingCode string) (string, error) {
	to = strings.TrimSpace(to)
	switch channelType {
	case TypeEmail:
		if !isEmail(to) {
			return "", errEmail
		}
		return to, nil
	case "sms", "smpp", "whatsapp":
		region, _ := address.Region(callingCode) // none: numbers need their country
		return address.Phone(to, region)
	}
	if to == "" || strings.ContainsFunc(to, func(r rune) bool { return r <= ' ' }) {
		return "", errID
	}
	return to, nil
}

// isEmail accepts a bare mailbox; the adapter has the last word on what can travel.
func isEmail(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s && a.Name == "" && len(s) <= maxEmail
}
