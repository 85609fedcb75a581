// Package providers is the explicit list of the adapters that exist.
package providers

import (
	"crypto/x509"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/channel/email"
	"github.com/turumba/turumba/services/messaging/channel/twilio"
)

// Config is what adapters need from the program.
type Config struct {
	// Dialer is the way out.
	Dialer channel.Dialer
	// Clock is the time of day.
	Clock clock.Clock
	// RootCAs are trusted certificates; nil means the system's.
	RootCAs *x509.CertPool
}

// All returns every adapter.
func All(cfg Config) channel.Adapters {
	return channel.Adapters{
		email.New(email.Config{Dialer: cfg.Dialer, Clock: cfg.Clock, RootCAs: cfg.RootCAs}),
		twilio.New(twilio.Config{Dialer: cfg.Dialer, Clock: cfg.Clock, RootCAs: cfg.RootCAs}),
	}
}
