package channel

import (
	"encoding/base64"
	"net/http"
	"strings"
)

// mimeLine is the length of a line of base64 (RFC 2045 section 6.8).
const mimeLine = 76

// Attachment is a file that a message carries. All messages of a send share one, so it is
// read and encoded once, and nobody changes it.
type Attachment struct {
	// Filename is the name to show, MediaType its type such as "application/pdf".
	Filename, MediaType string
	// ContentID is what HTML refers to as cid:; empty for a file of its own.
	ContentID string
	// Size is how long the file is.
	Size int

	encoded []byte
}

// NewAttachment encodes a file.
func NewAttachment(filename, mediaType, contentID string, data []byte) *Attachment {
	return &Attachment{Filename: filename, MediaType: mediaType, ContentID: contentID, Size: len(data), encoded: mimeBase64(data)}
}

// Base64 is the file in lines of base64, each ended by CRLF; not to be changed. No line
// begins with a dot.
func (a *Attachment) Base64() []byte { return a.encoded }

// MediaTypeOf is the type that the bytes of a file show, without parameters.
func MediaTypeOf(data []byte) string {
	mediaType, _, _ := strings.Cut(http.DetectContentType(data), ";")
	return mediaType
}

func mimeBase64(data []byte) []byte {
	const chunk = mimeLine / 4 * 3
	out := make([]byte, 0, base64.StdEncoding.EncodedLen(len(data))+2*(len(data)/chunk+1))
	for len(data) > 0 {
		n := min(chunk, len(data))
		out = append(base64.StdEncoding.AppendEncode(out, data[:n]), '\r', '\n')
		data = data[n:]
	}
	return out
}
