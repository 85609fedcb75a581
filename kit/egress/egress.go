// Package egress is the only way out of the program. Its dialer resolves a name
// itself, refuses every address that is not on the public Internet, and connects
// to the very address it checked, so neither a tenant's host name nor a name
// that changes between check and use can reach an internal service. Exceptions
// (private relays, the simulator) are listed explicitly.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

var (
	// ErrForbidden means that the destination has no address that may be reached.
	// The text of the returned error names the host but not what it resolved to.
	ErrForbidden = errors.New("destination is not allowed")
	// ErrPlaintext means that an unencrypted connection was asked for where only
	// encrypted ones are allowed.
	ErrPlaintext = errors.New("unencrypted connection is not allowed")
)

const (
	defaultTimeout = 10 * time.Second
	keepAlive      = 30 * time.Second
	// maxAddresses bounds how many addresses of one name are tried.
	maxAddresses = 8
)

// Resolver looks up the addresses of a name; *net.Resolver is one.
type Resolver interface {
	// LookupNetIP returns the addresses of host; network is "ip", "ip4" or "ip6".
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options configures a Dialer.
type Options struct {
	// Allow lists the exceptions to the refusal of non-public addresses.
	Allow []AllowRule
	// Resolver looks up names; nil means the system's.
	Resolver Resolver
	// Timeout bounds resolving and connecting together; 0 means 10 s.
	Timeout time.Duration
}

// Dialer opens connections to allowed destinations. It is safe for concurrent
// use.
type Dialer struct {
	allow    []AllowRule
	resolver Resolver
	timeout  time.Duration
	ranges   ranges
}

// NewDialer returns a Dialer.
func NewDialer(o Options) *Dialer {
	d := &Dialer{allow: o.Allow, resolver: o.Resolver, timeout: o.Timeout, ranges: newRanges()}
	if d.resolver == nil {
		d.resolver = net.DefaultResolver
	}
	if d.timeout <= 0 {
		d.timeout = defaultTimeout
	}
	return d
}

// DialContext connects to address ("host:port" with a numeric port) over "tcp",
// "tcp4" or "tcp6". Addresses that are not allowed are skipped; when none is
// left the error is ErrForbidden.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	family, err := familyOf(network)
	if err != nil {
		return nil, err
	}
	host, port, err := splitAddress(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	targets, err := d.targets(ctx, family, host, port)
	if err != nil {
		return nil, err
	}
	return d.dialFirst(ctx, network, targets)
}

// Exempt reports whether an explicit rule covers the address. Only there may a
// connection be unencrypted without a setting of its own.
func (d *Dialer) Exempt(at netip.AddrPort) bool {
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	for _, rule := range d.allow {
		if rule.covers(at) {
			return true
		}
	}
	return false
}

// ExemptConn reports whether the far end of the connection is Exempt.
func (d *Dialer) ExemptConn(c net.Conn) bool {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	return ok && d.Exempt(tcp.AddrPort())
}

// Allowed reports whether the dialer may connect to the address.
func (d *Dialer) Allowed(at netip.AddrPort) bool {
	return d.ranges.public(at.Addr().Unmap()) || d.Exempt(at)
}

func familyOf(network string) (string, error) {
	switch network {
	case "tcp":
		return "ip", nil
	case "tcp4":
		return "ip4", nil
	case "tcp6":
		return "ip6", nil
	default:
		return "", fmt.Errorf("dial: network %q: %w", network, ErrForbidden)
	}
}

func splitAddress(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("dial: %w", err)
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil || number == 0 || host == "" {
		return "", 0, fmt.Errorf("dial %q: want host and numeric port", address)
	}
	return host, uint16(number), nil
}

// targets resolves host and returns the addresses that may be reached.
func (d *Dialer) targets(ctx context.Context, family, host string, port uint16) ([]netip.AddrPort, error) {
	addrs, err := d.resolve(ctx, family, host)
	if err != nil {
		return nil, err
	}
	var targets []netip.AddrPort
	for _, addr := range addrs {
		at := netip.AddrPortFrom(addr.Unmap(), port)
		if d.Allowed(at) && len(targets) < maxAddresses {
			targets = append(targets, at)
		}
	}
	if len(targets) == 0 {
		return nil, fmt.Errorf("dial %s: %w", host, ErrForbidden)
	}
	return targets, nil
}

func (d *Dialer) resolve(ctx context.Context, family, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	addrs, err := d.resolver.LookupNetIP(ctx, family, host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	return addrs, nil
}

// dialFirst tries the targets in order. Each gets an equal share of the time that
// is left, so one dead address does not use it all.
func (d *Dialer) dialFirst(ctx context.Context, network string, targets []netip.AddrPort) (net.Conn, error) {
	dialer := &net.Dialer{KeepAlive: keepAlive, Timeout: d.timeout / time.Duration(len(targets)), Control: d.control}
	var failures []error
	for _, at := range targets {
		conn, err := dialer.DialContext(ctx, network, at.String())
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failures...)
}

// control looks at the address once more, right before the kernel connects.
func (d *Dialer) control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !d.Allowed(at) {
		return ErrForbidden
	}
	return nil
}
