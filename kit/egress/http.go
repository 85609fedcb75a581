package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

const maxRedirects = 3

// HTTPOptions configures an HTTP client.
type HTTPOptions struct {
	// Timeout bounds a whole call including reading the body; 0 means 30 s.
	Timeout time.Duration
	// MaxConnsPerHost bounds the connections to one host; 0 means no bound.
	MaxConnsPerHost int
	// Plaintext allows http:// everywhere; otherwise it is allowed only to
	// addresses that an AllowRule covers.
	Plaintext bool
	// FollowRedirects follows up to three redirects, never from https to http and
	// never to another host with the Authorization header; otherwise the redirect
	// itself is the response.
	FollowRedirects bool
	// HTTP1 keeps to HTTP/1.1, so that a connection that breaks takes one call with
	// it and not many.
	HTTP1 bool
	// IdleTimeout is how long an unused connection is kept; 0 means 90 s.
	IdleTimeout time.Duration
	// RootCAs are the trusted certificates; nil means the system's.
	RootCAs *x509.CertPool
}

// Conns opens the connections of an HTTP client; *Dialer is the only one outside
// tests.
type Conns interface {
	// DialContext connects to "host:port", or refuses with ErrForbidden.
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	// ExemptConn reports whether an explicit rule covers the far end.
	ExemptConn(c net.Conn) bool
}

// HTTPClient is NewHTTPClient over the dialer.
func (d *Dialer) HTTPClient(o HTTPOptions) *http.Client { return NewHTTPClient(d, o) }

// NewHTTPClient returns a client that connects by conns only, uses no proxy and
// keeps no cookies. Refused calls fail with ErrForbidden or ErrPlaintext.
func NewHTTPClient(conns Conns, o HTTPOptions) *http.Client {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = 90 * time.Second
	}
	transport := &http.Transport{
		Proxy:                  nil,
		DialContext:            dialHTTP(conns, o.Plaintext),
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		ForceAttemptHTTP2:      !o.HTTP1,
		TLSHandshakeTimeout:    defaultTimeout,
		ResponseHeaderTimeout:  o.Timeout,
		IdleConnTimeout:        o.IdleTimeout,
		MaxIdleConns:           100,
		MaxIdleConnsPerHost:    16,
		MaxConnsPerHost:        o.MaxConnsPerHost,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &http.Client{
		Timeout:       o.Timeout,
		Transport:     schemeTransport{next: transport},
		CheckRedirect: redirectPolicy(o.FollowRedirects),
	}
}

// plainKey marks the context of a request whose scheme is http.
type plainKey struct{}

// schemeTransport tells the dialer whether the connection will be encrypted.
type schemeTransport struct{ next *http.Transport }

// RoundTrip runs one request.
func (t schemeTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" {
		r = r.WithContext(context.WithValue(r.Context(), plainKey{}, true))
	}
	return t.next.RoundTrip(r)
}

// CloseIdleConnections lets http.Client close what is idle.
func (t schemeTransport) CloseIdleConnections() { t.next.CloseIdleConnections() }

func dialHTTP(conns Conns, plaintext bool) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := conns.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if plain, _ := ctx.Value(plainKey{}).(bool); plain && !plaintext && !conns.ExemptConn(conn) {
			return nil, errors.Join(fmt.Errorf("dial %s: %w", address, ErrPlaintext), conn.Close())
		}
		return conn, nil
	}
}

func redirectPolicy(follow bool) func(*http.Request, []*http.Request) error {
	return func(next *http.Request, via []*http.Request) error {
		switch {
		case !follow:
			return http.ErrUseLastResponse
		case len(via) > maxRedirects:
			return fmt.Errorf("stopped after %d redirects", maxRedirects)
		case via[len(via)-1].URL.Scheme == "https" && next.URL.Scheme != "https":
			return ErrPlaintext
		}
		if next.URL.Host != via[0].URL.Host {
			next.Header.Del("Authorization")
		}
		return nil
	}
}
