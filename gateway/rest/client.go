package rest

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// clientAddress finds the address of the client and tells it alone to the
// services: the peer's, or, when the peer is a trusted proxy, the nearest address
// in X-Forwarded-For that is none. What a client writes there itself decides
// nothing.
func clientAddress(trusted []netip.Prefix, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hops := r.Header["X-Forwarded-For"]
		for _, name := range [...]string{"X-Forwarded-For", "Forwarded", "X-Real-Ip"} {
			delete(r.Header, name) // Del would write the names once more
		}
		if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && (len(hops) > 0 || peer.Addr().Is4In6()) {
			// The transcoder takes the client's address from here.
			r.RemoteAddr = net.JoinHostPort(clientOf(peer.Addr().Unmap(), hops, trusted).String(), "0")
		}
		next.ServeHTTP(w, r)
	})
}

// clientOf walks the hops from the nearest on while they are trusted.
func clientOf(client netip.Addr, hops []string, trusted []netip.Prefix) netip.Addr {
	list := strings.Split(strings.Join(hops, ","), ",")
	for _, hop := range slices.Backward(list) {
		if !slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(client) }) {
			return client
		}
		addr, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			return client
		}
		client = addr.Unmap()
	}
	return client
}
