package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// maxHanded is how many messages may wait in memory for a runner (decision E4).
const maxHanded = 20_000

// roomLimit is how long a fan-out waits for room in memory. A channel that takes messages as
// fast as they are written has some sooner, and would have to read them all again from the
// database otherwise; behind a slow one others may have time for them.
const roomLimit = 100 * time.Millisecond

// handed are the chunks that were born in work in this process and wait for a
// runner, by channel, oldest first. Their leases are kept, so a process that
// dies leaves them to the others like any chunk.
type handed struct {
	mu       sync.Mutex
	open     bool
	messages int
	waiting  map[string][]*postgres.Handed
	room     chan struct{} // wakes who waits for some
	slow     bool          // waiting was in vain, and there was no room since
}

// Lease is the lease that a new bulk chunk of a channel type is born with, to be
// handed over; 0 says that it is to be ready for anybody.
func (r *Role) Lease(ctx context.Context, channelType string) time.Duration {
	if !r.serves[channelType] || !r.handed.hasRoom(ctx, r.cfg.Clock) {
		return 0
	}
	return lease
}

// hasRoom reports whether more messages may wait in memory, within roomLimit.
func (h *handed) hasRoom(ctx context.Context, c clock.Clock) bool {
	limit := c.NewTimer(roomLimit)
	defer limit.Stop()
	for {
		room, wait := h.look()
		if !wait {
			return room
		}
		select {
		case <-h.room:
		case <-ctx.Done():
			return false
		case <-limit.C():
			h.mu.Lock()
			h.slow = true
			h.mu.Unlock()
		}
	}
}

// look reports whether there is room, or else whether it is worth while to wait for it.
func (h *handed) look() (room, wait bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	room = h.open && h.messages < maxHanded
	if room {
		h.slow = false
		signal(h.room) // there may be some for the next one too
	}
	return room, h.open && !room && !h.slow
}

// Hand takes a chunk that was born in work. It reports false when the role has
// stopped meanwhile: the chunk is still the caller's.
func (r *Role) Hand(c *postgres.Handed) bool {
	h := &r.handed
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open {
		return false
	}
	h.waiting[c.ChannelID] = append(h.waiting[c.ChannelID], c)
	h.messages += len(c.Messages)
	signal(r.bulk.handed)
	return true
}

// waits reports whether a chunk of the channel waits.
func (h *handed) waits(channelID string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.waiting[channelID]) > 0
}

// next takes the oldest waiting chunk of a channel that is not at its cap.
func (h *handed) next(capped func(c *postgres.Chunk) bool) *postgres.Handed {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, list := range h.waiting {
		if capped(list[0].Chunk) {
			continue
		}
		if h.waiting[id] = list[1:]; len(list) == 1 {
			delete(h.waiting, id)
		}
		h.messages -= len(list[0].Messages)
		signal(h.room)
		return list[0]
	}
	return nil
}

// start lets chunks be handed over.
func (h *handed) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open, h.waiting = true, map[string][]*postgres.Handed{}
}

// all are the chunks that wait; with stop no more are taken.
func (h *handed) all(stop bool) []*postgres.Chunk {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*postgres.Chunk
	for _, list := range h.waiting {
		for _, c := range list {
			out = append(out, c.Chunk)
		}
	}
	if stop {
		h.open, h.waiting, h.messages = false, nil, 0
		signal(h.room)
	}
	return out
}

// release takes out the chunks of channels that none of them should wait for.
func (h *handed) release(resting func(channelID string) bool) (out []*postgres.Chunk) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, list := range h.waiting {
		if !resting(id) {
			continue
		}
		for _, c := range list {
			out = append(out, c.Chunk)
			h.messages -= len(c.Messages)
		}
		delete(h.waiting, id)
	}
	signal(h.room)
	return out
}

// keepHanded leaves chunks of channels that rest to anybody, and all of them when ctx ends.
func (r *Role) keepHanded(ctx, work context.Context) {
	turns := r.cfg.Loops.Start("dispatch.memory")
	defer turns.End()
	for clock.Sleep(ctx, r.cfg.Clock, poll) == nil {
		r.letGo(work, r.handed.release(r.senders.resting))
		turns.Done()
	}
	r.letGo(work, r.handed.all(true))
}

// letGo makes chunks ready for anybody that this process did not begin to send. Where the
// database is away, they are left to their leases.
func (r *Role) letGo(work context.Context, list []*postgres.Chunk) {
	for i, c := range list {
		if err := r.ledger.EndChunk(work, c, nil, postgres.Rest{}); err != nil {
			r.cfg.Logger.WarnContext(work, "chunks left to their leases", "chunks", len(list)-i, "err", err)
			return
		}
	}
}
