package address_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/address"
)

// TestEmailKey: what people write for one mailbox is one mailbox.
func TestEmailKey(t *testing.T) {
	t.Parallel()
	for want, spellings := range map[string][]string{
		"case.test@example.org": {
			"case.test@example.org", "Case.Test@Example.org", "CASE.TEST@EXAMPLE.ORG", " case.test@example.org ", "\u200bcase.test@example.org", "\ufeffcase.test@example.org",
			"\u202acase.test@example.org\u202c", "\u00a0case.test@example.org", "case.test@example.org\r\n", "\tcase.test@EXAMPLE.org", "case.test@example.org\u200e",
		},
		"kontakt@xn--mnchen-3ya.example": {
			"kontakt@m\u00fcnchen.example", "Kontakt@M\u00dcNCHEN.example", "kontakt@mu\u0308nchen.example", "kontakt@xn--mnchen-3ya.example", "KONTAKT@XN--MNCHEN-3YA.EXAMPLE",
			"kontakt@\uff4d\u00fcnchen.example", "kontakt@m\u00fcnchen\u3002example",
		},
		"jos\u00e9@example.org":                  {"jos\u00e9@example.org", "jose\u0301@example.org", "JOS\u00c9@example.org", "Jose\u0301@Example.Org"},
		"\u12a0\u1260\u1260@xn--hxd.example":     {"\u12a0\u1260\u1260@\u1207.example", "\u12a0\u1260\u1260@XN--HXD.example"},
		"a+b_c-d@sub.example-host.org":           {"a+b_c-d@sub.example-host.org", "A+B_C-D@Sub.Example-Host.ORG"},
		"o'neil!#$%&*/=?^`{|}~@example.org":      {"o'neil!#$%&*/=?^`{|}~@example.org", "O'NEIL!#$%&*/=?^`{|}~@example.org"},
		"postmaster@localhost":                   {"postmaster@localhost", "Postmaster@LOCALHOST"},
		"x@xn--strae-oqa.example":                {"x@stra\u00dfe.example"},
		"1@1.example":                            {"1@1.example"},
		strings.Repeat("a", 64) + "@example.org": {strings.Repeat("A", 64) + "@example.org"},
	} {
		for _, s := range spellings {
			got, err := address.Email(s)
			require.NoError(t, err, "%q", s)
			require.Equal(t, address.Trim(s), got, "its spelling is kept")
			require.Equal(t, want, address.EmailKey(s), "%q", s)
			require.Equal(t, want, address.EmailKey(want), "it is its own key")
			require.Contains(t, address.EmailForms(s), want)
			require.Contains(t, address.EmailForms(want), want)
			sent, err := address.Mailbox(s)
			require.NoError(t, err, "%q", s)
			require.Equal(t, want, address.EmailKey(sent), "%q", s)
			require.Contains(t, address.EmailForms(want), strings.ToLower(sent), "what is sent to is found again: %q", s)
		}
	}
	require.Contains(t, address.EmailForms("kontakt@xn--mnchen-3ya.example"), "kontakt@m\u00fcnchen.example")
}

// TestNoEmail: what no server could deliver is refused, whoever asks.
func TestNoEmail(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "@", "a", "a@", "@example.org", "a..b@example.org", ".a@example.org", "a.@example.org", "a b@example.org", "a@b c.org", "a@@example.org", "a@b@example.org",
		"a@-example.org", "a@example-.org", "a@example..org", "a@.example.org", "a@exa_mple.org", "a@[127.0.0.1]", "a@[IPv6:::1]", `"a b"@example.org`, `"a"@example.org`,
		"A <a@example.org>", "<a@example.org>", "a@example.org,b@example.org", "a@example.org;b@example.org", "a@example.org b@example.org", "mailto:a@example.org",
		"a\x00@example.org", "a@example.org\x00", "a\r\nBcc: b@example.org", "a\nb@example.org", "a(comment)@example.org", "a@example.org(comment)", "a\\b@example.org",
		"a\u200bb@example.org", "a@exam\u202eple.org", "a@xn--.example", "a@xn--a.example", strings.Repeat("a", 65) + "@example.org",
		"a@" + strings.Repeat("b", 64) + ".org", "a@" + strings.Repeat("b.", 127) + "org", strings.Repeat("\u00e9", 33) + "@example.org", "a@ex\u00a0ample.org",
	} {
		got, err := address.Email(s)
		require.ErrorIs(t, err, address.ErrEmail, "%q is %q", s, got)
	}
}

// FuzzEmail: a mailbox has a key that is its own key, and one that needs no library to be read
// has the key that the libraries make.
func FuzzEmail(f *testing.F) {
	for _, s := range []string{"Case.Test@Example.org", "a+b_c@x-y.z1", "a..b@c", "a@xn--mnchen-3ya.example", "a@m\u00fcnchen.example", "1@2", "a@ab--c.d", "a@b-.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := address.Email(s)
		if err != nil {
			return
		}
		key := address.EmailKey(got)
		require.Equal(t, key, address.EmailKey(key))
		require.Equal(t, key, address.EmailKey("\u200e"+got), "the way of the libraries has the same key")
		_, err = address.Email("\u200e" + got)
		require.NoError(t, err)
		_, err = address.Email(key)
		require.NoError(t, err, "a key is a mailbox")
	})
}
