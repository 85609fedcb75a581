package telemetry

import (
	"log/slog"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
)

// Redacted stands where a value was left out.
const Redacted = "[redacted]"

// Redact reports whether values under the key must not be logged: keys that name
// a secret anywhere in them (password, token, authorization, …) and keys that are
// personal data or content (email, phone, address, body, subject, …). Ids,
// counts, sizes and times about them are fine: a key that ends in _id, _ids,
// _count, _bytes, _at or _seconds is never redacted.
func Redact(key string) bool {
	key = strings.ToLower(strings.ReplaceAll(key, "-", "_"))
	for _, suffix := range []string{"_id", "_ids", "_count", "_bytes", "_at", "_seconds"} {
		if strings.HasSuffix(key, suffix) {
			return false
		}
	}
	for _, part := range []string{
		"password", "passwd", "secret", "token", "authorization", "cookie", "credential", "api_key", "apikey",
		"private_key", "master_key", "signature", "email", "phone",
	} {
		if strings.Contains(key, part) {
			return true
		}
	}
	switch key {
	case "address", "delivery_address", "recipient", "recipients", "to", "from", "cc", "bcc", "body", "message_body",
		"subject", "html", "text", "payload", "otp", "verification_code", "given_name", "family_name", "custom_values", "dsn":
		return true
	}
	return false
}

// replace is the ReplaceAttr of the logger.
func replace(_ []string, a slog.Attr) slog.Attr {
	if Redact(a.Key) {
		return slog.String(a.Key, Redacted)
	}
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(scrub(a.Value.String()))
	case slog.KindTime:
		a.Value = slog.StringValue(a.Value.Time().UTC().Format(time.RFC3339Nano))
	case slog.KindAny:
		a.Value = replaceAny(a.Value)
	}
	return a
}

func replaceAny(v slog.Value) slog.Value {
	switch value := v.Any().(type) {
	case error:
		return slog.StringValue(scrub(value.Error()))
	case *slog.Source:
		return v
	case proto.Message:
		return slog.StringValue(Redacted)
	case url.URL:
		return slog.StringValue(value.Redacted())
	case *url.URL:
		return slog.StringValue(value.Redacted())
	default:
		return v
	}
}

// scrub removes what error texts of libraries are known to hold: passwords in
// URLs and bearer tokens.
func scrub(text string) string {
	if strings.Contains(text, "://") {
		text = scrubUserInfo(text)
	}
	return scrubBearer(text)
}

// scrubUserInfo replaces "user:password@" after each "://".
func scrubUserInfo(text string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "://")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("://")
		end := strings.IndexAny(after, "/?# \"'`\n")
		if end < 0 {
			end = len(after)
		}
		if at := strings.LastIndexByte(after[:end], '@'); at >= 0 {
			b.WriteString(Redacted)
			after = after[at:]
		}
		text = after
	}
}

// scrubBearer replaces the word that follows "Bearer ".
func scrubBearer(text string) string {
	const word = "bearer "
	lower := asciiLower(text)
	var b strings.Builder
	for {
		i := strings.Index(lower, word)
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(text[:i+len(word)])
		text, lower = text[i+len(word):], lower[i+len(word):]
		end := strings.IndexAny(text, " \"'`\n,;")
		if end < 0 {
			end = len(text)
		}
		b.WriteString(Redacted)
		text, lower = text[end:], lower[end:]
	}
}

// asciiLower lower-cases A to Z and keeps every byte in its place, which
// strings.ToLower does not.
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
