package email

import "strings"

// Content transfer encodings.
const (
	sevenBit        = "7bit"
	eightBitPlain   = "8bit"
	quotedPrintable = "quoted-printable"
)

// unixLines returns s with every line break as LF. Most bodies have no CR and
// come back as they are.
func unixLines(s string) string {
	if strings.IndexByte(s, '\r') < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// encodingOf chooses the encoding of a body with LF line breaks.
func encodingOf(s string, eightBit bool) string {
	switch {
	case longLines(s):
		return quotedPrintable
	case ascii(s):
		return sevenBit
	case eightBit:
		return eightBitPlain
	default:
		return quotedPrintable
	}
}

func longLines(s string) bool {
	for len(s) > maxLine {
		end := strings.IndexByte(s[:maxLine+1], '\n')
		if end < 0 {
			return true
		}
		s = s[end+1:]
	}
	return false
}

// ascii looks at eight bytes at a time: bodies are long and this is on the path
// of every message.
func ascii(s string) bool {
	const high = 0x8080808080808080
	for len(s) >= 8 {
		word := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		if word&high != 0 {
			return false
		}
		s = s[8:]
	}
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// appendLines appends s with CRLF line breaks, dot-stuffed, ended by a line
// break.
func appendLines(dst []byte, s string) []byte {
	for s != "" {
		line, rest, _ := strings.Cut(s, "\n")
		if line != "" && line[0] == '.' {
			dst = append(dst, '.')
		}
		dst = append(dst, line...)
		dst = append(dst, '\r', '\n')
		s = rest
	}
	return dst
}

// appendQuotedPrintable appends s in quoted-printable with CRLF line breaks,
// ended by a line break. No line begins with a dot, so no stuffing is needed.
func appendQuotedPrintable(dst []byte, s string) []byte {
	for s != "" {
		line, rest, _ := strings.Cut(s, "\n")
		dst = appendQPLine(dst, line)
		dst = append(dst, '\r', '\n')
		s = rest
	}
	return dst
}

// appendQPLine appends one line, softly broken at 76 octets.
func appendQPLine(dst []byte, line string) []byte {
	column := 0
	for i := range len(line) {
		c := line[i]
		plain := c > ' ' && c < 0x7f && c != '=' && (c != '.' || column > 0) ||
			(c == ' ' || c == '\t') && i < len(line)-1
		width := 3
		if plain {
			width = 1
		}
		if column+width > 75 {
			dst = append(dst, '=', '\r', '\n')
			column = 0
			if c == '.' {
				plain, width = false, 3
			}
		}
		if plain {
			dst = append(dst, c)
		} else {
			dst = append(dst, '=', upperHex[c>>4], upperHex[c&15])
		}
		column += width
	}
	return dst
}
