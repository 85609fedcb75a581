package rest

import (
	"context"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/turumba/turumba/kit/grpcserver"
)

const (
	// admitFresh is how long a token that was let in may go on having its bodies read;
	// the call itself is decided anew each time.
	admitFresh = 4500 * time.Millisecond
	// admitLimit is how long the question may take.
	admitLimit = 10 * time.Second
	// admitKept is how many answers are kept.
	admitKept = 10_000
)

// door asks the service behind a route whether it lets a call in, before the body of the
// request is read. Only good answers are kept.
type door struct {
	now   func() time.Time
	conns map[string]grpc.ClientConnInterface // by the full name of the RPC

	mu   sync.Mutex
	open map[[sha256.Size]byte]time.Time
}

func newDoor(now func() time.Time, conns map[string]grpc.ClientConnInterface) *door {
	return &door{now: now, conns: conns, open: map[[sha256.Size]byte]time.Time{}}
}

// admit is nil where the caller of r may make the RPC of the route.
func (d *door) admit(r *http.Request, s *route) error {
	if s.public {
		return nil
	}
	md := outgoing(r)
	key, one := keyOf(md.Get("authorization"), s.rpc)
	if one && d.knows(key) {
		return nil
	}
	ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(r.Context(), md), admitLimit)
	defer cancel()
	if err := grpcserver.Admit(ctx, d.conns[s.rpc], s.rpc); err != nil {
		return err
	}
	if one {
		d.keep(key)
	}
	return nil
}

// keyOf is what a good answer is kept under; there is none without exactly one token.
func keyOf(tokens []string, rpc string) (key [sha256.Size]byte, ok bool) {
	if len(tokens) != 1 {
		return key, false
	}
	return sha256.Sum256([]byte(rpc + "\x00" + tokens[0])), true
}

func (d *door) knows(key [sha256.Size]byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	until, ok := d.open[key]
	return ok && d.now().Before(until)
}

func (d *door) keep(key [sha256.Size]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.open) >= admitKept {
		clear(d.open)
	}
	d.open[key] = d.now().Add(admitFresh)
}
