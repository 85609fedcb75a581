package upkeep

import (
	"context"
	"fmt"
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
func (r *Role) eraseOnDemand(ctx context.Context) (time.Duration, error) {
	n, worked, err := r.Store.StepErasure(ctx)
	if err != nil {
		return poll, err
	}
	r.Metrics.erased.WithLabelValues("demand").Add(float64(n))
	if !worked {
		return poll, nil
	}
	return erasePause, nil
}

// retention erases what accounts keep no longer, account by account.
type retention struct {
	*Role
	days map[string]int32
	left []string // accounts of this round
}

// step is a step in one account. While the account service is away nothing is erased.
func (r *retention) step(ctx context.Context) (time.Duration, error) {
	if len(r.left) == 0 {
		days, err := r.Accounts.MessageRetention(ctx)
		if err != nil {
			return time.Minute, fmt.Errorf("read the retention of accounts: %w", err)
		}
		if len(days) == 0 {
			return retainEvery, nil
		}
		r.days, r.left = days, slices.Sorted(maps.Keys(days))
	}
	account := r.left[0]
	n, done, err := r.Store.Retain(ctx, account, time.Duration(r.days[account])*day)
	r.Metrics.erased.WithLabelValues("retention").Add(float64(n))
	if done || err != nil { // after an error the next round tries again
		r.left = r.left[1:]
	}
	if len(r.left) == 0 {
		return retainEvery, err
	}
	return erasePause, err
}
