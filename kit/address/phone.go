package address

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/nyaruka/phonenumbers"
)

// Phone brings a number into the form of E.164, as +251911000001. region is where numbers
// without a leading + are dialled, as ET (ISO 3166-1); empty where that is not known. A
// leading 00 is read as + where the region has no use of its own for it. Its errors are
// ErrPhone, ErrCountry and ErrExtension.
func Phone(s, region string) (string, error) {
	s = strings.Map(func(r rune) rune {
		if invisible(r) {
			return -1
		}
		return r
	}, Trim(s))
	s = strings.TrimPrefix(s, "tel:") // RFC 3966
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "", ErrPhone
	}
	if i := strings.IndexFunc(s, unicode.IsLetter); i >= 0 {
		if i > 0 && extension.MatchString(s[i:]) {
			return "", ErrExtension
		}
		return "", ErrPhone
	}
	if n, err := phone(s, region); err == nil || errors.Is(err, ErrExtension) {
		return n, err
	}
	if rest, ok := strings.CutPrefix(s, "00"); ok {
		if n, err := phone("+"+rest, ""); err == nil {
			return n, nil
		}
	}
	if region == "" && !strings.HasPrefix(s, "+") && strings.ContainsAny(s, "0123456789") {
		return "", ErrCountry
	}
	return "", ErrPhone
}

// extension is how people write the extension of a number.
var extension = regexp.MustCompile(`(?i)^(ext|extension|x|ext=)[.:=\s]*\d{1,9}$`)

func phone(s, region string) (string, error) {
	n, err := phonenumbers.Parse(s, region)
	switch {
	case err != nil || !phonenumbers.IsPossibleNumber(n):
		return "", ErrPhone
	case n.GetExtension() != "":
		return "", ErrExtension
	}
	number := phonenumbers.Format(n, phonenumbers.E164)
	if !strings.HasPrefix(phonenumbers.GetNationalSignificantNumber(n), "0") {
		return number, nil
	}
	// Zeros that are no number's lose one each time: what is not its own form is none.
	if n, err = phonenumbers.Parse(number, ""); err != nil || phonenumbers.Format(n, phonenumbers.E164) != number {
		return "", ErrPhone
	}
	return number, nil
}

// Region is the main region of a country calling code as +251 or 251: of those that share
// one, that which the plan of the code is named after (+1 is US, +7 RU, +44 GB). ok is false
// for a code that no country has.
func Region(callingCode string) (region string, ok bool) {
	code, err := strconv.Atoi(strings.TrimPrefix(Trim(callingCode), "+"))
	if err != nil {
		return "", false
	}
	switch region = phonenumbers.GetRegionCodeForCountryCode(code); region {
	case "ZZ", "001", "":
		return "", false
	}
	return region, true
}
