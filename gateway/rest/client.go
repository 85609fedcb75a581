package rest

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/turumba/turumba/kit/clock"
)

// tellAgain is how long it is not told again that a peer's X-Forwarded-For does not count.
const tellAgain = time.Minute

// untrusted tells of addresses of clients that are not believed. Behind a load balancer
// that is not in TRUSTED_PROXIES, all clients are one, and share the limits of one.
type untrusted struct {
	log   *slog.Logger
	clock clock.Clock
	at    atomic.Int64 // of the last time; 0: never
}

func (u *untrusted) tell(ctx context.Context, peer netip.Addr) {
	now, last := u.clock.Now().UnixNano(), u.at.Load()
	if (last != 0 && now-last < int64(tellAgain)) || !u.at.CompareAndSwap(last, now) {
		return
	}
	u.log.WarnContext(ctx, "X-Forwarded-For came from a peer that is not in TRUSTED_PROXIES: it does not count, and the limits take all clients behind the peer for one", "peer", peer)
}

func among(trusted []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// clientAddress finds the address of the client and tells it alone to the
// services: the peer's, or, when the peer is a trusted proxy, the nearest address
// in X-Forwarded-For that is none. What a client writes there itself decides
// nothing.
func clientAddress(trusted []netip.Prefix, untrusted *untrusted, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hops := r.Header["X-Forwarded-For"]
		for _, name := range [...]string{"X-Forwarded-For", "Forwarded", "X-Real-Ip"} {
			delete(r.Header, name) // Del would write the names once more
		}
		if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && (len(hops) > 0 || peer.Addr().Is4In6()) {
			// The transcoder takes the client's address from here.
			client := peer.Addr().Unmap()
			if len(hops) > 0 && !among(trusted, client) {
				untrusted.tell(r.Context(), client)
			}
			r.RemoteAddr = net.JoinHostPort(clientOf(client, hops, trusted).String(), "0")
		}
		next.ServeHTTP(w, r)
	})
}

// clientOf walks the hops from the nearest on while they are trusted.
func clientOf(client netip.Addr, hops []string, trusted []netip.Prefix) netip.Addr {
	list := strings.Split(strings.Join(hops, ","), ",")
	for _, hop := range slices.Backward(list) {
		if !among(trusted, client) {
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
