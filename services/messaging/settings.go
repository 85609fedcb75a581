package messaging

import (
	"fmt"
	"time"

	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging/channel"
)

// secretPassword is the name of the SMTP password among a channel's secrets.
const secretPassword = "password"

func (c *Channel) aad(field string) vault.AAD {
	return vault.AAD{Account: c.AccountID, Resource: c.ID, Field: field, Version: 1}
}

// SetPassword seals the password into the channel; an empty one removes it.
func (c *Channel) SetPassword(v *vault.Vault, password string, now time.Time) error {
	if c.Sealed == nil {
		c.Sealed, c.Secrets = map[string][]byte{}, map[string]Secret{}
	}
	if password == "" {
		delete(c.Sealed, secretPassword)
		delete(c.Secrets, secretPassword)
		return nil
	}
	sealed, err := v.Seal(c.aad(secretPassword), []byte(password))
	if err != nil {
		return fmt.Errorf("seal the channel's password: %w", err)
	}
	c.Sealed[secretPassword] = sealed
	c.Secrets[secretPassword] = Secret{Fingerprint: v.Fingerprint([]byte(password)), UpdatedAt: now}
	return nil
}

// Settings opens the channel's secrets and returns what its adapter needs.
func (c *Channel) Settings(v *vault.Vault) (channel.Settings, error) {
	var password []byte
	if sealed, ok := c.Sealed[secretPassword]; ok {
		var err error
		if password, err = v.Open(c.aad(secretPassword), sealed); err != nil {
			return nil, fmt.Errorf("open the password of channel %s: %w", c.ID, err)
		}
	}
	name := c.SMTP.FromName
	if name == "" {
		name = c.SenderName
	}
	return channel.EmailSettings{
		Host: c.SMTP.Host, Port: c.SMTP.Port, Username: c.SMTP.Username, Password: config.Secret(password),
		TLS: channel.TLSMode(c.SMTP.TLSMode), AllowPlaintext: c.SMTP.AllowPlaintext,
		FromEmail: c.SMTP.From(), FromName: name, ReplyTo: c.SMTP.ReplyTo,
		Connections: int(c.Connections), MaxPerConnection: channel.DefaultMaxPerConnection,
	}, nil
}
