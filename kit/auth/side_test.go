package auth_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/auth"
)

// TestSide: a subscriber is one side, however they write and choose their address.
func TestSide(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]string{
		"203.0.113.7": "203.0.113.7/32", "::ffff:203.0.113.7": "203.0.113.7/32", "203.0.113.8": "203.0.113.8/32",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "2001:DB8:1:2::": "2001:db8:1:2::/64", "2001:db8:1:3::1": "2001:db8:1:3::/64",
		"fe80::1%eth0": "fe80::/64", "::1": "::/64", "": "", "nonsense": "", "203.0.113.7:80": "",
	} {
		require.Equal(t, want, auth.Client{IP: ip}.Side().String(), ip)
	}
	for ip, want := range map[string]string{
		"2002:cb00:7107::1": "203.0.113.7/32", "2002:cb00:7107:ffff:1:2:3:4": "203.0.113.7/32", "2002:cb00:7108::1": "203.0.113.8/32",
		"2001:0:4136:e378:8000:63bf:34ff:8ef8": "203.0.113.7/32", "2001:0:1:2:3:4:34ff:8ef8": "203.0.113.7/32", "2001:0:4136:e378:8000:63bf:34ff:8ef7": "203.0.113.8/32",
		"2001:1:4136:e378:8000:63bf:34ff:8ef8": "2001:1:4136:e378::/64",
		"64:ff9b::203.0.113.7":                 "203.0.113.7/32", "64:ff9b::1:203.0.113.7": "64:ff9b::/64", "64:ff9b:1::203.0.113.7": "64:ff9b:1::/64",
		"::203.0.113.7": "203.0.113.7/32", "::": "::/64", "::ffff:0:203.0.113.7": "::/64", "2003:cb00:7107::1": "2003:cb00:7107::/64",
	} {
		require.Equal(t, want, auth.Client{IP: ip}.Side().String(), ip)
	}
	require.Equal(t, auth.Client{IP: "::ffff:198.51.100.1"}.Side(), auth.Client{IP: "198.51.100.1"}.Side())
	require.Equal(t, auth.Client{IP: "2001:db8::1"}.Side(), auth.Client{IP: "2001:db8::ffff:1"}.Side())
	require.Zero(t, auth.Client{}.Side())
}

// TestNetwork: sides that are given out together are one network.
func TestNetwork(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]string{
		"203.0.113.7": "203.0.113.0/24", "::ffff:203.0.113.8": "203.0.113.0/24", "2001:db8:1:2:3:4:5:6": "2001:db8:1::/48", "": "",
	} {
		require.Equal(t, want, auth.Client{IP: ip}.Side().Network().String(), ip)
	}
}
