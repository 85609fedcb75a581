package email

import (
	"fmt"
	"strings"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/services/messaging/channel"
)

// maxCredential is the longest user name or password that fits an AUTH line.
const maxCredential = 4096

// checked returns the settings with their defaults filled in, or every problem.
func checked(s channel.Settings) (channel.EmailSettings, error) {
	set, ok := s.(channel.EmailSettings)
	if !ok {
		return set, fmt.Errorf("open email channel: settings are %T", s)
	}
	if set.TLS == "" {
		set.TLS = channel.TLSStartTLS
	}
	if set.Connections == 0 {
		set.Connections = 1
	}
	if fields := problems(set); len(fields) > 0 {
		return set, apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the channel's settings are not valid").WithFields(fields...)
	}
	return set, nil
}

// problems lists what is wrong; no message repeats a value.
func problems(set channel.EmailSettings) []apierr.Field {
	var fields []apierr.Field
	check := func(ok bool, field, message string) {
		if !ok {
			fields = append(fields, apierr.Field{Field: field, Message: message})
		}
	}
	check(plainToken(set.Host, 253), "host", "must be a host name or an address")
	check(set.Port >= 1 && set.Port <= 65535, "port", "must be between 1 and 65535")
	check(oneOf(set.TLS), "tls", "must be starttls, implicit or none")
	check(credential(set.Username), "username", "must be one line of at most 4096 bytes")
	check(credential(set.Password.Reveal()), "password", "must be one line of at most 4096 bytes")
	check(set.Username == "" || set.Password.Reveal() != "", "password", "is needed where there is a username")
	check(validAddress(set.FromEmail), "from_email", "must be an e-mail address")
	check(headerSafe(set.FromName), "from_name", "must be one line")
	check(set.ReplyTo == "" || validAddress(set.ReplyTo), "reply_to", "must be an e-mail address")
	check(set.Connections >= 1 && set.Connections <= channel.MaxConnections, "connections", "must be between 1 and 256")
	check(set.MaxPerConnection >= 0, "max_per_connection", "must not be negative")
	check(set.HeloName == "" || plainToken(set.HeloName, 253), "helo_name", "must be a host name")
	return fields
}

func oneOf(mode channel.TLSMode) bool {
	return mode == channel.TLSStartTLS || mode == channel.TLSImplicit || mode == channel.TLSNone
}

// plainToken reports whether s is visible ASCII without spaces.
func plainToken(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

func credential(s string) bool {
	return len(s) <= maxCredential && !strings.ContainsAny(s, "\r\n\x00")
}

func validAddress(s string) bool {
	_, err := parseAddress(s)
	return err == nil
}
