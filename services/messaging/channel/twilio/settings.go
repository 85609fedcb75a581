package twilio

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/services/messaging/channel"
)

// maxCredential is the longest token or secret.
const maxCredential = 1024

var (
	accountSID = regexp.MustCompile(`^AC[0-9a-fA-F]{32}$`)
	keySID     = regexp.MustCompile(`^SK[0-9a-fA-F]{32}$`)
	serviceSID = regexp.MustCompile(`^MG[0-9a-fA-F]{32}$`)
	messageSID = regexp.MustCompile(`^[SM]M[0-9a-fA-F]{32}$`)
	phone      = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)
	// from is a phone number, a short code, or a name of letters, digits and spaces.
	from = regexp.MustCompile(`^(\+[1-9][0-9]{6,14}|[0-9]{3,8}|[A-Za-z0-9 ]{0,10}[A-Za-z][A-Za-z0-9 ]{0,10})$`)
)

// maxSenderName is the longest sender name.
const maxSenderName = 11

// checked returns the settings with their defaults filled in, or every problem.
func checked(s channel.Settings) (channel.TwilioSettings, error) {
	set, ok := s.(channel.TwilioSettings)
	if !ok {
		return set, fmt.Errorf("open twilio channel: settings are %T", s)
	}
	if set.BaseURL == "" {
		set.BaseURL = BaseURL
	}
	set.BaseURL = strings.TrimSuffix(set.BaseURL, "/")
	if set.Connections == 0 {
		set.Connections = 1
	}
	if fields := problems(set); len(fields) > 0 {
		return set, apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the channel's settings are not valid").WithFields(fields...)
	}
	return set, nil
}

// problems lists what is wrong; no message repeats a value.
func problems(set channel.TwilioSettings) []apierr.Field {
	var fields []apierr.Field
	check := func(ok bool, field, message string) {
		if !ok {
			fields = append(fields, apierr.Field{Field: field, Message: message})
		}
	}
	token, secret := set.AuthToken.Reveal(), set.APIKeySecret.Reveal()
	check(accountSID.MatchString(set.AccountSID), "account_sid", "must be AC and 32 hex digits")
	check(credential(token), "auth_token", "must be at most 1024 visible characters")
	check(token != "" || set.APIKeySID != "", "auth_token", "is needed where there is no API key")
	check(set.APIKeySID == "" || keySID.MatchString(set.APIKeySID), "api_key_sid", "must be SK and 32 hex digits")
	check(credential(secret), "api_key_secret", "must be at most 1024 visible characters")
	check((set.APIKeySID == "") == (secret == ""), "api_key_secret", "belongs to api_key_sid: set both or none")
	check(set.From != "" || set.MessagingServiceSID != "", "from_number", "is needed where there is no messaging_service_sid")
	check(set.From == "" || senderID(set.From), "from_number", "must be a phone number such as +15550001111, a short code, or a name of at most 11 letters, digits and spaces")
	check(set.MessagingServiceSID == "" || serviceSID.MatchString(set.MessagingServiceSID), "messaging_service_sid", "must be MG and 32 hex digits")
	check(origin(set.BaseURL), "base_url", "must be a scheme and a host, such as https://api.twilio.com")
	check(set.Connections >= 1 && set.Connections <= channel.MaxConnections, "connections", "must be between 1 and 256")
	return fields
}

// credential reports whether s fits a header; an empty one does.
func credential(s string) bool {
	return len(s) <= maxCredential && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

func senderID(s string) bool {
	return from.MatchString(s) && (s[0] == '+' || len(s) <= maxSenderName)
}

// origin reports whether s is a scheme and a host and nothing else.
func origin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && u.Scheme+"://"+u.Host == s
}
