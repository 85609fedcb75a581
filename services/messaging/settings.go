package messaging

import (
	"fmt"
	"regexp"
	"time"

	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging/channel"
)

// The names of secrets among those of a channel, as the contract has them.
const (
	SecretPassword     = "password"
	SecretAuthToken    = "auth_token"
	SecretAPIKeySecret = "api_key_secret"
)

func (c *Channel) aad(field string) vault.AAD {
	return vault.AAD{Account: c.AccountID, Resource: c.ID, Field: field, Version: 1}
}

// masked is what programs show instead of a secret: a short beginning, stars or dots,
// and a short end. One that is sent back must not become the secret.
var masked = regexp.MustCompile(`^[^*•●]{0,8}[*•●]{3,}[^*•●]{0,4}$`)

// SetSecret seals a secret into the channel; an empty one removes it, a masked one is
// refused.
func (c *Channel) SetSecret(v *vault.Vault, name, value string, now time.Time) error {
	if c.Sealed == nil {
		c.Sealed, c.Secrets = map[string][]byte{}, map[string]Secret{}
	}
	if value == "" {
		delete(c.Sealed, name)
		delete(c.Secrets, name)
		return nil
	}
	if masked.MatchString(value) {
		return invalidText("credentials."+c.Provider+"."+name, "is a masked value; leave it out to keep the secret, or send the secret itself")
	}
	sealed, err := v.Seal(c.aad(name), []byte(value))
	if err != nil {
		return fmt.Errorf("seal the channel's %s: %w", name, err)
	}
	c.Sealed[name] = sealed
	c.Secrets[name] = Secret{Fingerprint: v.Fingerprint([]byte(value)), UpdatedAt: now}
	return nil
}

// Rewrap wraps the secrets by the vault's current key, and reports whether that changed
// anything.
func (c *Channel) Rewrap(v *vault.Vault) (changed bool, err error) {
	for name, sealed := range c.Sealed {
		again, other, err := v.Rewrap(c.aad(name), sealed)
		if err != nil {
			return false, fmt.Errorf("wrap the %s of channel %s: %w", name, c.ID, err)
		}
		c.Sealed[name], changed = again, changed || other
	}
	return changed, nil
}

// secrets opens all secrets of the channel.
func (c *Channel) secrets(v *vault.Vault) (map[string]config.Secret, error) {
	open := make(map[string]config.Secret, len(c.Sealed))
	for name, sealed := range c.Sealed {
		value, err := v.Open(c.aad(name), sealed)
		if err != nil {
			return nil, fmt.Errorf("open the %s of channel %s: %w", name, c.ID, err)
		}
		open[name] = config.Secret(value)
	}
	return open, nil
}

// Settings opens the channel's secrets and returns what its adapter needs.
func (c *Channel) Settings(v *vault.Vault) (channel.Settings, error) {
	secrets, err := c.secrets(v)
	if err != nil {
		return nil, err
	}
	switch {
	case c.Credentials.SMTP != nil:
		return c.smtpSettings(secrets), nil
	case c.Credentials.Twilio != nil:
		return c.twilioSettings(secrets), nil
	}
	return nil, fmt.Errorf("channel %s has no credentials", c.ID)
}

func (c *Channel) smtpSettings(secrets map[string]config.Secret) channel.EmailSettings {
	s := c.Credentials.SMTP
	name := s.FromName
	if name == "" {
		name = c.SenderName
	}
	return channel.EmailSettings{
		Host: s.Host, Port: s.Port, Username: s.Username, Password: secrets[SecretPassword],
		TLS: channel.TLSMode(s.TLSMode), AllowPlaintext: s.AllowPlaintext,
		FromEmail: s.From(), FromName: name, ReplyTo: s.ReplyTo,
		Connections: int(c.Connections), MaxPerConnection: channel.DefaultMaxPerConnection,
	}
}

func (c *Channel) twilioSettings(secrets map[string]config.Secret) channel.TwilioSettings {
	t := c.Credentials.Twilio
	return channel.TwilioSettings{
		AccountSID: t.AccountSID, AuthToken: secrets[SecretAuthToken], APIKeySID: t.APIKeySID, APIKeySecret: secrets[SecretAPIKeySecret],
		From: t.FromNumber, MessagingServiceSID: t.MessagingServiceSID, BaseURL: t.BaseURL, Connections: int(c.Connections),
	}
}
