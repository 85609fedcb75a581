// Package twilio sends text messages by Twilio's Messages resource (API version
// 2010-04-01).
//
// One message is one POST over a pooled HTTP/1.1 connection, so that a connection
// that breaks leaves one message in doubt and not many. Twilio has no idempotency
// key: from the moment the request is written a missing or unreadable answer is
// Unknown, as is a 5xx without Retry-After, and nothing is tried twice here.
//
// Twilio has no field for a reference of ours but the query of the status callback,
// which needs a webhook route; until there is one, none is asked for. The provider
// id is Twilio's sid.
package twilio

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/services/messaging/channel"
)

const (
	// Type is the channel type of this adapter.
	Type = "sms"
	// Provider is the provider of this adapter.
	Provider = "twilio"
	// BaseURL is where Twilio serves its API.
	BaseURL = channel.TwilioBaseURL
)

// Timeouts bound a request. Zero fields take the default.
type Timeouts struct {
	// Connect bounds resolving and connecting; default 5 s.
	Connect time.Duration
	// Call bounds a whole request with its answer; default 10 s.
	Call time.Duration
	// Idle is how long an unused connection is kept; default 30 s. A connection that
	// the far end closes in the moment of its use leaves a message in doubt, so it is
	// given up early.
	Idle time.Duration
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

// Adapter is the Twilio adapter.
type Adapter struct{ cfg Config }

// New returns the adapter.
func New(cfg Config) *Adapter {
	orDefault(&cfg.Timeouts.Connect, 5*time.Second)
	orDefault(&cfg.Timeouts.Call, 10*time.Second)
	orDefault(&cfg.Timeouts.Idle, 30*time.Second)
	return &Adapter{cfg: cfg}
}

func orDefault(d *time.Duration, standard time.Duration) {
	if *d <= 0 {
		*d = standard
	}
}

// Type returns "sms".
func (*Adapter) Type() string { return Type }

// Provider returns "twilio".
func (*Adapter) Provider() string { return Provider }

// Capabilities are those of Twilio's Messages resource for text messages.
func (*Adapter) Capabilities() channel.Capabilities {
	return channel.Capabilities{MaxText: maxText, MaxInFlight: channel.MaxConnections}
}

// Open checks the settings and returns a Sender for them.
func (a *Adapter) Open(s channel.Settings) (channel.Sender, error) {
	set, err := checked(s)
	if err != nil {
		return nil, err
	}
	user, password := set.AccountSID, set.AuthToken.Reveal()
	if set.APIKeySID != "" {
		user, password = set.APIKeySID, set.APIKeySecret.Reveal()
	}
	return &sender{
		cfg:      a.cfg,
		set:      set,
		user:     user,
		password: password,
		redact:   channel.NewRedactor(user+":"+password, set.AuthToken.Reveal(), set.APIKeySecret.Reveal()),
		http:     a.client(set),
		slots:    make(chan struct{}, set.Connections),
		shutdown: make(chan struct{}),
	}, nil
}

func (a *Adapter) client(set channel.TwilioSettings) *http.Client {
	way := dialer{Dialer: a.cfg.Dialer, connect: a.cfg.Timeouts.Connect, exemptOnly: set.BaseURL != BaseURL}
	return egress.NewHTTPClient(way, egress.HTTPOptions{
		Timeout: a.cfg.Timeouts.Call, MaxConnsPerHost: set.Connections, HTTP1: true, IdleTimeout: a.cfg.Timeouts.Idle, RootCAs: a.cfg.RootCAs,
	})
}

// dialer bounds the time of a connection. exemptOnly keeps a base URL of a tenant's
// own to what the operator listed, so that nobody is sent elsewhere by it.
type dialer struct {
	channel.Dialer
	connect    time.Duration
	exemptOnly bool
}

// DialContext connects to "host:port".
func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.connect)
	defer cancel()
	conn, err := d.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if d.exemptOnly && !d.ExemptConn(conn) {
		_ = conn.Close() // nothing was said on it
		return nil, fmt.Errorf("dial %s: %w", address, egress.ErrForbidden)
	}
	return conn, nil
}

// sender is the open channel.
type sender struct {
	cfg            Config
	set            channel.TwilioSettings
	user, password string
	redact         *channel.Redactor
	http           *http.Client
	// slots holds one token per request in flight.
	slots chan struct{}
	// shutdown is closed by Close.
	shutdown chan struct{}
	once     sync.Once
}

// Close ends idle connections. Running requests finish by themselves.
func (s *sender) Close() error {
	s.once.Do(func() { close(s.shutdown) })
	s.http.CloseIdleConnections()
	return nil
}
