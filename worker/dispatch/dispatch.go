// Package dispatch sends what is queued: it claims chunks in fair order, passes
// the gate of decision E4 window by window, hands messages to the channel's
// adapter and stores what came of them. The adapter classifies, this loop
// decides.
package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

const (
	// window is the most messages between two passages of the gate while the channel is
	// quick, and bulkPerChannel how many chunks of a channel a process has in work in the
	// bulk lane: together the most messages of sends whose outcome a crash can leave
	// unknown. A provider that takes a window in quickWindow gets wideWindow: so little
	// time is spent inside that a crash hardly meets it. Channels that are not quick have
	// what line.mark says.
	window         = 64
	wideWindow     = 128
	bulkPerChannel = 2
	// singlesPerChannel is the same for the transactional lane, whose chunks mostly hold one
	// message. A channel that is not quick may have some more than it has connections, at
	// most mostSingles, so that none of them waits for a chunk.
	singlesPerChannel = 16
	mostSingles       = 64 + spareSlow
	// lease is how long a chunk is a worker's without a sign of life.
	lease = 10 * time.Second
	// heartbeat is how often a lease is extended besides the gate.
	heartbeat = 3 * time.Second
	// poll is the longest time between two looks for work.
	poll = time.Second
	// drain is how long sends in flight may take after the stop was asked for.
	drain = 8 * time.Second
	// defaultRunners is how many chunks of a lane are in work at a time.
	defaultRunners = 64
)

// Config is what the role stands on.
type Config struct {
	Store *postgres.Store
	// Urgent is the same store over connections of its own, for what must not wait behind
	// the rest: the transactional lane while its calls are quick, and the leases. Nil means
	// Store.
	Urgent   *postgres.Store
	Vault    *vault.Vault
	Adapters channel.Adapters
	// Unsubscriber makes the links of group sends; may be nil.
	Unsubscriber *messaging.Unsubscriber
	Clock        clock.Clock
	Logger       *slog.Logger
	// Metrics counts; nil counts nothing that anybody sees.
	Metrics *Metrics
	// Tracing makes spans; nil makes none.
	Tracing *telemetry.Tracing
	// Loops get the turns of the lanes and of those who keep leases; nil tells nobody.
	Loops *jobs.Loops
	// Runners is how many chunks of sends are in work at a time; 0 means 64. As many more may
	// be in work whose provider is slow. Chunks of single messages may be half as many again,
	// and those of slow providers more than twice as many.
	Runners int
	// SilentAfter is how long a call may have no answer until its channel is tried by another
	// message; 0 means 30 s. Its outcome is awaited all the same.
	SilentAfter time.Duration
}

// Role is the dispatch role of a worker.
type Role struct {
	cfg     Config
	types   []string
	serves  map[string]bool // the types, as a set
	ledger  ledger
	urgent  ledger // over connections of its own; see Config
	senders *senders
	tracer  trace.Tracer
	lanes   []*lane
	bulk    *lane
	handed  handed
	recent  recent
	kept    keeper
	calling sync.WaitGroup // goroutines that call providers
}

// New makes the role for the channel types that the adapters serve.
func New(cfg Config) *Role {
	if cfg.Runners == 0 {
		cfg.Runners = defaultRunners
	}
	if cfg.SilentAfter == 0 {
		cfg.SilentAfter = silentCall
	}
	if cfg.Metrics == nil {
		cfg.Metrics, _ = NewMetrics(nil, cfg.Clock) // fails only to register
	}
	if cfg.Urgent == nil {
		cfg.Urgent = cfg.Store
	}
	r := &Role{cfg: cfg, ledger: ledger{cfg.Store}, urgent: ledger{cfg.Urgent}, serves: map[string]bool{}, tracer: cfg.Tracing.Tracer("dispatch")}
	r.senders = newSenders(cfg, r.Wake)
	for _, a := range cfg.Adapters {
		if !r.serves[a.Type()] {
			r.serves[a.Type()] = true
			r.types = append(r.types, a.Type())
		}
	}
	r.handed.room = make(chan struct{}, 1)
	r.bulk = newLane(r, postgres.LaneBulk, chunkLimit{quick: bulkPerChannel, most: bulkPerChannel}, newSeats(cfg.Runners, cfg.Runners))
	// Single messages of one account on one channel can have all its connections: 64 places
	// and some more, of which one account has three quarters in the first part and half in
	// the second.
	singles := newLane(r, postgres.LaneTransactional, chunkLimit{quick: singlesPerChannel, most: mostSingles}, newSeats(cfg.Runners*3/2, cfg.Runners*9/4))
	singles.ledger = r.urgent
	r.lanes = []*lane{singles, r.bulk}
	return r
}

func newLane(r *Role, name string, perChannel chunkLimit, s *seats) *lane {
	return &lane{role: r, ledger: r.ledger, name: name, perChannel: perChannel, wake: make(chan struct{}, 1), handed: make(chan struct{}, 1), seats: s}
}

// Types are the channel types that the role sends to.
func (r *Role) Types() []string { return r.types }

// Wake makes the role look for work at once. It never blocks.
func (r *Role) Wake() {
	for _, l := range r.lanes {
		l.look()
	}
}

// Run works until ctx ends; windows in flight are finished and stored first.
func (r *Role) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	// The sleep ends early when the work is done.
	defer context.AfterFunc(ctx, func() {
		if clock.Sleep(work, r.cfg.Clock, drain) == nil {
			stop()
		}
	})()
	var g errgroup.Group
	r.handed.start()
	keep, kept := context.WithCancel(context.WithoutCancel(ctx))
	var keeping sync.WaitGroup
	keeping.Go(func() { r.keepLeases(keep) })
	g.Go(func() error {
		r.keepHanded(ctx, work)
		return nil
	})
	for _, l := range r.lanes {
		g.Go(func() error {
			l.run(ctx, work)
			return nil
		})
	}
	err := g.Wait()
	kept()
	keeping.Wait()
	r.calling.Wait()
	r.senders.close()
	return err
}

// lane is one claim loop with its own share of the process (decision D10).
type lane struct {
	role       *Role
	ledger     ledger // of its claims, and of its runners in the first part
	name       string
	perChannel chunkLimit
	wake       chan struct{}
	handed     chan struct{} // wakes for chunks in memory alone: the database is not asked
	seats      *seats
	asked      time.Time // when the database was asked last
	turned     atomic.Int64
	running    sync.WaitGroup
}

func (l *lane) look() { signal(l.wake) }

func signal(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// run claims until ctx ends and waits for what is in work.
func (l *lane) run(ctx, work context.Context) {
	defer l.running.Wait()
	turns := l.role.cfg.Loops.Start("dispatch." + l.name)
	defer turns.End()
	claim := true
	for ctx.Err() == nil {
		select {
		case l.seats.main <- struct{}{}:
		case <-ctx.Done():
			return
		}
		// Not ctx: a claim that is called off may have been made, and would lie until its
		// lease is over.
		began := l.role.cfg.Clock.Now()
		r, err := l.next(work, claim)
		l.turn(turns, began)
		if err != nil || r == nil {
			<-l.seats.main
			if err != nil && ctx.Err() == nil {
				l.role.cfg.Logger.WarnContext(ctx, "no chunk could be claimed", "lane", l.name, "err", err)
			}
			claim = l.wait(ctx)
			continue
		}
		l.start(ctx, work, r)
	}
}

// turn notes that a turn is over. One that ended by its limit found out nothing.
func (l *lane) turn(turns *jobs.Turns, began time.Time) {
	now := l.role.cfg.Clock.Now()
	if now.Sub(began) < askLimit {
		l.turned.Store(now.UnixNano())
		turns.Done()
	}
}

func (l *lane) start(ctx, work context.Context, r *runner) {
	p, _ := l.role.senders.known(r.chunk.ChannelID)
	r.lane, r.seat, r.ledger = l, l.seats.take(r.chunk, p), l.ledger
	if p == slow {
		r.move(inSlow)
	}
	l.running.Go(func() {
		inWork := l.role.cfg.Metrics.chunks.WithLabelValues(l.name)
		inWork.Inc()
		r.guarded(work, func() { r.run(ctx, work) })
		inWork.Dec()
		r.leave()
	})
}

// guarded ends a runner that panics, and nothing else: its chunk is left to its lease, and
// the channel begins anew, since nobody knows what the runner still had of it.
func (r *runner) guarded(ctx context.Context, do func()) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		r.panicked(ctx, p)
		r.kept.remove(r)
		if r.flight != nil {
			r.flight.recall()
		}
		r.senders.renew(r.chunk.ChannelID)
	}()
	do()
}

func (r *runner) panicked(ctx context.Context, p any) {
	r.cfg.Logger.ErrorContext(ctx, "panic while a chunk was sent", "chunk_id", r.chunk.ID, "channel_id", r.chunk.ChannelID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// leave gives the runner's place away, if it has one.
func (r *runner) leave() {
	r.move(nowhere)
	r.lane.left(r.chunk.ChannelID)
}

// move takes the runner to another place. Who leaves the first part leaves its
// connections to the database too: what is slow never holds up what is quick there either.
func (r *runner) move(to place) {
	r.seat.move(to)
	r.ledger = r.Role.ledger
}

// stale is how long a lane may take for a turn; then it is stuck, and so is what waits for
// it in memory.
const stale = 10 * time.Second

// alive reports whether the lane made a turn lately.
func (l *lane) alive(now time.Time) bool { return now.UnixNano()-l.turned.Load() < int64(stale) }

// left looks for what takes the place of a chunk that is done.
func (l *lane) left(channelID string) {
	if l == l.role.bulk && l.role.handed.waits(channelID) {
		signal(l.handed)
		return
	}
	l.look()
}

// next is what to send now: a chunk that waits in memory or, with claim, one that is ready.
func (l *lane) next(ctx context.Context, claim bool) (*runner, error) {
	if l == l.role.bulk {
		if h := l.role.handed.next(l.full); h != nil {
			return newRunner(l.role, h.Chunk, h.Messages), nil
		}
	}
	if now := l.role.cfg.Clock.Now(); claim || now.Sub(l.asked) >= poll {
		l.asked = now
	} else {
		return nil, nil
	}
	s := l.role.senders
	c, err := l.ledger.ClaimChunk(ctx, l.name, l.role.types, l.seats.skip(l.perChannel, s.known, s.slowOnes(), s.proven))
	if err != nil || c == nil {
		return nil, err
	}
	return newRunner(l.role, c, nil), nil
}

// full reports whether a channel has its share of this process.
func (l *lane) full(c *postgres.Chunk) bool {
	p, moving := l.role.senders.known(c.ChannelID)
	return l.seats.full(c.ChannelID, c.AccountID, l.perChannel, p, moving)
}

// wait reports whether the database is to be asked after it.
func (l *lane) wait(ctx context.Context) (claim bool) {
	t := l.role.cfg.Clock.NewTimer(poll)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C():
	case <-l.wake:
	case <-l.handed:
		return false
	}
	return true
}
