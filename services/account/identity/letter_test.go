package identity

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLettersAreNoMessages: what strangers chose is a name in quotes in our mails, or nothing.
func TestLettersAreNoMessages(t *testing.T) {
	t.Parallel()
	letters := map[string]func(name string) Letter{
		"code":       func(name string) Letter { return CodeLetter(name, "123456") },
		"invitation": func(name string) Letter { return InvitationLetter(name, false, "inv_x") },
		"owner":      func(name string) Letter { return InvitationLetter(name, true, "inv_x") },
	}
	for what, letter := range letters {
		plain := letter("")
		for name, want := range map[string]string{
			"Ada School":                        "“Ada School”",
			"WIN MONEY http://evil.example":     "",
			"evil．example":                      "",
			"Unlock: now!\r\nBcc: x":            "“Unlock now Bcc x”",
			strings.Repeat("long name ", 20):    "“" + strings.TrimSpace(strings.Repeat("long name ", 4)) + "…”",
			"” Your account is locked. Call me": "“Your account is locked Call me”",
		} {
			got := letter(name)
			require.NotContains(t, got.subject, "\n")
			require.Equal(t, strings.Count(plain.text, "\n"), strings.Count(got.text, "\n"), "%s: %q", what, name)
			if want == "" {
				require.Equal(t, plain, got, "%s: %q", what, name)
				continue
			}
			require.Contains(t, got.text, want, "%s: %q", what, name)
			require.LessOrEqual(t, len([]rune(got.text)), len([]rune(plain.text))+len([]rune(" in the name of "+want)))
		}
	}
}
