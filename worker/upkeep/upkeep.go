// Package upkeep puts right what time brings: leases of the dead, retries whose
// wait is over, messages that came too late, accounts that were suspended, texts that
// are to be erased, and the partitions of the days to come.
package upkeep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/services/messaging/postgres"
)

const (
	// poll is the longest time between two looks.
	poll = time.Second
	// partitionsEvery is how often partitions are made and dropped.
	partitionsEvery = time.Hour
	// slowStall is how long one statement of what nobody waits for may take.
	slowStall = 25 * time.Second
	// recoverLimit is how many expired leases are taken at a time.
	recoverLimit = 100
)

// Accounts tells which accounts must not send, and for how many days those keep the
// texts of messages that do not keep them for ever.
type Accounts interface {
	BlockedAccounts(ctx context.Context) ([]string, error)
	MessageRetention(ctx context.Context) (map[string]int32, error)
}

// Role is the upkeep role of a worker. Several do no harm.
type Role struct {
	Store    *postgres.Store
	Accounts Accounts
	Clock    clock.Clock
	Logger   *slog.Logger
	// Ready is called when something became ready for dispatch.
	Ready func()
	// Metrics shows what waits.
	Metrics *Metrics
	// Loops get the finished turns; nil tells nobody.
	Loops *jobs.Loops

	held bool // what measure saw last
}

// Run works until ctx ends.
func (r *Role) Run(ctx context.Context) error {
	r.Metrics.begin(r.Clock)
	var g errgroup.Group
	for _, l := range []*jobs.Loop{
		{Name: "upkeep.leases", Turn: r.recoverLeases},
		{Name: "upkeep.retries", Turn: r.releaseDue},
		{Name: "upkeep.expiry", Turn: r.expireMessages},
		{Name: "upkeep.blocked", Turn: r.blockAccounts},
		{Name: "upkeep.depth", Turn: r.measure},
		{Name: "upkeep.partitions", Turn: r.partitions, Stall: slowStall},
		{Name: "upkeep.erasure", Turn: r.eraseOnDemand, Stall: slowStall},
		{Name: "upkeep.retention", Turn: (&retention{Role: r}).step, Stall: slowStall},
	} {
		l.Clock, l.Logger, l.Loops = r.Clock, r.Logger, r.Loops
		g.Go(func() error { return l.Run(ctx) })
	}
	return g.Wait()
}

// recoverLeases gives back the chunks of workers that died.
func (r *Role) recoverLeases(ctx context.Context) (time.Duration, error) {
	chunks, err := r.Store.ExpiredChunks(ctx, recoverLimit)
	if err != nil {
		return poll, err
	}
	var failed []error
	for _, c := range chunks {
		unknown, err := r.Store.RecoverChunk(ctx, c)
		if err != nil {
			failed = append(failed, fmt.Errorf("recover chunk %s: %w", c.ID, err))
			continue
		}
		jobs.Progress(ctx)
		r.Metrics.expired.Inc()
		r.Metrics.unknown.WithLabelValues(c.ChannelType).Add(float64(unknown))
		r.Logger.InfoContext(ctx, "chunk recovered from an expired lease", "chunk_id", c.ID, "unknown", unknown)
		r.Ready()
	}
	return poll, errors.Join(failed...)
}

// releaseDue starts the retries whose time has come.
func (r *Role) releaseDue(ctx context.Context) (time.Duration, error) {
	n, err := r.Store.ReleaseDue(ctx)
	if n > 0 {
		r.Ready()
	}
	if err != nil {
		return poll, err
	}
	if n > 0 {
		return 0, nil
	}
	next, err := r.Store.NextDue(ctx, poll)
	if err != nil {
		return poll, err
	}
	return max(next, 10*time.Millisecond), nil
}

// expireMessages gives up what should not be sent any more and waits all the same,
// for a channel or an account that may not send.
func (r *Role) expireMessages(ctx context.Context) (time.Duration, error) {
	n, err := r.Store.ExpireMessages(ctx)
	if n > 0 && err == nil {
		return 0, nil
	}
	return poll, err
}

// blockAccounts learns which accounts must not send. While the account service is
// away, what was known goes on.
func (r *Role) blockAccounts(ctx context.Context) (time.Duration, error) {
	ids, err := r.Accounts.BlockedAccounts(ctx)
	if err != nil {
		return 5 * poll, fmt.Errorf("read suspended accounts: %w", err)
	}
	changed, err := r.Store.BlockAccounts(ctx, ids)
	if changed {
		r.Ready()
	}
	return poll, err
}

func (r *Role) partitions(ctx context.Context) (time.Duration, error) {
	if err := r.Store.Upkeep(ctx); err != nil {
		return time.Minute, err
	}
	return partitionsEvery, nil
}
