package messaging

import "unicode/utf16"

// Encoding is how a text travels in an SMS.
type Encoding string

// The encodings of an SMS (3GPP TS 23.038).
const (
	// EncodingGSM7 is the default alphabet with its extension table.
	EncodingGSM7 Encoding = "gsm7"
	// EncodingUCS2 is UTF-16.
	EncodingUCS2 Encoding = "ucs2"
)

// How much fits into an SMS alone, and into each of several, whose header takes the
// rest: septets of GSM-7, 16-bit units of UCS-2.
const (
	gsmSingle, gsmPart = 160, 153
	ucsSingle, ucsPart = 70, 67
)

// IsSMS says whether a type of channel carries SMS.
func IsSMS(channelType string) bool { return channelType == "sms" || channelType == "smpp" }

// Segments is what a text needs as SMS.
type Segments struct {
	Encoding Encoding
	// Units are septets or 16-bit units, by the encoding.
	Units int
	// Count is how many SMS there are; 0 for no text at all.
	Count int
}

// CountSegments counts what a text needs as SMS. A character of two units, an
// extended one of GSM-7 or one beyond the basic plane of UCS-2, is never cut in two.
func CountSegments(text string) Segments {
	s := Segments{Encoding: EncodingGSM7}
	units, single, part := gsmUnits, gsmSingle, gsmPart
	for _, r := range text {
		if gsmUnits(r) == 0 {
			s.Encoding, units, single, part = EncodingUCS2, utf16.RuneLen, ucsSingle, ucsPart
			break
		}
	}
	last := part // what the last part holds; it starts full, so the first character opens one
	for _, r := range text {
		n := units(r)
		if last+n > part {
			s.Count, last = s.Count+1, 0
		}
		last, s.Units = last+n, s.Units+n
	}
	if s.Count > 1 && s.Units <= single {
		s.Count = 1
	}
	return s
}

// gsmUnits is how many septets a character takes in GSM-7; 0 if it has none.
func gsmUnits(r rune) int {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= ' ' && r <= '?':
		return 1
	}
	switch r {
	case '@', '£', '¥', 'è', 'é', 'ù', 'ì', 'ò', 'Ç', '\n', 'Ø', 'ø', '\r', 'Å', 'å',
		'Δ', '_', 'Φ', 'Γ', 'Λ', 'Ω', 'Π', 'Ψ', 'Σ', 'Θ', 'Ξ', 'Æ', 'æ', 'ß', 'É',
		'¤', '¡', 'Ä', 'Ö', 'Ñ', 'Ü', '§', '¿', 'ä', 'ö', 'ñ', 'ü', 'à':
		return 1
	case '\f', '^', '{', '}', '\\', '[', '~', ']', '|', '€':
		return 2
	}
	return 0
}
