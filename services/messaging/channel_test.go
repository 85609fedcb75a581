package messaging_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// TestStoredCredentials: what earlier versions stored is still read, and each kind
// comes back as it was.
func TestStoredCredentials(t *testing.T) {
	t.Parallel()
	for stored, want := range map[string]messaging.Credentials{
		`{"host":"mail.example.org","port":587,"tls_mode":"starttls","from_email":"a@example.org"}`: {
			SMTP: &messaging.SMTP{Host: "mail.example.org", Port: 587, TLSMode: "starttls", FromEmail: "a@example.org"},
		},
		`{"twilio":{"account_sid":"AC1","from_number":"+15550001111"}}`: {
			Twilio: &messaging.Twilio{AccountSID: "AC1", FromNumber: "+15550001111"},
		},
	} {
		var got messaging.Credentials
		require.NoError(t, json.Unmarshal([]byte(stored), &got))
		require.Equal(t, want, got)
		again, err := json.Marshal(got)
		require.NoError(t, err)
		require.JSONEq(t, stored, string(again))
	}
}

// TestSecretsOfAChannel: they are sealed for their channel and field, shown by a
// fingerprint, and reach the adapter's settings only.
func TestSecretsOfAChannel(t *testing.T) {
	t.Parallel()
	v, err := vault.New(bytes.Repeat([]byte{7}, 32))
	require.NoError(t, err)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := &messaging.Channel{
		ID: messaging.NewID(), AccountID: messaging.NewID(), Connections: 4,
		Credentials: messaging.Credentials{Twilio: &messaging.Twilio{AccountSID: "AC1", APIKeySID: "SK1", FromNumber: "+15550001111", BaseURL: "http://127.0.0.1:1"}},
	}
	require.NoError(t, c.SetSecret(v, messaging.SecretAuthToken, "canary-token", now))
	require.NoError(t, c.SetSecret(v, messaging.SecretAPIKeySecret, "canary-secret", now))
	require.Equal(t, now, c.Secrets[messaging.SecretAuthToken].UpdatedAt)
	raw, err := json.Marshal(c)
	require.NoError(t, err)
	require.NotContains(t, string(raw), "canary")

	settings, err := c.Settings(v)
	require.NoError(t, err)
	require.Equal(t, channel.TwilioSettings{
		AccountSID: "AC1", AuthToken: "canary-token", APIKeySID: "SK1", APIKeySecret: "canary-secret", From: "+15550001111", BaseURL: "http://127.0.0.1:1", Connections: 4,
	}, settings)

	c.Sealed[messaging.SecretAuthToken] = c.Sealed[messaging.SecretAPIKeySecret]
	_, err = c.Settings(v)
	require.ErrorContains(t, err, "auth_token", "a secret is no other field's")
	require.NoError(t, c.SetSecret(v, messaging.SecretAuthToken, "", now))
	require.NotContains(t, c.Secrets, messaging.SecretAuthToken)
	settings, err = c.Settings(v)
	require.NoError(t, err)
	require.Empty(t, settings.(channel.TwilioSettings).AuthToken)

	_, err = (&messaging.Channel{}).Settings(v)
	require.ErrorContains(t, err, "no credentials")
}

// TestMaskedSecretsAreRefused: what a program shows instead of a secret is not stored
// as one.
func TestMaskedSecretsAreRefused(t *testing.T) {
	t.Parallel()
	v, err := vault.New(bytes.Repeat([]byte{7}, 32))
	require.NoError(t, err)
	c := &messaging.Channel{ID: messaging.NewID(), AccountID: messaging.NewID(), Provider: messaging.ProviderTwilio}
	now := time.Unix(0, 0)
	require.NoError(t, c.SetSecret(v, messaging.SecretAuthToken, "a true one", now))
	before := c.Sealed[messaging.SecretAuthToken]
	for _, value := range []string{"***", "********", "••••••", "●●●", "sk_live_****1234", "ab***", "****wxyz"} {
		err := c.SetSecret(v, messaging.SecretAuthToken, value, now)
		require.Error(t, err, value)
		require.Equal(t, "credentials.twilio.auth_token", apierr.From(err).Fields[0].Field)
		require.NotContains(t, err.Error(), value)
	}
	require.Equal(t, before, c.Sealed[messaging.SecretAuthToken])
	for _, value := range []string{"**", "pass*word", "a*b*c*d", "a very long one ***", "***and then more"} {
		require.NoError(t, c.SetSecret(v, messaging.SecretAuthToken, value, now), value)
	}
}

// TestHosts: a host is a name or an address, and nothing beside it.
func TestHosts(t *testing.T) {
	t.Parallel()
	for host, good := range map[string]bool{
		"smtp.example.org": true, "SMTP.Example.org.": true, "localhost": true, "127.0.0.1": true, "::1": true, "fe80::1%eth0": true, "mail_1.example.org": true,
		"http://smtp.example.org": false, "smtp.example.org:587": false, "[::1]": false, "smtp.example.org/": false, "user@smtp.example.org": false, "a b": false, "a..b": false, ".": false,
	} {
		s := messaging.SMTP{Host: host, FromEmail: "a@b.example", TLSMode: "starttls"}
		require.Equal(t, good, s.Check() == nil, "%s: %v", host, s.Check())
	}
}
