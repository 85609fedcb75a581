package messaging_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

func TestNewAttachment(t *testing.T) {
	t.Parallel()
	tmpl := &messaging.Template{ID: messaging.NewID(), AccountID: messaging.NewID()}
	const png, pdf, zip = "\x89PNG\r\n\x1a\n", "%PDF-1.4", "PK\x03\x04"
	for name, c := range map[string]struct{ filename, contentID, data, mediaType, field string }{
		"an image by its bytes":    {"logo.exe.jpg", "logo", png, "image/png", ""},
		"a document":               {"a.pdf", "", pdf, "application/pdf", ""},
		"a text":                   {"a.txt", "", "hello", "text/plain", ""},
		"a table":                  {"a.CSV", "", "a,b", "text/csv", ""},
		"a calendar":               {"a.ics", "", "BEGIN:VCALENDAR", "text/calendar", ""},
		"an office document":       {"a.docx", "", zip, "application/vnd.openxmlformats-officedocument.wordprocessingml.document", ""},
		"an archive":               {"a.docx.zip", "", zip, "application/zip", ""},
		"HTML":                     {"a.txt", "", "<html><script>", "", "content"},
		"HTML in disguise":         {"a.png", "", "<!doctype html>", "", "content"},
		"a program":                {"a.pdf", "", "MZ\x90\x00", "", "content"},
		"another program":          {"a.pdf", "", "\x7fELF\x02", "", "content"},
		"SVG":                      {"a.svg", "", "<?xml version=\"1.0\"?><svg/>", "", "content"},
		"nothing":                  {"a.txt", "", "", "", "content"},
		"too long":                 {"a.txt", "", strings.Repeat("x", messaging.MaxFileBytes+1), "", "content"},
		"a path":                   {"a/b.txt", "", "x", "", "filename"},
		"a path as others have it": {`a\b.txt`, "", "x", "", "filename"},
		"a parent":                 {"..", "", "x", "", "filename"},
		"a name of two lines":      {"a\r\nb", "", "x", "", "filename"},
		"a long name":              {strings.Repeat("ü", 76), "", "x", "", "filename"},
		"a document inside a text": {"a.pdf", "a", pdf, "", "content_id"},
	} {
		a, err := messaging.NewAttachment(tmpl, c.filename, c.contentID, []byte(c.data))
		if c.field != "" {
			require.Error(t, err, name)
			require.Equal(t, c.field, apierr.From(err).Fields[0].Field, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, c.mediaType, a.MediaType, name)
	}
}

func TestFilesHaveLimits(t *testing.T) {
	t.Parallel()
	file := func(size int, cid string) *messaging.Attachment {
		return &messaging.Attachment{Size: int32(size), ContentID: cid}
	}
	many := make([]*messaging.Attachment, messaging.MaxAttachments)
	for i := range many {
		many[i] = file(1, "")
	}
	require.NoError(t, file(1, "").Admit(many[1:]))
	require.ErrorContains(t, file(1, "").Admit(many), "not valid")
	half := file(messaging.MaxAttachmentBytes/2, "")
	require.NoError(t, half.Admit([]*messaging.Attachment{half}))
	require.Error(t, half.Admit([]*messaging.Attachment{half, file(1, "")}))
	require.Error(t, file(1, "a").Admit([]*messaging.Attachment{file(1, "a")}))
	require.NoError(t, file(1, "").Admit([]*messaging.Attachment{file(1, "")}))

	caps := channel.Capabilities{MaxAttachments: 1, MaxAttachmentBytes: 10}
	require.NoError(t, messaging.FitAttachments("f", nil, channel.Capabilities{}))
	require.Error(t, messaging.FitAttachments("f", many[:1], channel.Capabilities{}))
	require.NoError(t, messaging.FitAttachments("f", many[:1], caps))
	require.Error(t, messaging.FitAttachments("f", many[:2], caps))
	require.Error(t, messaging.FitAttachments("f", []*messaging.Attachment{file(11, "")}, caps))
}

func FuzzAttachmentName(f *testing.F) {
	f.Add("a.pdf", "")
	f.Add("../../x", "a b")
	tmpl := &messaging.Template{ID: messaging.NewID(), AccountID: messaging.NewID()}
	f.Fuzz(func(t *testing.T, name, data string) {
		a, err := messaging.NewAttachment(tmpl, name, "", append([]byte("%PDF-1.4 "), data...))
		if err == nil {
			require.False(t, strings.ContainsAny(a.Filename, "/\\\"\r\n\x00"))
			require.False(t, bytes.HasPrefix([]byte(a.MediaType), []byte("text/html")))
		}
	})
}
