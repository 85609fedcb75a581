package channel_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging/channel"
)

func TestWords(t *testing.T) {
	t.Parallel()
	var outcomes, classes []string
	for o := channel.Outcome(0); o <= channel.Unknown+1; o++ {
		outcomes = append(outcomes, o.String())
	}
	for c := channel.Class(0); c <= channel.ClassRefused+1; c++ {
		classes = append(classes, c.String())
	}
	require.Equal(t, []string{"invalid", "accepted", "rejected", "not_sent", "unknown", "invalid"}, outcomes)
	require.Equal(t, []string{
		"invalid", "ok", "rate_limited", "transient", "permanent_recipient", "permanent_content", "opted_out",
		"window_closed", "config", "billing", "unknown", "deferred", "refused", "invalid",
	}, classes)
}

func TestClampRetryAfter(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]time.Duration{
		-time.Second: 0, 0: 0, time.Millisecond: time.Second, time.Minute: time.Minute, time.Hour: 15 * time.Minute,
	} {
		require.Equal(t, want, channel.ClampRetryAfter(in))
	}
}

// TestShortSecrets: what has few characters is hidden as a whole word, and leaves the words
// alone that it is a part of.
func TestShortSecrets(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ secret, in, want string }{
		"one letter":               {"e", "554 refused, e is wrong: e", "554 refused, *** is wrong: ***"},
		"a word of every sentence": {"user", "user bob: no such username, USER.", "*** bob: no such username, ***."},
		"digits":                   {"550", "550 5.5.0 at 15500", "*** 5.5.0 at 15500"},
		"of signs":                 {"-x-", "a-x-b", "a***b"},
		"in base64":                {"user", "AUTH dXNlcg== and dXNlcg==x", "AUTH *** and ***x"},
		"in hex":                   {"abc", "616263 and 0616263", "*** and 0616263"},
		"another alphabet":         {"ከተማ", "ከተማ ከተማዎች (ከተማ)", "*** ከተማዎች (***)"},
		"an accent after it":       {"caf", "cafe\u0301 caf\u0301", "cafe\u0301 caf\u0301"},
		"seven":                    {"hunter2", "hunter2, hunter22, xhunter2", "***, hunter22, xhunter2"},
		"eight":                    {"hunter22", "hunter22, hunter222, xhunter22", "***, ***2, x***"},
		"a percent-encoded one":    {"a b", "a+b a b", "*** ***"},
	} {
		require.Equal(t, c.want, channel.NewRedactor(c.secret).Clean(c.in, 256), name)
	}
	none := channel.NewRedactor()
	require.Equal(t, "number *** of 123456 refused", none.Clean("number 12345 of 123456 refused", 256, "12345"), "recipients likewise")
}

func TestRedactor(t *testing.T) {
	t.Parallel()
	r := channel.NewRedactor("", "hunter22")
	for in, want := range map[string]string{
		"password hunter22 refused":                 "password *** refused",
		"AUTH aHVudGVyMjI=":                         "AUTH ***",
		"68756e7465723232, HUNTER 68756E7465723232": "***, HUNTER ***",
		"Basic QUMxOmh1bnRlcjIy":                    "Basic QUMxOm***y",    // AC1:hunter22
		"PLAIN AGJvYgBodW50ZXIyMg==":                "PLAIN AGJvYgB***g==", // \x00bob\x00hunter22
		"<bob@example.test>: no such user":          "<***>: no such user",
		"user bob@example.test, or eve@x.y unknown": "user ***, or *** unknown",
		"number +251900000001 unknown":              "number *** unknown",
		"two\r\nlines\x00 ":                         "two  lines",
		"HUNTER22, Hunter22":                        "***, ***",
		"hunt\r\n er22 and hu nter 22":              "*** and ***",
		"AUTH aHVudG\r\n\tVyMjI=":                   "AUTH ***",
		"number +251 900 000 001 unknown":           "number *** unknown",
		"bad \xff byte":                             "bad ? byte",
	} {
		require.Equal(t, want, r.Clean(in, 256, "+251900000001"))
	}
	short := r.Clean(strings.Repeat("ü", 200), 255)
	require.Len(t, short, 254)
	require.True(t, utf8.ValidString(short))
}

func FuzzRedactor(f *testing.F) {
	f.Add("password hunter22", 10)
	f.Add("a@b.c \xff\r\n", 3)
	r := channel.NewRedactor("hunter22")
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = min(max(limit, 0), channel.MaxExcerpt)
		clean := r.Clean(text, limit)
		require.LessOrEqual(t, len(clean), limit)
		require.True(t, utf8.ValidString(clean))
		require.NotContains(t, strings.ToLower(strings.Join(strings.Fields(clean), "")), "hunter22")
		require.False(t, strings.ContainsAny(clean, "\r\n\x00"))
	})
}
