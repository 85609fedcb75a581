package messaging

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/turumba/turumba/services/messaging/channel"
)

// The most that the files of a template may be (ADR 0025).
const (
	MaxAttachments     = 10
	MaxAttachmentBytes = 15 << 20 // together
	MaxFileBytes       = 5 << 20
	MaxFilename        = 150 // bytes
)

// Attachment is a file of a template.
type Attachment struct {
	ID         string    `json:"-"`
	AccountID  string    `json:"-"`
	TemplateID string    `json:"-"`
	Filename   string    `json:"filename"`
	MediaType  string    `json:"media_type"`
	ContentID  string    `json:"content_id,omitempty"` // HTML refers to it as cid:
	Size       int32     `json:"size"`
	Digest     string    `json:"digest"`
	CreatedAt  time.Time `json:"-"`
}

// mediaTypes are what may be sent by the type that the bytes show.
var mediaTypes = map[string]bool{
	"image/png": true, "image/jpeg": true, "image/gif": true, "image/webp": true, "application/pdf": true, "text/plain": true,
	"audio/mpeg": true, "video/mp4": true, "application/zip": true,
}

// byName are what ZIP archives and plain texts really are, by the end of the name.
var byName = map[string]map[string]string{
	"application/zip": {
		".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
		".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
		".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	},
	"text/plain": {".csv": "text/csv", ".ics": "text/calendar"},
}

// NewAttachment checks a file. Its type is what its bytes show: what a caller calls it
// means nothing to the program that opens it.
func NewAttachment(t *Template, filename, contentID string, data []byte) (*Attachment, error) {
	detected := channel.MediaTypeOf(data)
	switch {
	case len(data) == 0:
		return nil, invalidText("content", "is empty")
	case len(data) > MaxFileBytes:
		return nil, invalidText("content", fmt.Sprintf("has %d bytes, a file has at most %d", len(data), MaxFileBytes))
	case !plainFilename(filename):
		return nil, invalidText("filename", "must be a name of at most 150 bytes without slashes, quotes or line breaks")
	case !mediaTypes[detected] || bytes.HasPrefix(data, []byte("MZ")):
		return nil, invalidText("content", "must be an image (PNG, JPEG, GIF, WebP), PDF, text, CSV, calendar, MP3, MP4, ZIP or Office document")
	case contentID != "" && !strings.HasPrefix(detected, "image/"):
		return nil, invalidText("content_id", "is for images only")
	}
	if named, ok := byName[detected][strings.ToLower(path.Ext(filename))]; ok {
		detected = named
	}
	sum := sha256.Sum256(data)
	return &Attachment{
		ID: NewID(), AccountID: t.AccountID, TemplateID: t.ID, Filename: filename, MediaType: detected, ContentID: contentID,
		Size: int32(len(data)), Digest: hex.EncodeToString(sum[:]),
	}, nil
}

func plainFilename(name string) bool {
	return name != "" && len(name) <= MaxFilename && utf8.ValidString(name) && name != "." && name != ".." &&
		!strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`/\"`, r) })
}

// Admit refuses one file more than a template may have.
func (a *Attachment) Admit(others []*Attachment) error {
	total := a.Size
	for _, o := range others {
		total += o.Size
		if a.ContentID != "" && a.ContentID == o.ContentID {
			return invalidText("content_id", "is that of another file of the template")
		}
	}
	switch {
	case len(others) >= MaxAttachments:
		return invalidText("content", fmt.Sprintf("a template has at most %d files", MaxAttachments))
	case total > MaxAttachmentBytes:
		return invalidText("content", fmt.Sprintf("the files of a template have at most %d bytes together, with this one they have %d", MaxAttachmentBytes, total))
	}
	return nil
}

// FitAttachments refuses a template whose files the channel cannot carry; field names
// the template.
func FitAttachments(field string, list []*Attachment, caps channel.Capabilities) error {
	total := 0
	for _, a := range list {
		total += int(a.Size)
	}
	switch {
	case len(list) > 0 && caps.MaxAttachments == 0:
		return invalidText(field, "has files, and the channel carries none")
	case len(list) > caps.MaxAttachments:
		return invalidText(field, fmt.Sprintf("has %d files, the channel carries at most %d", len(list), caps.MaxAttachments))
	case total > caps.MaxAttachmentBytes:
		return invalidText(field, fmt.Sprintf("has %d bytes of files, the channel carries at most %d", total, caps.MaxAttachmentBytes))
	}
	return nil
}
