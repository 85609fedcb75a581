package upkeep

import (
	"context"
	"maps"
	"slices"
	"time"
)

const (
	// erasePause is the time between two steps of erasing, for those who send.
	erasePause = 20 * time.Millisecond
	// retainEvery is how often the accounts' retention is looked after.
	retainEvery = 10 * time.Minute
	// day is what retention counts in.
	day = 24 * time.Hour
)

// eraseOnDemand goes on with the erasures of persons' messages.
func (r *Role) eraseOnDemand(ctx context.Context) time.Duration {
	n, worked, err := r.Store.StepErasure(ctx)
	if err != nil {
		r.warn(ctx, "an erasure of messages could not go on", err)
		return poll
	}
	r.Metrics.erased.WithLabelValues("demand").Add(float64(n))
	if !worked {
		return poll
	}
	return erasePause
}

// retention erases what accounts keep no longer, account by account.
type retention struct {
	*Role
	days map[string]int32
	left []string // accounts of this round
}

// step is a step in one account. While the account service is away nothing is erased.
func (r *retention) step(ctx context.Context) time.Duration {
	if len(r.left) == 0 {
		days, err := r.Accounts.MessageRetention(ctx)
		if err != nil {
			r.warn(ctx, "the retention of messages could not be read", err)
			return time.Minute
		}
		if len(days) == 0 {
			return retainEvery
		}
		r.days, r.left = days, slices.Sorted(maps.Keys(days))
	}
	account := r.left[0]
	n, done, err := r.Store.Retain(ctx, account, time.Duration(r.days[account])*day)
	if err != nil {
		r.warn(ctx, "texts of messages could not be erased", err)
		done = true // the next round tries again
	}
	r.Metrics.erased.WithLabelValues("retention").Add(float64(n))
	if done {
		r.left = r.left[1:]
	}
	if len(r.left) == 0 {
		return retainEvery
	}
	return erasePause
}
