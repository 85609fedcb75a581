package account_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	account "github.com/turumba/turumba/services/account"
)

// TestShownName: names stay names, and nothing else comes into a mail.
func TestShownName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Ada King Lovelace":     "Ada King Lovelace",
		"St. Mary's School":     "St Mary's School",
		"Müller & Söhne":        "Müller & Söhne",
		"አዲስ አበባ ዩኒቨርሲቲ":        "አዲስ አበባ ዩኒቨርሲቲ",
		"مدرسة النور":           "مدرسة النور",
		"株式会社トゥルンバ":             "株式会社トゥルンバ",
		"Jean-Luc O’Neill":      "Jean-Luc O’Neill",
		"School 2026":           "School 2026",
		" two\nlines\r\tone ":   "two lines one",
		"zero\u200bwidth\u202e": "zerowidth",
		"":                      "",
		"!!!":                   "",
		"12345":                 "",
		"Hello! Your account is locked: act now.": "Hello Your account is locked act now",
		"“quoted” <b>bold</b>":                    "quoted b bold b",
		"WIN MONEY http://evil.example":           "",
		"WIN MONEY hxxp evil":                     "",
		"evil.com":                                "",
		"evil .com":                               "",
		"evil。com":                                "",
		"evil．com":                                "",
		"evil․com":                                "",
		"ｅｖｉｌ．ｃｏｍ":                                "",
		"evil\u200b.\u200bcom":                    "",
		"evil dot com":                            "",
		"www.evil":                                "",
		"bit/ly":                                  "",
		"me@evil":                                 "",
		"me＠evil":                                 "",
		"call 0911 00 01 11 now":                  "",
		"192.168.100.200 x":                       "",
		"call +٢٥١٩١١٠٠٠":                         "",
		"one two three four five six seven eight nine": "one two three four five six seven eight…",
		strings.Repeat("a", 61):                        strings.Repeat("a", 60) + "…",
		"a" + strings.Repeat("\u0336", 40) + "b":       "a\u0336\u0336b",
	} {
		require.Equal(t, want, account.ShownName(name), "%q", name)
	}
}

// FuzzShownName: whatever the name, what is shown is short, on one line, and has nothing
// that a link, a sentence or a phone number needs.
func FuzzShownName(f *testing.F) {
	for _, seed := range []string{"Ada", "evil.com/x", "a\u2024com", "call 0911000111", "one! two? three.", "ﬃ.ﬃ", "\xff\xfe", "a\u0300\u0301\u0302\u0303", "½½½½"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := account.ShownName(name)
		require.True(t, utf8.ValidString(got))
		body := strings.TrimSuffix(got, "…")
		require.LessOrEqual(t, utf8.RuneCountInString(body), 60)
		require.LessOrEqual(t, len(strings.Fields(body)), 8)
		require.Equal(t, body, strings.Join(strings.Fields(body), " "))
		digits := 0
		for _, c := range body {
			require.True(t, c == ' ' || unicode.IsLetter(c) || unicode.IsMark(c) || unicode.IsDigit(c) || strings.ContainsRune("-'’&", c), "%q of %q", c, name)
			if unicode.IsNumber(c) {
				digits++
			}
		}
		require.LessOrEqual(t, digits, 5)
		require.Equal(t, body, strings.TrimSuffix(account.ShownName(body), "…"), "shown again")
	})
}
