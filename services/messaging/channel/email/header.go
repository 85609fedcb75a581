package email

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf8"
)

const (
	// foldAt is the line length that folding aims at (RFC 5322 section 2.1.1).
	foldAt = 76
	// maxToken is the longest word that stays unencoded; with a long field name the
	// line still ends before 998 octets.
	maxToken = 900
	// maxField bounds one field, so that a message cannot carry a huge header.
	maxField = 64 << 10

	wordOpen  = "=?utf-8?"
	wordClose = "?="
	// wordPayload is the room for encoded text in a word of 75 octets.
	wordPayload = 75 - len(wordOpen) - len("b?") - len(wordClose)
)

var errHeader = errors.New("header field holds a line break or NUL or is too long")

// headerSafe reports whether s can be one header field.
func headerSafe(s string) bool {
	return len(s) <= maxField && strings.IndexByte(s, '\n') < 0 && strings.IndexByte(s, '\r') < 0 && strings.IndexByte(s, 0) < 0
}

// appendHeader appends "Name: value" with a line break, folded, and encoded as
// RFC 2047 where the value is not plain text.
func appendHeader(dst []byte, name, value string) ([]byte, error) {
	if !headerSafe(value) {
		return dst, errHeader
	}
	dst = append(dst, name...)
	dst = append(dst, ':', ' ')
	dst, _ = appendUnstructured(dst, value, len(name)+2)
	return append(dst, '\r', '\n'), nil
}

// appendUnstructured appends text that begins at the given column and returns
// the column after it.
func appendUnstructured(dst []byte, s string, column int) ([]byte, int) {
	if plainWords(s) {
		return appendFolded(dst, s, column)
	}
	return appendEncoded(dst, s, column)
}

// appendPhrase appends a display name: atoms as they are, other ASCII quoted,
// everything else encoded.
func appendPhrase(dst []byte, s string, column int) ([]byte, int) {
	switch {
	case !plainWords(s) || len(s) > maxToken:
		return appendEncoded(dst, s, column)
	case atomsOnly(s):
		return appendFolded(dst, s, column)
	default:
		start := len(dst)
		dst = appendQuoted(dst, s)
		return dst, column + len(dst) - start
	}
}

func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}

// plainWords reports whether s is printable ASCII words with single spaces
// between them that a reader cannot take for encoded words.
func plainWords(s string) bool {
	word := 0
	for i := range len(s) {
		c := s[i]
		switch {
		case c == ' ':
			if word == 0 {
				return false
			}
			word = 0
			continue
		case c < ' ' || c >= 0x7f:
			return false
		}
		if word++; word > maxToken {
			return false
		}
	}
	return (s == "" || word > 0) && !strings.Contains(s, "=?")
}

func atomsOnly(s string) bool {
	for i := range len(s) {
		if s[i] != ' ' && !atext(s[i]) {
			return false
		}
	}
	return s != ""
}

// appendFolded appends plain words, breaking the line before a space where the
// next word would pass foldAt.
func appendFolded(dst []byte, s string, column int) ([]byte, int) {
	if column+len(s) <= foldAt {
		return append(dst, s...), column + len(s)
	}
	for first := true; s != ""; first = false {
		word := s
		if space := strings.IndexByte(s[1:], ' '); space >= 0 {
			word = s[:space+1]
		}
		if !first && column+len(word) > foldAt {
			dst = append(dst, '\r', '\n')
			column = 0
		}
		dst = append(dst, word...)
		column += len(word)
		s = s[len(word):]
	}
	return dst, column
}

// appendEncoded appends s as RFC 2047 encoded words, each of whole characters
// and on a line of its own after the first.
func appendEncoded(dst []byte, s string, column int) ([]byte, int) {
	s = strings.ToValidUTF8(s, "\uFFFD")
	inBase64 := preferBase64(s)
	for first := true; first || s != ""; first = false {
		room := wordPayload
		if first {
			room = min(room, foldAt-column-(75-wordPayload))
		}
		if !first || room < 12 {
			dst = append(dst, '\r', '\n', ' ')
			column, room = 1, wordPayload
		}
		var n int
		start := len(dst)
		dst, n = appendWord(dst, s, room, inBase64)
		column += len(dst) - start
		s = s[n:]
	}
	return dst, column
}

// appendWord appends one encoded word whose payload has at most room octets and
// returns how much of s it holds.
func appendWord(dst []byte, s string, room int, inBase64 bool) ([]byte, int) {
	dst = append(dst, wordOpen...)
	var n int
	if inBase64 {
		n = cutRune(s, room/4*3)
		dst = append(dst, 'b', '?')
		dst = base64.StdEncoding.AppendEncode(dst, []byte(s[:n]))
	} else {
		dst = append(dst, 'q', '?')
		dst, n = appendQ(dst, s, room)
	}
	return append(dst, wordClose...), n
}

// cutRune returns the largest length of at most limit that splits no rune.
func cutRune(s string, limit int) int {
	if len(s) <= limit {
		return len(s)
	}
	for !utf8.RuneStart(s[limit]) {
		limit--
	}
	return limit
}

func appendQ(dst []byte, s string, room int) ([]byte, int) {
	n := 0
	for n < len(s) {
		_, size := utf8.DecodeRuneInString(s[n:])
		plain := size == 1 && (s[n] == ' ' || qSafe(s[n]))
		cost := 3 * size
		if plain {
			cost = 1
		}
		if room -= cost; room < 0 {
			break
		}
		for i := n; i < n+size; i++ {
			dst = appendQByte(dst, s[i])
		}
		n += size
	}
	return dst, n
}

func appendQByte(dst []byte, c byte) []byte {
	switch {
	case c == ' ':
		return append(dst, '_')
	case qSafe(c):
		return append(dst, c)
	default:
		return append(dst, '=', upperHex[c>>4], upperHex[c&15])
	}
}

// qSafe reports whether c may stand for itself in an encoded word anywhere, also
// in a display name (RFC 2047 section 5, rule 3).
func qSafe(c byte) bool {
	return alphanumeric(c) || c == '!' || c == '*' || c == '+' || c == '-' || c == '/'
}

// preferBase64 reports whether base64 is shorter than quoted-printable.
func preferBase64(s string) bool {
	escaped := 0
	for i := range len(s) {
		if s[i] != ' ' && !qSafe(s[i]) {
			escaped++
		}
	}
	return escaped*6 > len(s)
}
