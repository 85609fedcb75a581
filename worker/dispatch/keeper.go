package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging/postgres"
)

const (
	// extendLimit is how long the statement may take that extends all leases: a connection
	// that carries nothing costs one try, and there is time for three before a lease ends.
	extendLimit = 2 * time.Second
	// extendAgain is the pause after a try that failed.
	extendAgain = 250 * time.Millisecond
	// idleLimit is how long a runner may do nothing, neither a call nor a statement, and keep
	// its lease. No statement takes longer.
	idleLimit = readLimit + heartbeat
)

// keeper extends the leases of all chunks in work by one statement. Only progress keeps a
// lease: a call or a statement that ended lately, or a call that is younger than its own
// limit (decision G11).
type keeper struct {
	mu      sync.Mutex
	runners map[*runner]struct{}
}

func (k *keeper) add(r *runner) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.runners == nil {
		k.runners = map[*runner]struct{}{}
	}
	k.runners[r] = struct{}{}
}

func (k *keeper) remove(r *runner) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.runners, r)
}

// alive are the chunks whose runners get on.
func (k *keeper) alive(now time.Time) (list []*postgres.Chunk) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for r := range k.runners {
		if r.getsOn(now) {
			list = append(list, r.chunk)
		}
	}
	return list
}

// keepLeases extends leases until ctx ends: those of chunks in work, and those of chunks
// that wait in memory for a lane that makes turns.
func (r *Role) keepLeases(ctx context.Context) {
	turns := r.cfg.Loops.Start("dispatch.leases")
	defer turns.End()
	for pause := heartbeat; clock.Sleep(ctx, r.cfg.Clock, pause) == nil; {
		now := r.cfg.Clock.Now()
		list := r.kept.alive(now)
		if r.bulk.alive(now) {
			list = append(list, r.handed.all(false)...)
		}
		pause = heartbeat
		if err := r.urgent.ExtendChunks(ctx, list); err == nil {
			turns.Done()
		} else if ctx.Err() == nil {
			pause = extendAgain
			r.cfg.Logger.WarnContext(ctx, "the leases of chunks in work were not extended", "chunks", len(list), "err", err)
		}
	}
}
