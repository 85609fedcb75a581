package messaging

import "github.com/turumba/turumba/kit/address"

// CheckAddress returns the address as a channel of the type writes it. A phone number
// without a country is one of the country with the calling code, for example +251. Its
// errors are those of kit/address, to be read after the name of the address.
func CheckAddress(channelType, to, callingCode string) (string, error) {
	switch channelType {
	case TypeEmail:
		return address.Mailbox(to)
	case "sms", "smpp", "whatsapp":
		region, _ := address.Region(callingCode) // none: numbers need their country
		return address.Phone(to, region)
	}
	return address.ID(to)
}

// AddressKey is the form in which addresses of a channel type are the same person's.
func AddressKey(channelType, to string) string {
	if channelType == TypeEmail {
		return address.EmailKey(to)
	}
	return to
}
