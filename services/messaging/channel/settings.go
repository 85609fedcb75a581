package channel

import (
	"github.com/turumba/turumba/kit/config"
)

// Settings are the typed settings of one channel: one struct per provider, so
// that a wrong pairing does not compile into a map of strings.
type Settings interface {
	settings()
}

// TLSMode says how an SMTP connection is protected.
type TLSMode string

// TLS modes.
const (
	// TLSStartTLS upgrades the connection and refuses to go on when the server does
	// not offer it. It is the default.
	TLSStartTLS TLSMode = "starttls"
	// TLSImplicit speaks TLS from the first byte (port 465).
	TLSImplicit TLSMode = "implicit"
	// TLSNone does not encrypt. It works only with AllowPlaintext or towards
	// addresses that the operator exempted.
	TLSNone TLSMode = "none"
)

const (
	// DefaultMaxPerConnection is how many messages one SMTP connection carries when
	// the channel says nothing.
	DefaultMaxPerConnection = 100
	// MaxConnections bounds the connections of a channel.
	MaxConnections = 256
)

// EmailSettings are the settings of an SMTP channel.
type EmailSettings struct {
	// Host and Port name the relay. Host is also the name its certificate must carry.
	Host string
	// Port is 1 to 65535.
	Port int
	// Username and Password log in; an empty Username means no login.
	Username string
	// Password is never printed.
	Password config.Secret
	// TLS is how the connection is protected; empty means TLSStartTLS.
	TLS TLSMode
	// AllowPlaintext permits TLSNone, also for the login.
	AllowPlaintext bool
	// FromEmail is the sender's address, FromName the display name beside it.
	FromEmail, FromName string
	// ReplyTo is an address; may be empty.
	ReplyTo string
	// Connections is how many connections may be open at once; 0 means 1.
	Connections int
	// MaxPerConnection is how many messages a connection carries before it is
	// replaced; 0 means no limit.
	MaxPerConnection int
	// HeloName is the name given in EHLO; empty means the local address in brackets.
	HeloName string
}

func (EmailSettings) settings() {}

// TwilioBaseURL is where Twilio serves its API.
const TwilioBaseURL = "https://api.twilio.com"

// TwilioSettings are the settings of a Twilio account that sends text messages. It
// logs in with AuthToken, or with an API key where APIKeySID is set.
type TwilioSettings struct {
	// AccountSID is AC and 32 hex digits.
	AccountSID string
	// AuthToken is the account's own token; never printed.
	AuthToken config.Secret
	// APIKeySID is SK and 32 hex digits, APIKeySecret what belongs to it.
	APIKeySID    string
	APIKeySecret config.Secret
	// From is a phone number, a short code or a sender name; MessagingServiceSID, MG
	// and 32 hex digits, a service that chooses one. One of them is needed.
	From, MessagingServiceSID string
	// BaseURL replaces Twilio's own, scheme and host only. It reaches nothing but what
	// the operator exempted.
	BaseURL string
	// Connections is how many requests may be open at once; 0 means 1.
	Connections int
}

func (TwilioSettings) settings() {}
