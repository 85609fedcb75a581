package auth

import (
	"net"
	"net/netip"
)

// Side is from where somebody asks, as limits tell callers apart before it is known who
// they are: an IPv4 address, or the /64 of an IPv6 address, all of which one subscriber
// has. Limits take sides and no addresses, so that none of them counts an attacker's 2^64
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

// SideOf is the side of an address. An IPv4 address that is written as an IPv6 one is the
// same side.
func SideOf(addr netip.Addr) Side {
	addr = addr.Unmap().WithZone("")
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
