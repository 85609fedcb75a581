package server

import (
	"cmp"
	"maps"
	"strings"

	"google.golang.org/protobuf/proto"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// setKind gives a new channel the type, the provider and the defaults that follow
// from its credentials.
func setKind(c *messaging.Channel, in *messagingv1.ChannelCredentials) {
	switch in.GetKind().(type) {
	case *messagingv1.ChannelCredentials_Smtp:
		c.ChannelType, c.Provider = messaging.TypeEmail, messaging.ProviderSMTP
		c.Credentials.SMTP = &messaging.SMTP{Port: messaging.DefaultSMTPPort, TLSMode: string(channel.TLSStartTLS)}
	case *messagingv1.ChannelCredentials_Twilio:
		c.ChannelType, c.Provider = messaging.TypeSMS, messaging.ProviderTwilio
		c.Credentials.Twilio = &messaging.Twilio{}
	}
}

// setting is one field of credentials: whether the request has it, and what it does.
type setting struct {
	name    string
	present bool
	set     func()
}

// applyCredentials sets the fields that each path of an update's mask names, and returns
// the secrets among them. A path that ends at a kind, or above it, means the fields that
// are present. Whether the channel can work with them is asked once all are set:
// checkCredentials.
func applyCredentials(c *messaging.Credentials, provider string, in *messagingv1.ChannelCredentials, paths ...string) (map[string]string, error) {
	given := map[string]string{}
	for _, path := range paths {
		var settings []setting
		var kind proto.Message
		switch smtp, twilio := in.GetSmtp(), in.GetTwilio(); {
		case smtp != nil && c.SMTP != nil:
			kind, settings = smtp, smtpSettings(c.SMTP, smtp)
		case twilio != nil && c.Twilio != nil:
			kind, settings = twilio, twilioSettings(c.Twilio, twilio)
		default:
			return nil, invalid("credentials", "must be those of "+provider+"; another provider is another channel")
		}
		of, only := below(path)
		if of != "" && of != provider {
			return nil, invalid(path, "must be one of "+provider+"'s; another provider is another channel")
		}
		for _, f := range settings {
			if f.present && only == "" || only == f.name {
				f.set()
			}
		}
		maps.Copy(given, messaging.Given(kind, only))
	}
	return given, nil
}

// below is the kind that a path below "credentials" names, and the field of it; empty where
// the path ends above.
func below(path string) (kind, field string) {
	_, inner, _ := strings.Cut(path, ".")
	kind, field, _ = strings.Cut(inner, ".")
	return kind, field
}

// checkCredentials reports what keeps the channel from working.
func (s *Server) checkCredentials(c *messaging.Channel) error {
	if err := c.Check(); err != nil {
		return err
	}
	sender, err := s.open(c)
	if err != nil {
		return err
	}
	return sender.Close()
}

// orPort is the port, or the default one where the request has none.
func orPort(port *uint32) int {
	if port == nil {
		return messaging.DefaultSMTPPort
	}
	return int(*port)
}

func smtpSettings(c *messaging.SMTP, in *messagingv1.SmtpCredentials) []setting {
	return []setting{
		{"host", in.Host != nil, func() { c.Host = in.GetHost() }},
		{"port", in.Port != nil, func() { c.Port = orPort(in.Port) }},
		{"tls_mode", in.GetTlsMode() != 0, func() { c.TLSMode = cmp.Or(toWord(in.GetTlsMode()), string(channel.TLSStartTLS)) }},
		{"username", in.Username != nil, func() { c.Username = in.GetUsername() }},
		{"from_email", in.FromEmail != nil, func() { c.FromEmail = in.GetFromEmail() }},
		{"from_name", in.FromName != nil, func() { c.FromName = in.GetFromName() }},
		{"reply_to", in.ReplyTo != nil, func() { c.ReplyTo = in.GetReplyTo() }},
		{"subject_template", in.SubjectTemplate != nil, func() { c.SubjectTemplate = in.GetSubjectTemplate() }},
		{"allow_plaintext", in.AllowPlaintext != nil, func() { c.AllowPlaintext = in.GetAllowPlaintext() }},
	}
}

func twilioSettings(c *messaging.Twilio, in *messagingv1.TwilioCredentials) []setting {
	return []setting{
		{"account_sid", in.AccountSid != nil, func() { c.AccountSID = in.GetAccountSid() }},
		{"api_key_sid", in.ApiKeySid != nil, func() { c.APIKeySID = in.GetApiKeySid() }},
		{"from_number", in.FromNumber != nil, func() { c.FromNumber = in.GetFromNumber() }},
		{"messaging_service_sid", in.MessagingServiceSid != nil, func() { c.MessagingServiceSID = in.GetMessagingServiceSid() }},
		{"base_url", in.BaseUrl != nil, func() { c.BaseURL = in.GetBaseUrl() }},
	}
}

// open makes a sender of the channel, which checks its settings once more with
// the adapter's own rules.
func (s *Server) open(c *messaging.Channel) (channel.Sender, error) {
	adapter, ok := s.adapters.For(c.ChannelType, c.Provider)
	if !ok {
		return nil, apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "no adapter serves %s by %s", c.ChannelType, c.Provider)
	}
	settings, err := c.Settings(s.vault)
	if err != nil {
		return nil, err
	}
	sender, err := adapter.Open(settings)
	if e := apierr.From(err); err != nil && e.Reason == errorv1.Reason_REASON_VALIDATION_FAILED {
		return nil, underCredentials(c.Provider, e)
	}
	return sender, err
}

// underCredentials names the adapter's fields as the contract does, where the kind
// of credentials has the name of its provider.
func underCredentials(kind string, e *apierr.Error) error {
	fields := make([]apierr.Field, len(e.Fields))
	for i, f := range e.Fields {
		name := f.Field
		if name == "tls" {
			name = "tls_mode"
		}
		fields[i] = apierr.Field{Field: "credentials." + kind + "." + name, Message: f.Message}
	}
	return apierr.New(e.Reason, "the request is not valid").WithFields(fields...)
}
