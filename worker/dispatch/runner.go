package dispatch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/failpoint"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

const (
	// maxWait is the longest a chunk stays in work for the channel's rate.
	maxWait = 5 * time.Second
	// busyWindow is the longest a window should take; slower channels get smaller
	// ones, so that a cancel is noticed within two of them.
	busyWindow = time.Second
	// quickWindow is how long a window may take for the next to be wide.
	quickWindow = 20 * time.Millisecond
	// sendLimit bounds one call of an adapter, above the adapter's own limits; calls that
	// begin within sameLimit share one, which then is that much shorter for the last.
	sendLimit = 2 * time.Minute
	sameLimit = time.Second
	// storeLimit is how long outcomes are offered to a database that is away, and
	// lastStore how long after the drain.
	storeLimit = 5 * time.Minute
	lastStore  = 2 * time.Second
	// again is how long a chunk waits after an error that may pass.
	again = time.Second
)

// runner sends one chunk.
type runner struct {
	*Role
	chunk    *postgres.Chunk
	channel  *messaging.Channel
	line     *line
	renderer *messaging.Renderer
	subject  *messaging.Renderer // the channel's own subject line; nil for none
	files    []*channel.Attachment
	messages []postgres.ChunkMessage
	// outcomes wait for the next passage of the gate.
	outcomes []messaging.Outcome
	condition
}

// newRunner sends a chunk, whose messages are read first unless they are given.
func newRunner(r *Role, c *postgres.Chunk, messages []postgres.ChunkMessage) *runner {
	return &runner{Role: r, chunk: c, messages: messages}
}

// run sends until the chunk is done or must be let go. stop ends it between two
// windows; work bounds what is in flight.
func (r *runner) run(stop, work context.Context) {
	work, span := r.trace(work)
	defer span.End()
	beat, end := context.WithCancel(work)
	var beating sync.WaitGroup
	beating.Go(func() { r.keepLease(beat) })
	rest, err := r.send(stop, work)
	if err != nil && !errors.Is(err, postgres.ErrFenced) {
		r.cfg.Logger.WarnContext(work, "chunk interrupted", "chunk_id", r.chunk.ID, "err", err)
		rest, err = postgres.Rest{Delay: again}, nil
	}
	if err == nil {
		err = r.store(work, true, func(ctx context.Context) error { return r.cfg.Store.EndChunk(ctx, r.chunk, r.outcomes, rest) })
	}
	if err == nil {
		err = r.letOthers(work)
	}
	if err == nil {
		err = failpoint.Hit(work, failpoint.DispatchAfterStore)
	}
	end()
	beating.Wait()
	if errors.Is(err, postgres.ErrFenced) {
		r.cfg.Metrics.leasesLost.WithLabelValues(r.chunk.Lane).Inc()
	}
	if err != nil && !errors.Is(err, postgres.ErrFenced) {
		r.cfg.Logger.WarnContext(work, "chunk left to its lease", "chunk_id", r.chunk.ID, "err", err)
	}
}

// keepLease extends the lease while windows take long.
func (r *runner) keepLease(ctx context.Context) {
	for clock.Sleep(ctx, r.cfg.Clock, heartbeat) == nil {
		if err := r.cfg.Store.ExtendChunk(ctx, r.chunk, lease); errors.Is(err, postgres.ErrFenced) {
			return // the gate finds out too
		}
	}
}

// send passes window after window and says what becomes of the rest.
func (r *runner) send(stop, work context.Context) (postgres.Rest, error) {
	if err := failpoint.Hit(work, failpoint.DispatchAfterClaim); err != nil {
		return postgres.Rest{}, err
	}
	if rest, ok, err := r.start(work); !ok || err != nil {
		return rest, err
	}
	if r.messages == nil {
		var err error
		if r.messages, err = r.cfg.Store.ChunkMessages(work, r.chunk, r.chunk.CallingUpto); err != nil {
			return postgres.Rest{}, err
		}
	}
	if len(r.messages) == 0 {
		return postgres.Rest{Gone: true}, nil
	}
	for r.chunk.CallingUpto < len(r.chunk.MessageIDs) {
		if stop.Err() != nil {
			return postgres.Rest{}, nil
		}
		upto := min(r.chunk.CallingUpto+r.step(), len(r.chunk.MessageIDs))
		granted, rest, err := r.reserve(stop, work, upto-r.chunk.CallingUpto)
		if err != nil || rest.Delay > 0 {
			return rest, err
		}
		if granted == 0 {
			continue
		}
		open, err := r.pass(work, r.chunk.CallingUpto+granted)
		if err != nil {
			return postgres.Rest{}, err
		}
		if !open {
			if rest, ok, err := r.reload(work); !ok || err != nil {
				return rest, err
			}
			continue
		}
		if err := r.effects(work); err != nil {
			return postgres.Rest{}, err
		}
	}
	return postgres.Rest{}, nil
}

// blockedCheck is how long a chunk of an account that must not send is put off; it
// is not claimed while the account is blocked.
const blockedCheck = time.Second

// start loads a chunk, from memory if that is where it comes from.
func (r *runner) start(ctx context.Context) (rest postgres.Rest, ok bool, err error) {
	if r.messages != nil {
		if w, found := r.recent.get(r.chunk, r.cfg.Clock.Now()); found {
			return r.equip(ctx, w)
		}
	}
	return r.load(ctx)
}

// load reads what the chunk is sent with. ok is false if it cannot be sent now;
// rest says what to do with it.
func (r *runner) load(ctx context.Context) (rest postgres.Rest, ok bool, err error) {
	now := r.cfg.Clock.Now()
	w, err := r.cfg.Store.ChunkWork(ctx, r.chunk)
	if err != nil {
		return rest, false, err
	}
	rest, ok, err = r.equip(ctx, w)
	if ok && err == nil && !r.probing {
		r.recent.put(r.chunk, w, now)
	}
	return rest, ok, err
}

// equip makes the runner ready to send with what was read.
func (r *runner) equip(ctx context.Context, w postgres.Work) (rest postgres.Rest, ok bool, err error) {
	switch {
	case w.Cancelled:
		return postgres.Rest{Status: messaging.MessageCancelled}, false, nil
	case w.Ended:
		return postgres.Rest{Gone: true}, false, nil
	case w.Channel == nil:
		return postgres.Rest{Status: messaging.MessagePermanentlyFailed, Code: messaging.CodeChannelDeleted}, false, nil
	case w.Blocked:
		return postgres.Rest{Delay: blockedCheck}, false, nil
	}
	r.channel = w.Channel
	if ok, err := r.admitted(ctx); !ok || err != nil {
		return rest, false, errors.Join(err, r.hold(ctx, &rest))
	}
	if err := r.bind(ctx); err != nil {
		return rest, false, err
	}
	if r.line, err = r.senders.get(r.channel, r.chunk.Lane); err != nil {
		r.broken = true
		err = r.cfg.Store.BreakChannel(ctx, r.seen(), true, "the channel's settings cannot be used: "+err.Error())
		return rest, false, errors.Join(err, r.hold(ctx, &rest))
	}
	if err := r.attach(ctx, w); err != nil {
		return rest, false, err
	}
	return rest, true, r.parse(w)
}

// bind makes secrets of former versions usable. What does not open stays as it is: who
// opens the channel then says so.
func (r *runner) bind(ctx context.Context) error {
	bound, err := r.cfg.Store.BindSecrets(ctx, r.cfg.Vault, r.channel)
	if errors.Is(err, vault.ErrUnknownKey) || errors.Is(err, vault.ErrCorrupt) {
		return nil
	}
	r.channel = bound
	return err
}

// attach reads the send's files, once for the chunk.
func (r *runner) attach(ctx context.Context, w postgres.Work) error {
	if w.Snapshot == nil || len(w.Snapshot.Attachments) == len(r.files) {
		return nil
	}
	digests := make([]string, len(w.Snapshot.Attachments))
	for i, a := range w.Snapshot.Attachments {
		digests[i] = a.Digest
	}
	files, err := r.cfg.Store.Files(ctx, r.chunk.AccountID, digests)
	if err != nil {
		return err
	}
	for _, a := range w.Snapshot.Attachments {
		r.files = append(r.files, channel.NewAttachment(a.Filename, a.MediaType, a.ContentID, files[a.Digest]))
	}
	return nil
}

func (r *runner) parse(w postgres.Work) (err error) {
	if w.Snapshot != nil {
		if r.renderer, err = messaging.NewRenderer(*w.Snapshot); err != nil {
			return err
		}
	}
	if t := r.channel.SubjectTemplate(); t != "" {
		r.subject, err = messaging.NewRenderer(messaging.Snapshot{Version: messaging.RendererVersion, Subject: t})
	}
	return err
}

// reload finds out why the gate was closed. Nothing changed means that the lease is
// lost, or that what was wrong is mended since: the chunk is let go either way.
func (r *runner) reload(ctx context.Context) (postgres.Rest, bool, error) {
	seen, probing := r.channel.SendEpoch, r.probing
	rest, ok, err := r.load(ctx)
	if ok && err == nil && r.channel.SendEpoch == seen && r.probing == probing {
		return postgres.Rest{Delay: heldLeast}, false, nil
	}
	return rest, ok, err
}

// reserve takes slots of the channel's rate for up to want messages. A short
// wait is spent here, a long one lets go of the chunk (rest.Delay).
func (r *runner) reserve(stop, work context.Context, want int) (granted int, rest postgres.Rest, err error) {
	limit := r.channel.Rate(r.cfg.Clock.Now())
	if limit == nil {
		return want, rest, nil
	}
	granted, wait, err := r.cfg.Store.Reserve(stop, r.channel.ID, r.chunk.Lane, *limit, want)
	if stop.Err() != nil {
		return 0, rest, nil
	}
	if err != nil || granted > 0 {
		return granted, rest, err
	}
	r.cfg.Metrics.rateLimits.WithLabelValues(r.chunk.ChannelType, byChannel).Inc()
	if wait > maxWait {
		return 0, postgres.Rest{Delay: wait}, nil
	}
	// What is known must not wait with the rest: pass the gate on the spot.
	if len(r.outcomes) > 0 {
		if _, err := r.pass(work, r.chunk.CallingUpto); err != nil {
			return 0, rest, err
		}
	}
	// It fails only when stop ends, which the caller sees.
	_ = clock.Sleep(stop, r.cfg.Clock, wait)
	return 0, rest, nil
}

// pass stores the outcomes so far and opens the window up to upto, whose
// messages are sent at once.
func (r *runner) pass(work context.Context, upto int) (open bool, err error) {
	next := r.between(r.chunk.CallingUpto, upto)
	keys := make([]string, len(next))
	for i, m := range next {
		keys[i] = messaging.AddressKey(r.chunk.ChannelType, m.Address)
	}
	var g postgres.Gate
	err = r.store(work, len(r.outcomes) > 0, func(ctx context.Context) error {
		var err error
		g, err = r.cfg.Store.PassGate(ctx, r.chunk, upto, r.channel.SendEpoch, lease, keys, r.outcomes)
		return err
	})
	if err != nil {
		return false, err
	}
	r.outcomes = r.outcomes[:0]
	if !g.Open {
		return false, nil
	}
	if err := failpoint.Hit(work, failpoint.DispatchAfterGate); err != nil {
		return false, err
	}
	r.sendWindow(work, next, g)
	return true, failpoint.Hit(work, failpoint.DispatchAfterResponse)
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
