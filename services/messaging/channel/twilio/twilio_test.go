package twilio_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/channel/channeltest"
	"github.com/turumba/turumba/services/messaging/channel/providers"
	"github.com/turumba/turumba/services/messaging/channel/twilio"
)

const (
	account = "AC00000000000000000000000000000001"
	key     = "SK00000000000000000000000000000001"
	service = "MG00000000000000000000000000000001"
	sid     = "SM00000000000000000000000000000042"
	token   = "correct-horse"
	secret  = "battery-staple"
	// login and keyLogin are base64 of account:token and key:secret.
	login    = "QUMwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMTpjb3JyZWN0LWhvcnNl"
	keyLogin = "U0swMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMTpiYXR0ZXJ5LXN0YXBsZQ=="
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func settings() channel.Settings {
	return channel.TwilioSettings{AccountSID: account, AuthToken: config.Secret(token), From: "+15550001111"}
}

func with(change func(*channel.TwilioSettings)) func(channel.Settings) channel.Settings {
	return func(s channel.Settings) channel.Settings {
		set := s.(channel.TwilioSettings)
		change(&set)
		return set
	}
}

func message() channel.Message {
	return channel.Message{
		ID: "0190a000-0000-7000-8000-000000000001", To: "+251911000001", Subject: "not sent", Text: "Your code is 1234.", HTML: "<b>not sent</b>",
	}
}

func file(name string) string {
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		panic(err) // a test's own file
	}
	return string(raw)
}

func suite(cases ...channeltest.Case) channeltest.Suite {
	return channeltest.Suite{
		New: func(env channeltest.Env) channel.Adapter {
			return twilio.New(twilio.Config{Dialer: env.Dialer, Clock: env.Clock, RootCAs: env.Roots})
		},
		Settings: settings, Message: message, Host: "api.twilio.com", Secrets: []string{token, secret, login, keyLogin},
		Healthy:   channeltest.HTTP(channeltest.Reply{Status: 201, Body: file("queued.json")}),
		BreaksOff: channeltest.HTTP(channeltest.Reply{Reset: true}),
		Cases:     cases,
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	adapter := twilio.New(twilio.Config{Clock: clock.System()})
	for name, row := range map[string]struct {
		change func(*channel.TwilioSettings)
		fields []string
	}{
		"nothing at all":          {func(s *channel.TwilioSettings) { *s = channel.TwilioSettings{} }, []string{"account_sid", "auth_token", "from_number"}},
		"an account that is none": {func(s *channel.TwilioSettings) { s.AccountSID = "AC/../x" }, []string{"account_sid"}},
		"a token of two lines":    {func(s *channel.TwilioSettings) { s.AuthToken = "a\r\nb" }, []string{"auth_token"}},
		"a key without secret":    {func(s *channel.TwilioSettings) { s.APIKeySID = key }, []string{"api_key_secret"}},
		"a secret without key":    {func(s *channel.TwilioSettings) { s.APIKeySecret = secret }, []string{"api_key_secret"}},
		"a key that is none":      {func(s *channel.TwilioSettings) { s.APIKeySID, s.APIKeySecret = "SK1", secret }, []string{"api_key_sid"}},
		"a key instead":           {func(s *channel.TwilioSettings) { s.AuthToken, s.APIKeySID, s.APIKeySecret = "", key, secret }, nil},
		"a service instead":       {func(s *channel.TwilioSettings) { s.From, s.MessagingServiceSID = "", service }, nil},
		"a service that is none":  {func(s *channel.TwilioSettings) { s.MessagingServiceSID = "MGx" }, []string{"messaging_service_sid"}},
		"a short code":            {func(s *channel.TwilioSettings) { s.From = "12345" }, nil},
		"a name":                  {func(s *channel.TwilioSettings) { s.From = "My School" }, nil},
		"a long name":             {func(s *channel.TwilioSettings) { s.From = "My Old School" }, []string{"from_number"}},
		"a number of nowhere":     {func(s *channel.TwilioSettings) { s.From = "0911000001" }, []string{"from_number"}},
		"an origin":               {func(s *channel.TwilioSettings) { s.BaseURL = "http://127.0.0.1:8080" }, nil},
		"an origin with slash":    {func(s *channel.TwilioSettings) { s.BaseURL = "https://sim.example/" }, nil},
		"a path":                  {func(s *channel.TwilioSettings) { s.BaseURL = "https://sim.example/x?y" }, []string{"base_url"}},
		"a login in the URL":      {func(s *channel.TwilioSettings) { s.BaseURL = "https://u:p@sim.example" }, []string{"base_url"}},
		"another scheme":          {func(s *channel.TwilioSettings) { s.BaseURL = "file:///etc/passwd" }, []string{"base_url"}},
		"too many connections":    {func(s *channel.TwilioSettings) { s.Connections = 1000 }, []string{"connections"}},
	} {
		sender, err := adapter.Open(with(row.change)(settings()))
		if row.fields == nil {
			require.NoError(t, err, name)
			require.NoError(t, sender.Close())
			continue
		}
		var fields []string
		for _, f := range apierr.From(err).Fields {
			fields = append(fields, f.Field)
			require.NotContains(t, f.Message, token)
		}
		require.Equal(t, row.fields, fields, name)
	}
}

func TestListed(t *testing.T) {
	t.Parallel()
	adapter, ok := providers.All(providers.Config{Clock: clock.System()}).For("sms", "")
	require.True(t, ok)
	require.Equal(t, "twilio", adapter.Provider())
}
