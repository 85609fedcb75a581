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

	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

const (
	// window is the most messages between two passages of the gate, and bulkPerChannel
	// how many chunks of a channel a process has in work in the bulk lane: together the
	// most messages of sends whose outcome a crash can leave unknown.
	window         = 64
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
	Clock    clock.Clock
	Logger   *slog.Logger
	// Runners is how many chunks of a lane are in work at a time; 0 means 64.
	Runners int
}

// Role is the dispatch role of a worker.
type Role struct {
	cfg     Config
	types   []string
	senders *senders
	lanes   []*lane
}

// New makes the role for the channel types that the adapters serve.
func New(cfg Config) *Role {
	if cfg.Runners == 0 {
		cfg.Runners = defaultRunners
	}
	r := &Role{cfg: cfg, senders: newSenders(cfg)}
	seen := map[string]bool{}
	for _, a := range cfg.Adapters {
		if !seen[a.Type()] {
			seen[a.Type()] = true
			r.types = append(r.types, a.Type())
		}
	}
	for name, perChannel := range map[string]int{postgres.LaneTransactional: singlesPerChannel, postgres.LaneBulk: bulkPerChannel} {
		r.lanes = append(r.lanes, &lane{
			role: r, name: name, perChannel: perChannel, wake: make(chan struct{}, 1), slots: make(chan struct{}, cfg.Runners), active: map[string]int{},
		})
	}
	return r
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
	slots      chan struct{}

	mu     sync.Mutex
	active map[string]int // chunks in work, by channel
}

func (l *lane) look() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run claims until ctx ends and waits for what is in work.
func (l *lane) run(ctx, work context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for ctx.Err() == nil {
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		// Not ctx: a claim that is called off may have been made, and would lie until its
		// lease is over.
		c, err := l.role.cfg.Store.ClaimChunk(work, l.name, l.role.types, l.capped(), lease)
		if err != nil || c == nil {
			<-l.slots
			if err != nil && ctx.Err() == nil {
				l.role.cfg.Logger.WarnContext(ctx, "no chunk could be claimed", "lane", l.name, "err", err)
			}
			l.wait(ctx)
			continue
		}
		l.add(c.ChannelID, 1)
		running.Go(func() {
			newRunner(l.role, c).run(ctx, work)
			l.add(c.ChannelID, -1)
			<-l.slots
			l.look()
		})
	}
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

func (l *lane) wait(ctx context.Context) {
	t := l.role.cfg.Clock.NewTimer(poll)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C():
	case <-l.wake:
	}
}
