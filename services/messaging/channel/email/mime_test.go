package email

import (
	"bytes"
	"mime"
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/jhillyerd/enmime/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/turumba/turumba/services/messaging/channel"
)

// decodeHeader undoes folding and encoded words with the standard library.
func decodeHeader(t require.TestingT, field string) string {
	value, found := strings.CutPrefix(strings.TrimSuffix(field, "\r\n"), "X: ")
	require.True(t, found)
	decoded, err := new(mime.WordDecoder).DecodeHeader(strings.ReplaceAll(value, "\r\n", ""))
	require.NoError(t, err)
	return decoded
}

// checkField checks the form of one header field.
func checkField(t require.TestingT, field []byte) {
	require.True(t, bytes.HasSuffix(field, []byte("\r\n")))
	for i, line := range strings.Split(strings.TrimSuffix(string(field), "\r\n"), "\r\n") {
		require.LessOrEqual(t, len(line), maxLine)
		require.NotContains(t, line, "\n")
		require.NotContains(t, line, "\r")
		if i > 0 {
			require.True(t, strings.HasPrefix(line, " "))
			require.NotEmpty(t, strings.TrimSpace(line))
		}
		for j := range len(line) {
			require.True(t, line[j] >= ' ' && line[j] < 0x7f)
		}
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "=?") {
				require.LessOrEqual(t, len(word), 75)
			}
		}
	}
}

func FuzzHeader(f *testing.F) {
	for _, seed := range []string{
		"", "Hello", "Grüße aus Köln", "=?utf-8?q?x?=", strings.Repeat("word ", 60) + "end", strings.Repeat("ж", 300),
		strings.Repeat("x", 2000), " leading", "two  spaces", "tab\there", "a\r\nb", "\xff\xfe", "😀" + strings.Repeat("a", 70),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		field, err := appendHeader(nil, "X", value)
		if err != nil {
			require.True(t, len(value) > maxField || strings.ContainsAny(value, "\r\n\x00"))
			return
		}
		checkField(t, field)
		require.Equal(t, strings.ToValidUTF8(value, "\uFFFD"), decodeHeader(t, string(field)))
	})
}

func FuzzMailbox(f *testing.F) {
	for _, seed := range []string{"", "Bob", "Bob O'Neil", `Bob "the \ man", Jr.`, "Jörg Müller", strings.Repeat("long name ", 20) + "x", "a@b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		field, err := appendMailbox(nil, "X", name, "bob@example.test")
		if err != nil {
			return
		}
		checkField(t, field)
		value := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(string(field), "X: "), "\r\n"), "\r\n", "")
		parsed, err := mail.ParseAddress(value)
		require.NoError(t, err, "%q", value)
		require.Equal(t, "bob@example.test", parsed.Address)
		require.Equal(t, strings.ToValidUTF8(name, "\uFFFD"), parsed.Name)
	})
}

func sample(text, html string) *channel.Message {
	return &channel.Message{
		ID: "0190a000-0000-7000-8000-000000000001", To: "bob@example.test", Subject: "S", Text: text, HTML: html,
		CreatedAt: time.Unix(0, 0),
	}
}

// unstuff undoes dot stuffing, as a server does.
func unstuff(t require.TestingT, content []byte) []byte {
	var out []byte
	for _, line := range bytes.SplitAfter(content, []byte("\n")) {
		require.NotEqual(t, ".\r\n", string(line))
		require.LessOrEqual(t, len(line), maxLine+3)
		if len(line) > 0 {
			require.True(t, bytes.HasSuffix(line, []byte("\r\n")))
			require.NotContains(t, string(line[:len(line)-2]), "\r")
		}
		out = append(out, bytes.TrimPrefix(line, []byte("."))...)
	}
	return out
}

func TestBodiesComeBack(t *testing.T) {
	t.Parallel()
	from, err := newIdentity("news@sender.example", "", "")
	require.NoError(t, err)
	body := rapid.OneOf(rapid.StringOf(rapid.SampledFrom([]rune("ab .=\n\r\tü😀-"))), rapid.SampledFrom([]string{
		"=_turumba_0190a000-0000-7000-8000-000000000001", strings.Repeat("y", 1200), "trailing \nspace\t", ".", "..\n.\n",
	}))
	rapid.Check(t, func(t *rapid.T) {
		text, html, eightBit := body.Draw(t, "text"), body.Draw(t, "html"), rapid.Bool().Draw(t, "8bit")
		var ml content
		err := ml.compose(sample(text, html), &from, "bob@example.test", "x@sender.example", eightBit)
		content := ml.buffer
		if text == "" && html == "" {
			require.ErrorIs(t, err, errEmpty)
			return
		}
		require.NoError(t, err)
		if !eightBit {
			require.True(t, ascii(string(content)))
		}
		parsed, err := enmime.ReadEnvelope(bytes.NewReader(unstuff(t, content)))
		require.NoError(t, err)
		for _, problem := range parsed.Errors {
			require.Equal(t, enmime.ErrorPlainTextFromHTML, problem.Name, problem.Detail)
		}
		if text != "" {
			require.Equal(t, ended(text), ended(parsed.Text))
		}
		if html != "" {
			require.Equal(t, ended(html), ended(parsed.HTML))
		}
	})
}

// ended is the body with LF line breaks and without those at its end: MIME gives
// the last one to the boundary.
func ended(s string) string { return strings.TrimRight(unixLines(s), "\n") }

func TestAddresses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"bob@example.test": "bob@example.test", "a.b+c-d_e@x-y.example": "a.b+c-d_e@x-y.example", "bob@localhost": "bob@localhost",
		"bob@München.example": "bob@xn--mnchen-3ya.example", "o'neil@example.test": "o'neil@example.test",
		"": "", "bob": "", "@example.test": "", "bob@": "", "a b@example.test": "", ".a@example.test": "", "a.@example.test": "",
		"a..b@example.test": "", "a@-x.test": "", "a@x-.test": "", "a@x..test": "", "a@x.test.": "", "<a@b.test>": "", "a,b@c.test": "",
		"a@b.test\r\n": "", "a\x00@b.test": "", `"a b"@c.test`: "", "a@[127.0.0.1]": "", "a@b@c.test": "",
		strings.Repeat("a", 65) + "@b.test": "", "a@" + strings.Repeat("b", 64) + ".test": "", "a\xff@b.test": "",
	} {
		got, err := parseAddress(in)
		require.Equal(t, want, got.full, "%q", in)
		require.Equal(t, want == "", err != nil, "%q", in)
	}
	got, err := parseAddress("jörg@example.test")
	require.NoError(t, err)
	require.True(t, got.utf8)
}

func FuzzAddress(f *testing.F) {
	f.Add("bob@example.test")
	f.Add("jörg@bücher.example")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseAddress(s)
		if err == nil {
			require.False(t, strings.ContainsAny(got.full, " \r\n\x00<>,;:\"()[]\\"))
			require.True(t, ascii(got.domain))
		}
	})
}
