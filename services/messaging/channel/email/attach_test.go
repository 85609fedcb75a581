package email

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jhillyerd/enmime/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/turumba/turumba/services/messaging/channel"
)

var update = flag.Bool("update", false, "write the golden mails anew")

func written(t require.TestingT, m *channel.Message, eightBit bool) []byte {
	from, err := newIdentity("news@sender.example", "Turumba News", "")
	require.NoError(t, err)
	var c content
	require.NoError(t, c.compose(m, &from, "bob@example.test", "x@sender.example", eightBit))
	whole := bytes.Join(c.pieces(nil), nil)
	require.Len(t, whole, c.size())
	return whole
}

func pixel() *channel.Attachment {
	return channel.NewAttachment("pixel.png", "image/png", "pixel@turumba", []byte("\x89PNG\r\n\x1a\n not a real one"))
}

// TestGoldenMails: what a mail looks like on the wire, byte for byte.
func TestGoldenMails(t *testing.T) {
	t.Parallel()
	pdf := channel.NewAttachment("Gebühren 2026.pdf", "application/pdf", "", bytes.Repeat([]byte("%PDF-1.4 "), 20))
	for name, m := range map[string]*channel.Message{
		"text":             sample("Hello\n", ""),
		"alternative":      sample("Hello ü\n", "<p>Hello ü</p>\n"),
		"mixed":            sample("Hello\n", ""),
		"related":          sample("Hello\n", `<img src="cid:pixel@turumba">`),
		"mixed_related":    sample("Hello ü\n", `<img src="cid:pixel@turumba">`),
		"inline_in_text":   sample("Hello\n", ""),
		"list_unsubscribe": sample("Hello\n", ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			switch name {
			case "mixed":
				m.Attachments = []*channel.Attachment{pdf}
			case "related", "inline_in_text":
				m.Attachments = []*channel.Attachment{pixel()}
			case "mixed_related":
				m.Attachments = []*channel.Attachment{pdf, pixel()}
			case "list_unsubscribe":
				m.Headers = []channel.Header{
					{Name: "List-Unsubscribe", Value: "<https://mail.example.org/unsubscribe/" + strings.Repeat("Ab-_9", 40) + ">"},
					{Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"},
				}
			}
			got := written(t, m, true)
			file := filepath.Join("testdata", name+".eml")
			if *update {
				require.NoError(t, os.WriteFile(file, got, 0o600))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got))
			parsed, err := enmime.ReadEnvelope(bytes.NewReader(unstuff(t, got)))
			require.NoError(t, err)
			require.Len(t, append(append([]*enmime.Part{}, parsed.Inlines...), parsed.Attachments...), len(m.Attachments))
		})
	}
}

// TestFilesComeBack: whatever is in a file and however it is called, a reader gets it.
func TestFilesComeBack(t *testing.T) {
	t.Parallel()
	name := rapid.StringOfN(rapid.SampledFrom([]rune(`ab .-_"\;=ü😀%'()`)), 1, 40, 200)
	rapid.Check(t, func(t *rapid.T) {
		m := sample(rapid.SampledFrom([]string{"Hi", "ü\n", boundaryPrefix + "m_"}).Draw(t, "text"), rapid.SampledFrom([]string{"", "<p>x</p>"}).Draw(t, "html"))
		want := map[string][]byte{}
		for i := range rapid.IntRange(1, 4).Draw(t, "files") {
			data, cid := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data"), ""
			if rapid.Bool().Draw(t, "inline") {
				cid = "c" + string(rune('0'+i))
			}
			a := channel.NewAttachment(name.Draw(t, "name"), "application/octet-stream", cid, data)
			if want[a.Filename] != nil {
				continue
			}
			want[a.Filename] = data
			m.Attachments = append(m.Attachments, a)
		}
		whole := written(t, m, rapid.Bool().Draw(t, "8bit"))
		parsed, err := enmime.ReadEnvelope(bytes.NewReader(unstuff(t, whole)))
		require.NoError(t, err)
		parts := map[*enmime.Part]bool{}
		for _, list := range [][]*enmime.Part{parsed.Inlines, parsed.Attachments, parsed.OtherParts} {
			for _, p := range list {
				parts[p] = true
			}
		}
		require.Len(t, parts, len(want))
		for i, a := range m.Attachments {
			found := false
			for p := range parts {
				found = found || bytes.Equal(p.Content, want[a.Filename]) && p.ContentID == a.ContentID
			}
			require.True(t, found, "file %d", i)
		}
	})
}

func TestAttachmentsAreChecked(t *testing.T) {
	t.Parallel()
	from, err := newIdentity("news@sender.example", "", "")
	require.NoError(t, err)
	for name, a := range map[string]*channel.Attachment{
		"no name":            channel.NewAttachment("", "image/png", "", nil),
		"two lines":          channel.NewAttachment("a\r\nBcc: x", "image/png", "", nil),
		"no type":            channel.NewAttachment("a", "", "", nil),
		"type with a line":   channel.NewAttachment("a", "image/png\r\nX: y", "", nil),
		"a multipart":        channel.NewAttachment("a", "multipart/mixed", "", nil),
		"an id with a space": channel.NewAttachment("a", "image/png", "a b", nil),
		"an id with a >":     channel.NewAttachment("a", "image/png", "a>b", nil),
		"a long name":        channel.NewAttachment(strings.Repeat("x", 256), "image/png", "", nil),
	} {
		m := sample("Hi", "<p>Hi</p>")
		m.Attachments = []*channel.Attachment{a}
		var c content
		require.ErrorIs(t, c.compose(m, &from, "bob@example.test", "x@sender.example", true), errAttachment, name)
	}
}
