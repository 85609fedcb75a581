package messaging

import (
	"strings"

	"google.golang.org/protobuf/proto"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/secrets"
	"github.com/turumba/turumba/services/messaging/channel"
)

// Destination is where the secrets of the credentials go, by the contract's option
// (destination). It is taken from the values that the adapter gets, in their one
// spelling: two destinations are the same exactly when the adapter cannot tell them
// apart.
func (c Credentials) Destination() []byte {
	if m := c.canonical(); m != nil {
		return secrets.Destination(m)
	}
	return nil
}

// canonical is what the adapter gets, without the secrets; nil without a kind.
func (c Credentials) canonical() proto.Message {
	switch {
	case c.SMTP != nil:
		return smtpMessage(canonicalSMTP(*c.SMTP))
	case c.Twilio != nil:
		return twilioMessage(canonicalTwilio(*c.Twilio))
	}
	return nil
}

// Message shows the credentials as the contract has them, without their secrets.
func (c Credentials) Message() *messagingv1.ChannelCredentials {
	switch {
	case c.SMTP != nil:
		return &messagingv1.ChannelCredentials{Kind: &messagingv1.ChannelCredentials_Smtp{Smtp: smtpMessage(*c.SMTP)}}
	case c.Twilio != nil:
		return &messagingv1.ChannelCredentials{Kind: &messagingv1.ChannelCredentials_Twilio{Twilio: twilioMessage(*c.Twilio)}}
	}
	return &messagingv1.ChannelCredentials{}
}

func smtpMessage(s SMTP) *messagingv1.SmtpCredentials {
	mode := messagingv1.TlsMode(messagingv1.TlsMode_value["TLS_MODE_"+strings.ToUpper(s.TLSMode)])
	return &messagingv1.SmtpCredentials{
		Host: &s.Host, Port: proto.Uint32(uint32(s.Port)), TlsMode: &mode, Username: &s.Username, FromEmail: &s.FromEmail, FromName: &s.FromName,
		ReplyTo: &s.ReplyTo, SubjectTemplate: &s.SubjectTemplate, AllowPlaintext: &s.AllowPlaintext,
	}
}

func twilioMessage(t Twilio) *messagingv1.TwilioCredentials {
	return &messagingv1.TwilioCredentials{
		AccountSid: &t.AccountSID, ApiKeySid: &t.APIKeySID, FromNumber: &t.FromNumber, MessagingServiceSid: &t.MessagingServiceSID, BaseUrl: &t.BaseURL,
	}
}

// canonicalSMTP is what the adapter gets: a host name has one spelling (RFC 4343), and what is
// not set has its default.
func canonicalSMTP(s SMTP) SMTP {
	s.Host = lower(s.Host)
	if s.Port == 0 {
		s.Port = DefaultSMTPPort
	}
	if s.TLSMode == "" {
		s.TLSMode = string(channel.TLSStartTLS)
	}
	return s
}

// canonicalTwilio is what the adapter gets: scheme and host have one spelling, the scheme's own
// port is left out (RFC 3986 section 6.2), and so is Twilio's own address.
func canonicalTwilio(t Twilio) Twilio {
	t.BaseURL = lower(t.BaseURL)
	for scheme, port := range map[string]string{"https://": ":443", "http://": ":80"} {
		if strings.HasPrefix(t.BaseURL, scheme) {
			t.BaseURL = strings.TrimSuffix(t.BaseURL, port)
		}
	}
	if t.BaseURL == channel.TwilioBaseURL {
		t.BaseURL = ""
	}
	return t
}

// lower is the text with the letters of ASCII in lower case; other letters stay, so that
// none of them becomes one of ASCII.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}

// Given are the secrets that a request sets, by field name; only, if it is not empty,
// names the one field that is meant, which is then also set when it is absent.
func Given(m proto.Message, only string) map[string]string {
	given := map[string]string{}
	r := m.ProtoReflect()
	for _, fd := range secrets.Fields(r.Descriptor()) {
		if named := only == string(fd.Name()); named || (only == "" && r.Has(fd)) {
			given[string(fd.Name())] = r.Get(fd).String()
		}
	}
	return given
}
