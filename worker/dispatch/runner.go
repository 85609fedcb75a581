package dispatch

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/failpoint"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

const (
	// maxWait is the longest a chunk stays in work for the channel's rate.
	maxWait = 5 * time.Second
	// quickWindow is how long a window may take for the next to be wide.
	quickWindow = 20 * time.Millisecond
	// sendLimit bounds one call of an adapter, above the adapter's own limits: SMTP alone
	// waits 600 s for the answer to a mail (RFC 5321, section 4.5.3.2.6), after commands that
	// have their own. Calls that begin within sameLimit share one, which then is that much
	// shorter for the last.
	sendLimit = 20 * time.Minute
	sameLimit = time.Second
	// storeLimit is how long outcomes are offered to a database that is away, and
	// lastStore how long after the drain. Each try has askLimit.
	storeLimit = 5 * time.Minute
	lastStore  = 2 * time.Second
	// again is how long a chunk waits after an error that may pass.
	again = time.Second
	// gateEvery is how often the gate is looked at while messages are called that it let
	// through: a cancel stops new calls within it.
	gateEvery = time.Second
	// landTime is how long calls that are open are waited for before the rest of their chunk
	// is let go without them.
	landTime = slowCall
)

// runner sends one chunk.
type runner struct {
	*Role
	*equipment
	ledger   ledger // of the part that the runner is in
	lane     *lane
	seat     *seat
	chunk    *postgres.Chunk
	messages []postgres.ChunkMessage
	calls    []call // room for those of one window
	limits   *callLimits
	flight   *flight
	// outcomes wait for the next passage of the gate; unstored is how many of them count as
	// marked.
	outcomes []messaging.Outcome
	unstored int
	passed   time.Time // when the gate was asked last
	waiting  time.Time // since when messages wait for a connection, or for room to be marked
	parted   bool      // nothing is left to mark
	belated  bool      // counted as late in the channel's timing
	// moved is when the last statement or call ended, storing whether outcomes are offered.
	moved   atomic.Int64
	storing atomic.Bool
	condition
}

// newRunner sends a chunk, whose messages are read first unless they are given.
func newRunner(r *Role, c *postgres.Chunk, messages []postgres.ChunkMessage) *runner {
	return &runner{Role: r, ledger: r.ledger, equipment: &equipment{}, chunk: c, messages: messages}
}

// run sends until the chunk is done or must be let go. stop ends it between two
// calls; work bounds what is in flight.
func (r *runner) run(stop, work context.Context) {
	work, span := r.trace(work)
	defer span.End()
	r.limits = newLimits(work)
	defer r.limits.end()
	r.progress()
	r.kept.add(r)
	rest, err := r.send(stop, work)
	if errors.Is(err, postgres.ErrFenced) {
		rest = postgres.Rest{}
	} else if err != nil {
		r.cfg.Logger.WarnContext(work, "chunk interrupted", "chunk_id", r.chunk.ID, "err", err)
		rest = postgres.Rest{Delay: again}
	}
	if err := r.ground(work); err != nil {
		r.cfg.Logger.WarnContext(work, "a channel was not told what its calls said", "chunk_id", r.chunk.ID, "err", err)
	}
	r.end(work, rest)
}

// end stores what is left to store and lets go of the chunk.
func (r *runner) end(work context.Context, rest postgres.Rest) {
	err := r.store(work, true, func(ctx context.Context) error { return r.ledger.EndChunk(ctx, r.chunk, r.outcomes, rest) })
	if err == nil {
		err = r.letOthers(work)
	}
	if err == nil {
		err = failpoint.Hit(work, failpoint.DispatchAfterStore)
	}
	r.kept.remove(r)
	r.stored()
	if errors.Is(err, postgres.ErrFenced) {
		r.cfg.Metrics.leasesLost.WithLabelValues(r.chunk.Lane).Inc()
	} else if err != nil {
		r.cfg.Logger.WarnContext(work, "chunk left to its lease", "chunk_id", r.chunk.ID, "err", err)
	}
}

// progress says that the runner got on: a statement or a call ended.
func (r *runner) progress() { r.moved.Store(r.cfg.Clock.Now().UnixNano()) }

// getsOn reports whether the runner's lease is to be kept.
func (r *runner) getsOn(now time.Time) bool {
	return r.storing.Load() || now.UnixNano()-r.moved.Load() < int64(idleLimit)
}

// send sends the chunk and says what becomes of the rest of it.
func (r *runner) send(stop, work context.Context) (postgres.Rest, error) {
	if err := failpoint.Hit(work, failpoint.DispatchAfterClaim); err != nil {
		return postgres.Rest{}, err
	}
	if rest, ok, err := r.start(work); !ok || err != nil {
		return rest, err
	}
	r.progress()
	if r.messages == nil {
		var err error
		if r.messages, err = r.ledger.ChunkMessages(work, r.chunk); err != nil {
			return postgres.Rest{}, err
		}
	}
	if len(r.messages) == 0 {
		return postgres.Rest{Gone: true}, nil
	}
	for {
		if rest, over, err := r.turn(stop, work); over || err != nil {
			return rest, err
		}
		r.progress()
	}
}

// turn does what is to be done now: it takes in outcomes, and marks further messages as
// called where there is room for some, or waits. over says that no more is to be called.
func (r *runner) turn(stop, work context.Context) (rest postgres.Rest, over bool, err error) {
	if err := r.takeIn(work); err != nil {
		return rest, true, err
	}
	if err := r.watch(work); err != nil {
		return rest, true, err
	}
	open, left := r.flight.left(), len(r.chunk.MessageIDs)-r.chunk.CallingUpto
	if left == 0 {
		r.part()
	}
	now := r.cfg.Clock.Now()
	switch {
	case left == 0 && open == 0, stop.Err() != nil:
		return rest, true, nil
	case r.surplus(now, left):
		return postgres.Rest{Delay: again}, true, nil
	}
	want, low, yield := r.room(open, left)
	if store := yield && r.unstored > 0; want == 0 && !store && !r.looks(now, left) {
		r.wait(stop, low, now)
		return rest, false, nil
	}
	return r.mark(stop, work, want)
}

// looks reports whether it is time to look at the gate although nothing can be marked. Who
// only waits for calls that are open, and has no outcome to store, has nothing to take back
// and nothing to find out there: calls without an answer cost the database no statement.
func (r *runner) looks(now time.Time, left int) bool {
	if left == 0 && len(r.outcomes) == 0 && !r.flight.waits() {
		return false
	}
	return now.Sub(r.passed) >= gateEvery
}

// room is how many messages may be marked now; if none, low is how few must be open for
// some to be, and yield says that outcomes should be stored for others.
func (r *runner) room(open, left int) (n, low int, yield bool) {
	switch {
	case left == 0:
		return 0, 0, false
	case !r.probing:
		return r.line.mark(r.flight, open, r.unstored, left)
	case open > 0:
		return 0, 0, false
	}
	r.line.reserve(1)
	return 1, 0, false
}

// mark passes the gate for up to want further messages, which are called at once, or to
// look whether those may go on that are marked. It stores the outcomes so far.
func (r *runner) mark(stop, work context.Context, want int) (rest postgres.Rest, over bool, err error) {
	granted := want
	if want > 0 {
		if granted, rest, err = r.reserve(stop, work, want); err != nil || granted == 0 {
			r.line.done(want)
			return rest, err != nil || rest != (postgres.Rest{}), err
		}
	}
	open, marked, err := r.pass(work, r.chunk.CallingUpto+granted)
	r.line.done(want - marked)
	if err != nil || open {
		return rest, err != nil, err
	}
	rest, ok, err := r.reload(work)
	return rest, !ok || err != nil, err
}

// takeIn takes in what became of calls, and does to the channel what that asks for.
func (r *runner) takeIn(work context.Context) error {
	taken := r.take()
	if len(taken) == 0 {
		return nil
	}
	if err := failpoint.Hit(work, failpoint.DispatchAfterResponse); err != nil {
		return err
	}
	r.took = r.cfg.Clock.Now().Sub(r.passed)
	r.flight.line.resize(nextWindow(r.took))
	return r.effects(work, taken)
}

// surplus reports whether the chunk should be left for later: its messages wait for a
// connection, and the calls that have one do not end.
func (r *runner) surplus(now time.Time, left int) bool {
	if !r.flight.oldest().IsZero() || left == 0 && !r.flight.waits() {
		r.waiting = time.Time{}
		return false
	}
	if r.waiting.IsZero() {
		r.waiting = now
	}
	if now.Sub(r.waiting) < slowCall {
		return false
	}
	r.toSlow()
	return !r.line.valve.moving(now)
}

// wait waits until there is something to do: few enough messages are open, or a call is
// open for so long that somebody must see to it, or the gate is to be looked at.
func (r *runner) wait(stop context.Context, low int, now time.Time) {
	until := r.passed.Add(gateEvery)
	if !until.After(now) {
		until = now.Add(gateEvery) // the look was not needed
	}
	if oldest := r.flight.oldest(); !oldest.IsZero() {
		for _, limit := range []time.Duration{slowCall, r.cfg.SilentAfter} {
			if at := oldest.Add(limit); at.After(now) && at.Before(until) {
				until = at
			}
		}
	} else if at := now.Add(slowCall); at.Before(until) {
		until = at
	}
	t := r.cfg.Clock.NewTimer(until.Sub(now) + time.Millisecond)
	defer t.Stop()
	r.flight.wants(low)
	select {
	case <-r.flight.wake:
	case <-t.C():
	case <-stop.Done():
	}
}

// part says that the runner has nothing left to mark.
func (r *runner) part() {
	if !r.parted && r.line != nil {
		r.parted = true
		r.line.part(r.flight)
	}
}

// reserve takes slots of the channel's rate for up to want messages. A short
// wait is spent here, a long one lets go of the chunk (rest).
func (r *runner) reserve(stop, work context.Context, want int) (granted int, rest postgres.Rest, err error) {
	limit := r.channel.Rate(r.cfg.Clock.Now())
	if limit == nil {
		return want, rest, nil
	}
	got, err := r.ledger.Reserve(stop, r.chunk, *limit, want)
	if stop.Err() != nil {
		return 0, rest, nil
	}
	if err != nil || got.granted > 0 {
		return got.granted, rest, err
	}
	r.cfg.Metrics.rateLimits.WithLabelValues(r.chunk.ChannelType, byChannel).Inc()
	if got.wait > maxWait {
		rest, err = putOff(r.ledger.PutOff(work, r.chunk, r.channel.SendEpoch, got.wait))
		return 0, rest, err
	}
	// What is known must not wait with the rest: pass the gate on the spot.
	if len(r.outcomes) > 0 {
		if _, _, err := r.pass(work, r.chunk.CallingUpto); err != nil {
			return 0, rest, err
		}
	}
	// It fails only when stop ends, which the caller sees.
	_ = clock.Sleep(stop, r.cfg.Clock, got.wait)
	return 0, rest, nil
}

// pass stores the outcomes so far and opens the gate up to upto. The messages before it are
// called at once; marked is how many those are.
func (r *runner) pass(work context.Context, upto int) (open bool, marked int, err error) {
	next := r.between(r.chunk.CallingUpto, upto)
	keys := make([]string, len(next))
	for i, m := range next {
		keys[i] = messaging.AddressKey(r.chunk.ChannelType, m.Address)
	}
	var g postgres.Gate
	began := r.cfg.Clock.Now()
	err = r.store(work, len(r.outcomes) > 0, func(ctx context.Context) error {
		var err error
		g, err = r.ledger.PassGate(ctx, r.chunk, upto, r.channel.SendEpoch, keys, r.outcomes)
		return err
	})
	if err != nil {
		return false, 0, err
	}
	r.outcomes, r.passed = r.outcomes[:0], r.cfg.Clock.Now()
	r.flight.line.passed(r.passed.Sub(began))
	r.stored()
	if !g.Open {
		return false, 0, nil
	}
	if len(next) == 0 {
		return true, 0, nil
	}
	if err := failpoint.Hit(work, failpoint.DispatchAfterGate); err != nil {
		return false, 0, err
	}
	return true, r.launch(work, next, g), nil
}

// stored lets others mark as many messages as have their outcome stored.
func (r *runner) stored() {
	if r.unstored > 0 && r.flight != nil {
		r.flight.line.done(r.unstored)
		r.unstored = 0
	}
}

// between are the messages with an ordinal in [from, upto).
func (r *runner) between(from, upto int) []postgres.ChunkMessage {
	byOrdinal := func(m postgres.ChunkMessage, ordinal int) int { return m.Ordinal - ordinal }
	first, _ := slices.BinarySearchFunc(r.messages, from, byOrdinal)
	end, _ := slices.BinarySearchFunc(r.messages, upto, byOrdinal)
	return r.messages[first:end]
}

// store offers outcomes, and the end of a chunk, to the database until it takes them: what
// happened outside must not be forgotten because of a restart inside, nor what did not
// happen, or it counts as unknown once the lease is over.
func (r *runner) store(work context.Context, insist bool, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), storeLimit)
	defer cancel()
	if insist {
		r.storing.Store(true)
		defer r.storing.Store(false)
	}
	defer context.AfterFunc(work, func() {
		if clock.Sleep(ctx, r.cfg.Clock, lastStore) == nil {
			cancel()
		}
	})()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 50*time.Millisecond, 2*time.Second
	for {
		err := fn(ctx)
		if err == nil || errors.Is(err, postgres.ErrFenced) || !insist {
			return err
		}
		r.cfg.Logger.WarnContext(ctx, "outcomes not stored yet", "chunk_id", r.chunk.ID, "outcomes", len(r.outcomes), "err", err)
		if clock.Sleep(ctx, r.cfg.Clock, pause.NextBackOff()) != nil {
			return err
		}
	}
}
