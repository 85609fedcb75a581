// Package channel is the contract between the dispatch loop and the adapters
// that speak to providers. The adapter classifies, the loop decides: Send says
// what happened to one message (Outcome) and why (Class), and never retries,
// waits, pauses a channel or writes a status by itself.
package channel

import (
	"context"
	"net"
)

// Adapter knows one provider. It holds no connection; Open makes what does.
// Adapters are safe for concurrent use.
type Adapter interface {
	// Type is the kind of channel, for example "email".
	Type() string
	// Provider is who carries the messages, for example "smtp".
	Provider() string
	// Capabilities are what every channel of the adapter can do; they never change.
	Capabilities() Capabilities
	// Open checks the settings and returns a Sender for one channel. It does not
	// touch the network. The error is an *apierr.Error naming the fields, or says
	// that the settings are those of another adapter.
	Open(Settings) (Sender, error)
}

// Sender sends the messages of one channel over pooled connections. It is safe
// for concurrent use. A change of the channel's settings needs a new Sender.
type Sender interface {
	// Send hands one message to the provider and reports what happened. It never
	// panics on bad content and always returns a Result whose outcome is true:
	// Unknown when the provider may have the message, NotSent only when it cannot.
	// When ctx ends the attempt stops; give ctx more time than the provider's own
	// limits, because a stop after the message was handed over is Unknown.
	Send(ctx context.Context, m Message) Result
	// Close ends idle connections and lets running sends finish by themselves.
	// A later Send is NotSent. Close may be called more than once.
	Close() error
}

// Verifier is a Sender that can check its settings without sending anything.
type Verifier interface {
	// Verify connects and logs in within 10 s. The Result is Accepted with ClassOK,
	// or NotSent with a class and a fixed text that repeats nothing the far end
	// said and does not tell a closed port from a filtered or forbidden one.
	Verify(ctx context.Context) Result
}

// Dialer opens the connections of an adapter; *egress.Dialer is the only one
// outside tests.
type Dialer interface {
	// DialContext connects to "host:port", or refuses with egress.ErrForbidden.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	// ExemptConn reports whether the operator listed the far end as private, the
	// only place where a connection may be unencrypted without a channel setting.
	ExemptConn(c net.Conn) bool
}

// Adapters is the list of adapters a program knows.
type Adapters []Adapter

// For returns the adapter of the channel type and provider. An empty provider
// means the first adapter of the type.
func (a Adapters) For(channelType, provider string) (Adapter, bool) {
	for _, adapter := range a {
		if adapter.Type() == channelType && (provider == "" || adapter.Provider() == provider) {
			return adapter, true
		}
	}
	return nil, false
}
