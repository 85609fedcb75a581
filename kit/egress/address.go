package egress

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// AllowRule exempts a range of addresses from the refusal of private ones.
type AllowRule struct {
	// Prefix is the range of addresses.
	Prefix netip.Prefix
	// Port is the only port that the rule covers; 0 covers all.
	Port uint16
}

// ParseAllow reads a comma-separated list of CIDR:port rules, for example
// "127.0.0.1/32:1025,[fd00::]/8:*". A single address stands for itself; the port
// "*" covers all ports. An empty text is an empty list.
func ParseAllow(text string) ([]AllowRule, error) {
	var rules []AllowRule
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		rule, err := parseRule(part)
		if err != nil {
			return nil, fmt.Errorf("parse %q: %w", part, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

func parseRule(text string) (AllowRule, error) {
	colon := strings.LastIndexByte(text, ':')
	if colon < 0 {
		return AllowRule{}, fmt.Errorf("want CIDR:port")
	}
	port, err := parsePort(text[colon+1:])
	if err != nil {
		return AllowRule{}, err
	}
	prefix, err := parsePrefix(strings.NewReplacer("[", "", "]", "").Replace(text[:colon]))
	if err != nil {
		return AllowRule{}, err
	}
	return AllowRule{Prefix: prefix, Port: port}, nil
}

func parsePort(text string) (uint16, error) {
	if text == "*" {
		return 0, nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("the port must be 1 to 65535 or *")
	}
	return uint16(port), nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("read address: %w", err)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("read range: %w", err)
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("write IPv4 ranges as IPv4")
	}
	return prefix.Masked(), nil
}

func (r AllowRule) covers(at netip.AddrPort) bool {
	return (r.Port == 0 || r.Port == at.Port()) && r.Prefix.Contains(at.Addr())
}

// special4 lists the IPv4 ranges that are not the public Internet.
func special4() []string {
	return []string{
		"0.0.0.0/8",       // this network
		"10.0.0.0/8",      // private
		"100.64.0.0/10",   // carrier-grade NAT
		"127.0.0.0/8",     // loopback
		"169.254.0.0/16",  // link-local, cloud metadata
		"172.16.0.0/12",   // private
		"192.0.0.0/24",    // protocol assignments
		"192.0.2.0/24",    // documentation
		"192.88.99.0/24",  // 6to4 relays
		"192.168.0.0/16",  // private
		"198.18.0.0/15",   // benchmarks
		"198.51.100.0/24", // documentation
		"203.0.113.0/24",  // documentation
		"224.0.0.0/4",     // multicast
		"240.0.0.0/4",     // reserved, broadcast
	}
}

// special6 lists the ranges inside 2000::/3 that are not the public Internet;
// outside 2000::/3 nothing is, except NAT64.
func special6() []string {
	return []string{
		"2001::/23",     // protocol assignments, Teredo among them
		"2001:db8::/32", // documentation
		"2002::/16",     // 6to4: carries any IPv4 address
		"3fff::/20",     // documentation
	}
}

// ranges holds the parsed tables; it is built once per Dialer.
type ranges struct {
	special []netip.Prefix
	global6 netip.Prefix
	nat64   netip.Prefix
}

func newRanges() ranges {
	r := ranges{
		global6: netip.MustParsePrefix("2000::/3"),
		nat64:   netip.MustParsePrefix("64:ff9b::/96"),
	}
	for _, text := range append(special4(), special6()...) {
		r.special = append(r.special, netip.MustParsePrefix(text))
	}
	return r
}

// public reports whether addr, already unmapped, is on the public Internet.
func (r ranges) public(addr netip.Addr) bool {
	if !addr.IsValid() || addr.Zone() != "" {
		return false
	}
	if r.nat64.Contains(addr) {
		bytes := addr.As16()
		return r.public(netip.AddrFrom4([4]byte(bytes[12:])))
	}
	if addr.Is6() && !r.global6.Contains(addr) {
		return false
	}
	for _, p := range r.special {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}
