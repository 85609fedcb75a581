package dispatch

import (
	"context"
	"time"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// watch sees to calls that are open for long: the runner goes where the slow ones are, and
// calls that are silent let the rest of the chunk go on without them.
func (r *runner) watch(work context.Context) error {
	now := r.cfg.Clock.Now()
	oldest := r.flight.oldest()
	late := !oldest.IsZero() && now.Sub(oldest) >= slowCall
	r.belate(late)
	if late {
		r.toSlow()
	}
	if !late || now.Sub(oldest) < r.cfg.SilentAfter {
		return nil
	}
	return r.silence(work, oldest, now)
}

// toSlow gives up the place that everybody shares.
func (r *runner) toSlow() {
	if r.seat.where == inMain {
		r.move(inSlow)
		r.lane.look()
	}
}

// belate counts the runner among those with a call that is open for long, or no more.
func (r *runner) belate(late bool) {
	if late == r.belated {
		return
	}
	r.belated = late
	if late {
		r.flight.line.valve.belate(1)
	} else {
		r.flight.line.valve.belate(-1)
	}
}

// silence is what follows from calls without an answer: the channel rests and is tried by
// one message, unless it answered others meanwhile, and the calls are waited for apart.
func (r *runner) silence(work context.Context, oldest, now time.Time) error {
	until := now.Add(-r.cfg.SilentAfter)
	n := r.flight.silence(until)
	r.cfg.Logger.WarnContext(work, "no answer from the provider", "chunk_id", r.chunk.ID, "channel_id", r.chunk.ChannelID, "calls", n)
	if broken := r.flight.line.valve.silence(oldest); broken || r.probing {
		r.flight.line.valve.rest(now)
		if err := r.breakOff(work, codeSilent, messaging.Outcome{}); err != nil {
			return err
		}
		if err := r.letOthers(work); err != nil {
			return err
		}
	}
	return r.setAside(work, until)
}

// codeSilent is why a channel rests whose provider took a message and does not answer.
const codeSilent = "silent"

// ground ends the calling of a chunk: what was not called is not called any more, and calls
// that do not end soon are waited for apart, so that the rest need not wait with them.
func (r *runner) ground(work context.Context) error {
	if r.flight == nil {
		return nil
	}
	if from, n := r.flight.recall(); n > 0 {
		r.chunk.CallingUpto = from
	}
	r.part()
	var untold error // calls go on whatever could not be told of others
	for began := r.cfg.Clock.Now(); ; {
		if err := r.takeIn(work); err != nil {
			untold = err
		}
		if r.flight.empty() { // not only none open: some may have ended meanwhile
			r.belate(false)
			return untold
		}
		r.progress()
		if err := r.landing(work, began); err != nil {
			r.cfg.Logger.WarnContext(work, "calls could not be left to themselves yet", "chunk_id", r.chunk.ID, "err", err)
		}
		r.await()
	}
}

// landing is one look at a chunk that waits for its last calls since began.
func (r *runner) landing(work context.Context, began time.Time) error {
	now := r.cfg.Clock.Now()
	if now.Sub(began) >= landTime && r.chunk.CallingUpto < len(r.chunk.MessageIDs) && work.Err() == nil {
		return r.setAside(work, now)
	}
	if len(r.outcomes) > 0 && now.Sub(r.passed) >= gateEvery {
		if _, _, err := r.pass(work, r.chunk.CallingUpto); err != nil {
			return err
		}
	}
	return r.watch(work)
}

// await waits until the last call has ended, or it is time to look again.
func (r *runner) await() {
	most := landTime
	if r.seat.where == nowhere {
		most = heartbeat
	}
	t := r.cfg.Clock.NewTimer(most)
	defer t.Stop()
	r.flight.wants(0)
	select {
	case <-r.flight.wake:
	case <-t.C():
	}
}

// setAside waits for calls that began until then in a chunk of their own. A chunk that
// waits for nothing else is that chunk: it only gives up its place.
func (r *runner) setAside(work context.Context, until time.Time) error {
	if r.chunk.CallingUpto == len(r.chunk.MessageIDs) && r.flight.allSilent() {
		r.belate(false)
		r.leave()
		return nil
	}
	aside := r.flight.setAside(until)
	if aside == nil {
		return nil
	}
	r.calls = nil // they are not this runner's any more
	c := *r.chunk
	c.ID, c.Epoch, c.MessageIDs = messaging.NewID(), 1, aside.ids()
	c.CallingUpto = len(c.MessageIDs)
	if err := r.store(work, true, func(ctx context.Context) error { return r.ledger.SetAside(ctx, r.chunk, &c) }); err != nil {
		r.flight.join(aside)
		return err
	}
	r.limits.share()
	w := &runner{Role: r.Role, ledger: r.Role.ledger, equipment: r.equipment, lane: r.lane, chunk: &c, limits: r.limits, flight: aside}
	r.lane.running.Go(func() { w.guarded(work, func() { w.attend(work) }) })
	return nil
}

// attend waits for calls that were set aside, and stores what becomes of them.
func (r *runner) attend(work context.Context) {
	defer r.limits.end()
	r.progress()
	r.kept.add(r)
	for r.flight.left() > 0 {
		r.progress()
		r.flight.silence(r.cfg.Clock.Now().Add(-r.cfg.SilentAfter))
		if taken := r.take(); len(taken) > 0 {
			if _, _, err := r.pass(work, r.chunk.CallingUpto); err != nil {
				r.cfg.Logger.WarnContext(work, "outcomes wait for the end of their chunk", "chunk_id", r.chunk.ID, "err", err)
			}
		}
		t := r.cfg.Clock.NewTimer(heartbeat)
		select {
		case <-r.flight.wake:
		case <-t.C():
		}
		t.Stop()
	}
	r.take()
	r.end(work, postgres.Rest{})
}

// waits reports whether messages are marked that have no connection.
func (f *flight) waits() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next < len(f.queued)
}

// allSilent reports whether the flight waits for nothing but calls that are silent.
func (f *flight) allSilent() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.open {
		if !c.silent.Load() {
			return false
		}
	}
	return f.next == len(f.queued)
}
