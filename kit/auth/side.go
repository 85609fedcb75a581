package auth

import (
	"net"
	"net/netip"
)

// Side is from where somebody asks, as limits tell callers apart before it is known who
// they are: an IPv4 address, also where an IPv6 address is made of it, or the /64 of another
// IPv6 address, all of which one subscriber has. Limits take sides and no addresses, so that none of them counts an attacker's 2^64
// addresses one by one (ADR 0050). The zero Side is everybody of whom nothing is known.
type Side struct{ prefix netip.Prefix }

// sideBits is how many bits of an IPv6 address are the subscriber's network.
const sideBits = 64

// Side is from where the call came.
func (c Client) Side() Side {
	addr, err := netip.ParseAddr(c.IP)
	if err != nil {
		return Side{}
	}
	return SideOf(addr)
}

// network4Bits and network6Bits are the networks around sides, as they are given out: an IPv4 /24, an IPv6 /48.
const network4Bits, network6Bits = 24, 48

// Network is what is around a side: who has one side has others there easily.
func (s Side) Network() Side {
	if !s.prefix.IsValid() {
		return s
	}
	bits := network4Bits
	if s.prefix.Addr().Is6() {
		bits = network6Bits
	}
	return Side{netip.PrefixFrom(s.prefix.Addr(), bits).Masked()}
}

// within are the IPv6 addresses that are made of an IPv4 address, which has 2^16 networks of
// 6to4 and as many ports of Teredo: where in them it stands, and whether it is inverted.
var within = []struct {
	prefix   netip.Prefix
	at       int
	inverted bool
}{
	{netip.MustParsePrefix("2002::/16"), 2, false},     // 6to4, RFC 3056
	{netip.MustParsePrefix("2001::/32"), 12, true},     // Teredo, RFC 4380: the client's
	{netip.MustParsePrefix("64:ff9b::/96"), 12, false}, // NAT64, RFC 6052
	{netip.MustParsePrefix("::/96"), 12, false},        // IPv4-compatible, RFC 4291, but for ::1
}

// unwrap is the IPv4 address that an IPv6 address is made of, else the address itself.
func unwrap(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	for _, in := range within {
		if addr.IsLoopback() || addr.IsUnspecified() || !in.prefix.Contains(addr) {
			continue
		}
		all := addr.As16()
		v4 := [4]byte(all[in.at : in.at+4])
		if in.inverted {
			for i := range v4 {
				v4[i] = ^v4[i]
			}
		}
		return netip.AddrFrom4(v4)
	}
	return addr
}

// SideOf is the side of an address. All IPv6 addresses that are made of an IPv4 address are
// its side.
func SideOf(addr netip.Addr) Side {
	addr = unwrap(addr)
	if !addr.IsValid() {
		return Side{}
	}
	bits := addr.BitLen()
	if addr.Is6() {
		bits = sideBits
	}
	return Side{netip.PrefixFrom(addr, bits).Masked()}
}

// SideOfPeer is the side of the other end of a connection; those of other networks than IP
// are one.
func SideOfPeer(addr net.Addr) Side {
	peer, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return Side{}
	}
	return SideOf(peer.Addr())
}

// String is the network in CIDR notation; empty for the zero Side.
func (s Side) String() string {
	if !s.prefix.IsValid() {
		return ""
	}
	return s.prefix.String()
}
