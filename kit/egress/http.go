package egress

import (
	"context"
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
}

// HTTPClient returns a client that connects through the dialer, uses no proxy
// and keeps no cookies. Refused calls fail with ErrForbidden or ErrPlaintext.
func (d *Dialer) HTTPClient(o HTTPOptions) *http.Client {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	transport := &http.Transport{
		Proxy:                  nil,
		DialContext:            d.dialHTTP(o.Plaintext),
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    defaultTimeout,
		ResponseHeaderTimeout:  o.Timeout,
		IdleConnTimeout:        90 * time.Second,
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

func (d *Dialer) dialHTTP(plaintext bool) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if plain, _ := ctx.Value(plainKey{}).(bool); plain && !plaintext && !d.ExemptConn(conn) {
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
