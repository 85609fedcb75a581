// Package upkeep puts right what time brings: leases of the dead, retries whose
// wait is over, messages that came too late, accounts that were suspended, texts that
// are to be erased, and the partitions of the days to come.
package upkeep

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging/postgres"
)

const (
	// poll is the longest time between two looks.
	poll = time.Second
	// partitionsEvery is how often partitions are made and dropped.
	partitionsEvery = time.Hour
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
}

// Run works until ctx ends.
func (r *Role) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, job := range []func(context.Context) time.Duration{r.recoverLeases, r.releaseDue, r.expireMessages, r.blockAccounts, r.partitions, r.measure, r.eraseOnDemand, (&retention{Role: r}).step} {
		g.Go(func() error {
			for {
				if clock.Sleep(ctx, r.Clock, job(ctx)) != nil {
					return nil
				}
			}
		})
	}
	return g.Wait()
}

// recoverLeases gives back the chunks of workers that died.
func (r *Role) recoverLeases(ctx context.Context) time.Duration {
	chunks, err := r.Store.ExpiredChunks(ctx, recoverLimit)
	if err != nil {
		r.warn(ctx, "expired leases could not be read", err)
		return poll
	}
	for _, c := range chunks {
		unknown, err := r.Store.RecoverChunk(ctx, c)
		if err != nil {
			r.warn(ctx, "an expired chunk could not be recovered", err)
			continue
		}
		r.Metrics.expired.Inc()
		r.Metrics.unknown.WithLabelValues(c.ChannelType).Add(float64(unknown))
		r.Logger.InfoContext(ctx, "chunk recovered from an expired lease", "chunk_id", c.ID, "unknown", unknown)
		r.Ready()
	}
	return poll
}

// releaseDue starts the retries whose time has come.
func (r *Role) releaseDue(ctx context.Context) time.Duration {
	n, err := r.Store.ReleaseDue(ctx)
	if err != nil {
		r.warn(ctx, "due messages could not be released", err)
		return poll
	}
	if n > 0 {
		r.Ready()
		return 0
	}
	next, err := r.Store.NextDue(ctx, poll)
	if err != nil {
		r.warn(ctx, "the next due message could not be found", err)
		return poll
	}
	return max(next, 10*time.Millisecond)
}

// expireMessages gives up what should not be sent any more and waits all the same,
// for a channel or an account that may not send.
func (r *Role) expireMessages(ctx context.Context) time.Duration {
	n, err := r.Store.ExpireMessages(ctx)
	if err != nil {
		r.warn(ctx, "expired messages could not be given up", err)
	}
	if n > 0 && err == nil {
		return 0
	}
	return poll
}

// blockAccounts learns which accounts must not send. While the account service is
// away, what was known goes on.
func (r *Role) blockAccounts(ctx context.Context) time.Duration {
	ids, err := r.Accounts.BlockedAccounts(ctx)
	if err != nil {
		r.warn(ctx, "suspended accounts could not be read", err)
		return 5 * poll
	}
	changed, err := r.Store.BlockAccounts(ctx, ids)
	if err != nil {
		r.warn(ctx, "suspended accounts could not be blocked", err)
	}
	if changed {
		r.Ready()
	}
	return poll
}

func (r *Role) partitions(ctx context.Context) time.Duration {
	if err := r.Store.Upkeep(ctx); err != nil {
		r.warn(ctx, "partitions could not be kept up", err)
		return time.Minute
	}
	return partitionsEvery
}

func (r *Role) warn(ctx context.Context, text string, err error) {
	if ctx.Err() == nil {
		r.Logger.WarnContext(ctx, text, "err", err)
	}
}
