// Package dispatch sends what is queued: it claims chunks in fair order, passes
// the gate of decision E4 window by window, hands messages to the channel's
// adapter and stores what came of them. The adapter classifies, this loop
// decides.
package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

const (
	// window is the most messages between two passages of the gate, and bulkPerChannel
	// how many chunks of a channel a process has in work in the bulk lane: together the
	// most messages of sends whose outcome a crash can leave unknown. A provider that
	// takes a window in quickWindow gets wideWindow: so little time is spent inside
	// that a crash hardly meets it.
	window         = 64
	wideWindow     = 128
	bulkPerChannel = 2
	// singlesPerChannel is the same for the transactional lane, whose chunks mostly
	// hold one message.
	singlesPerChannel = 16
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
	Store    *postgres.Store
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
	// Runners is how many chunks of a lane are in work at a time; 0 means 64.
	Runners int
}

// Role is the dispatch role of a worker.
type Role struct {
	cfg     Config
	types   []string
	serves  map[string]bool // the types, as a set
	senders *senders
	tracer  trace.Tracer
	lanes   []*lane
	bulk    *lane
	handed  handed
	recent  recent
}

// New makes the role for the channel types that the adapters serve.
func New(cfg Config) *Role {
	if cfg.Runners == 0 {
		cfg.Runners = defaultRunners
	}
	if cfg.Metrics == nil {
		cfg.Metrics, _ = NewMetrics(nil, cfg.Clock) // fails only to register
	}
	r := &Role{cfg: cfg, serves: map[string]bool{}, senders: newSenders(cfg), tracer: cfg.Tracing.Tracer("dispatch")}
	for _, a := range cfg.Adapters {
		if !r.serves[a.Type()] {
			r.serves[a.Type()] = true
			r.types = append(r.types, a.Type())
		}
	}
	r.handed.room = make(chan struct{}, 1)
	r.bulk = newLane(r, postgres.LaneBulk, bulkPerChannel)
	r.lanes = []*lane{newLane(r, postgres.LaneTransactional, singlesPerChannel), r.bulk}
	return r
}

func newLane(r *Role, name string, perChannel int) *lane {
	return &lane{
		role: r, name: name, perChannel: perChannel, wake: make(chan struct{}, 1), handed: make(chan struct{}, 1), slots: make(chan struct{}, r.cfg.Runners), active: map[string]int{},
	}
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
	r.senders.close()
	return err
}

// lane is one claim loop with its own share of the process (decision D10).
type lane struct {
	role       *Role
	name       string
	perChannel int // chunks of one channel in work
	wake       chan struct{}
	handed     chan struct{} // wakes for chunks in memory alone: the database is not asked
	slots      chan struct{}
	asked      time.Time // when the database was asked last

	mu     sync.Mutex
	active map[string]int // chunks in work, by channel
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
	var running sync.WaitGroup
	defer running.Wait()
	claim := true
	for ctx.Err() == nil {
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		// Not ctx: a claim that is called off may have been made, and would lie until its
		// lease is over.
		r, err := l.next(work, claim)
		if err != nil || r == nil {
			<-l.slots
			if err != nil && ctx.Err() == nil {
				l.role.cfg.Logger.WarnContext(ctx, "no chunk could be claimed", "lane", l.name, "err", err)
			}
			claim = l.wait(ctx)
			continue
		}
		l.add(r.chunk.ChannelID, 1)
		running.Go(func() {
			inWork := l.role.cfg.Metrics.chunks.WithLabelValues(l.name)
			inWork.Inc()
			r.run(ctx, work)
			inWork.Dec()
			l.add(r.chunk.ChannelID, -1)
			<-l.slots
			l.left(r.chunk.ChannelID)
		})
	}
}

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
	c, err := l.role.cfg.Store.ClaimChunk(ctx, l.name, l.role.types, l.capped(), lease)
	if err != nil || c == nil {
		return nil, err
	}
	return newRunner(l.role, c, nil), nil
}

// full reports whether a channel has its share of this process.
func (l *lane) full(channelID string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.active[channelID] >= l.perChannel
}

// capped are the channels that have their share of this process.
func (l *lane) capped() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for id, n := range l.active {
		if n >= l.perChannel {
			ids = append(ids, id)
		}
	}
	return ids
}

func (l *lane) add(channelID string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active[channelID] += n
	if l.active[channelID] == 0 {
		delete(l.active, channelID)
	}
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
