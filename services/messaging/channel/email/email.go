// Package email sends messages by SMTP submission (RFC 5321, 6409) over pooled
// keep-alive connections.
//
// One message is one transaction: RSET (from the second message on), MAIL, RCPT
// and DATA, in one write where the server offers PIPELINING, and the content
// only after 354. So until the content goes out nothing can have been accepted,
// and a connection that turns out to be dead is replaced without risk; after the
// final dot a missing answer is Unknown.
//
// STARTTLS or TLS is required unless the settings or the operator say otherwise;
// a login is never sent in the clear without that. The provider id is the
// Message-ID, <message id@domain of the sender>, the same for every attempt.
package email

import (
	"crypto/tls"
	"crypto/x509"
	"time"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging/channel"
)

const (
	// Type is the channel type of this adapter.
	Type = "email"
	// Provider is the provider of this adapter.
	Provider = "smtp"
	// maxMessage is the longest message in bytes, as it travels.
	maxMessage = 25_000_000
)

// Timeouts bound the phases of a connection. Zero fields take the default. A
// short DataEnd is the classic source of duplicates (RFC 1047).
type Timeouts struct {
	// Connect bounds resolving, connecting and each TLS handshake; default 10 s.
	Connect time.Duration
	// Command bounds each command up to the 354 of DATA; default 60 s.
	Command time.Duration
	// DataEnd bounds sending the content and waiting for its answer; default 600 s.
	DataEnd time.Duration
	// Idle is how long an unused connection is kept; default 30 s.
	Idle time.Duration
	// Verify bounds a whole Verify; default 10 s.
	Verify time.Duration
	// Refused is how long after a refused login no other one is tried, so that a
	// wrong password does not lock the mail account; default 2 s.
	Refused time.Duration
}

// Config is what the adapter needs from the program.
type Config struct {
	// Dialer opens every connection.
	Dialer channel.Dialer
	// Clock is the time of day.
	Clock clock.Clock
	// RootCAs are the trusted certificates; nil means the system's.
	RootCAs *x509.CertPool
	// Timeouts are zero outside tests.
	Timeouts Timeouts
}

// Adapter opens SMTP channels.
type Adapter struct {
	cfg Config
}

// New returns the adapter.
func New(cfg Config) *Adapter {
	cfg.Timeouts = cfg.Timeouts.withDefaults()
	return &Adapter{cfg: cfg}
}

// Type returns "email".
func (a *Adapter) Type() string { return Type }

// Provider returns "smtp".
func (a *Adapter) Provider() string { return Provider }

// Capabilities are those of common relays, which take 25 MB; a relay that takes less
// says so itself (SIZE) and the message is refused then.
func (a *Adapter) Capabilities() channel.Capabilities {
	return channel.Capabilities{
		MaxBytes: maxMessage, MaxAttachments: 10, MaxAttachmentBytes: 15 << 20, MaxInFlight: channel.MaxConnections,
		Subject: true, HTML: true, ReplyTo: true, Unsubscribe: true,
	}
}

// Open returns a Sender for channel.EmailSettings; it is also a
// channel.Verifier. Wrong settings are an *apierr.Error naming each field.
func (a *Adapter) Open(s channel.Settings) (channel.Sender, error) {
	set, err := checked(s)
	if err != nil {
		return nil, err
	}
	from, err := newIdentity(set.FromEmail, set.FromName, set.ReplyTo)
	if err != nil {
		return nil, err
	}
	login := ""
	if set.Password.Reveal() != "" {
		login = "\x00" + set.Username + "\x00" + set.Password.Reveal() // as AUTH PLAIN has it
	}
	return &sender{
		cfg:      a.cfg,
		set:      set,
		from:     from,
		tls:      a.tlsConfig(set.Host),
		redact:   channel.NewRedactor(login, set.Password.Reveal(), set.Username),
		slots:    make(chan struct{}, set.Connections),
		freed:    make(chan struct{}, set.Connections),
		shutdown: make(chan struct{}),
	}, nil
}

func (a *Adapter) tlsConfig(host string) *tls.Config {
	return &tls.Config{
		ServerName:         host,
		RootCAs:            a.cfg.RootCAs,
		MinVersion:         tls.VersionTLS12,
		Time:               a.cfg.Clock.Now,
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
	}
}

func (t Timeouts) withDefaults() Timeouts {
	orDefault(&t.Connect, 10*time.Second)
	orDefault(&t.Command, 60*time.Second)
	orDefault(&t.DataEnd, 600*time.Second)
	orDefault(&t.Idle, 30*time.Second)
	orDefault(&t.Verify, 10*time.Second)
	orDefault(&t.Refused, 2*time.Second)
	return t
}

func orDefault(d *time.Duration, standard time.Duration) {
	if *d <= 0 {
		*d = standard
	}
}
