package messaging

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/secrets"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging/channel"
)

// The names of the secrets that adapters take, as the contract has them.
const (
	SecretPassword     = "password"
	SecretAuthToken    = "auth_token"
	SecretAPIKeySecret = "api_key_secret"
)

// aad is the place of a secret of the channel as it is now: a secret that was sealed
// for another destination does not open.
func (c *Channel) aad(field string) vault.AAD {
	return vault.AAD{Account: c.AccountID, Resource: c.ID, Field: field, Version: 1, Destination: c.Credentials.Destination()}
}

// masked is what programs show instead of a secret: a short beginning, stars or dots,
// and a short end. One that is sent back must not become the secret.
var masked = regexp.MustCompile(`^[^*•●]{0,8}[*•●]{3,}[^*•●]{0,4}$`)

// ChangeCredentials lets change alter the credentials; it returns the secrets that come
// with the change, by field name, of which an empty one removes what is stored. A secret
// belongs to its destination (ADR 0042): where that changes, every stored secret must come
// again, or nothing may change: SECRET_REQUIRED names those that did not.
func (c *Channel) ChangeCredentials(v *vault.Vault, now time.Time, change func(*Credentials) (given map[string]string, err error)) error {
	before, was := c.Credentials.canonical(), c.Credentials.Destination()
	given, err := change(&c.Credentials)
	if err != nil {
		return err
	}
	kept := map[string][]byte{}
	for name, sealed := range c.Sealed {
		if _, again := given[name]; !again {
			kept[name] = sealed
		}
	}
	if len(kept) > 0 && !bytes.Equal(was, c.Credentials.Destination()) {
		return c.secretRequired(slices.Sorted(maps.Keys(kept)), secrets.Changed(before, c.Credentials.canonical()))
	}
	if _, err := c.rewrap(v, kept); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if err := c.SetSecret(v, name, given[name], now); err != nil {
			return err
		}
	}
	return nil
}

// Check reports what keeps the channel from working, or stays unused.
func (c *Channel) Check() error {
	if err := c.Credentials.Check(); err != nil {
		return err
	}
	if smtp := c.Credentials.SMTP; smtp != nil && smtp.Username == "" && len(c.Sealed[SecretPassword]) > 0 {
		return invalidText("credentials.smtp.username", "is needed where there is a password; an empty password removes it")
	}
	return nil
}

// secretRequired names the secrets that must come again, and what changed.
func (c *Channel) secretRequired(names, changed []string) error {
	fields := make([]apierr.Field, len(names))
	for i, name := range names {
		fields[i] = apierr.Field{Field: "credentials." + c.Provider + "." + name, Message: "must be sent again, because " + strings.Join(changed, ", ") + " changed"}
	}
	return apierr.New(errorv1.Reason_REASON_SECRET_REQUIRED, "a stored secret does not follow where its destination changes").WithFields(fields...)
}

// SetSecret seals a secret into the channel, for its destination as it is now; an empty
// one removes it, a masked one is refused.
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
		return invalidText("credentials."+c.Provider+"."+name, "is a masked value; send the secret itself, or leave it out to keep the stored one where nothing changes that it was given for")
	}
	sealed, err := v.Seal(c.aad(name), []byte(value))
	if err != nil {
		return fmt.Errorf("seal the channel's %s: %w", name, err)
	}
	c.Sealed[name] = sealed
	c.Secrets[name] = Secret{Fingerprint: v.Fingerprint(c.aad(name), []byte(value)), UpdatedAt: now}
	return nil
}

// Rewrap wraps the secrets by the vault's current key and binds those that were sealed
// without their destination to it, and reports whether that changed anything. The caller
// holds the lock of the channel's row.
func (c *Channel) Rewrap(v *vault.Vault) (changed bool, err error) { return c.rewrap(v, c.Sealed) }

func (c *Channel) rewrap(v *vault.Vault, list map[string][]byte) (changed bool, err error) {
	for name, sealed := range list {
		again, other, err := v.Rewrap(c.aad(name), sealed)
		if err != nil {
			return false, fmt.Errorf("wrap the %s of channel %s: %w", name, c.ID, err)
		}
		c.Sealed[name], changed = again, changed || other
	}
	return changed, nil
}

// Unbound reports whether a secret was sealed without its destination, as versions before
// ADR 0042 did. Such a channel cannot be used before Rewrap.
func (c *Channel) Unbound(v *vault.Vault) bool {
	for name, sealed := range c.Sealed {
		if v.Unbound(c.aad(name), sealed) {
			return true
		}
	}
	return false
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
	s := canonicalSMTP(*c.Credentials.SMTP)
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
	t := canonicalTwilio(*c.Credentials.Twilio)
	return channel.TwilioSettings{
		AccountSID: t.AccountSID, AuthToken: secrets[SecretAuthToken], APIKeySID: t.APIKeySID, APIKeySecret: secrets[SecretAPIKeySecret],
		From: t.FromNumber, MessagingServiceSID: t.MessagingServiceSID, BaseURL: t.BaseURL, Connections: int(c.Connections),
	}
}
