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

func TestRedactor(t *testing.T) {
	t.Parallel()
	r := channel.NewRedactor("", "hunter2")
	for in, want := range map[string]string{
		"password hunter2 refused":                  "password *** refused",
		"AUTH aHVudGVyMg==":                         "AUTH ***",
		"68756e74657232, HUNTER 68756E74657232":     "***, HUNTER ***",
		"Basic QUMxOmh1bnRlcjI=":                    "Basic QUMxOm***I=", // AC1:hunter2
		"PLAIN AGJvYgBodW50ZXIy":                    "PLAIN AGJvYgB***y", // \x00bob\x00hunter2
		"<bob@example.test>: no such user":          "<***>: no such user",
		"user bob@example.test, or eve@x.y unknown": "user ***, or *** unknown",
		"number +251900000001 unknown":              "number *** unknown",
		"two\r\nlines\x00 ":                         "two  lines",
		"HUNTER2, Hunter2":                          "***, ***",
		"hunt\r\n er2 and hu nter 2":                "*** and ***",
		"AUTH aHVudG\r\n\tVyMg==":                   "AUTH ***",
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
	f.Add("password hunter2", 10)
	f.Add("a@b.c \xff\r\n", 3)
	r := channel.NewRedactor("hunter2")
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = min(max(limit, 0), channel.MaxExcerpt)
		clean := r.Clean(text, limit)
		require.LessOrEqual(t, len(clean), limit)
		require.True(t, utf8.ValidString(clean))
		require.NotContains(t, strings.ToLower(strings.Join(strings.Fields(clean), "")), "hunter2")
		require.False(t, strings.ContainsAny(clean, "\r\n\x00"))
	})
}
