package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/turumba/turumba/kit/pg"
)

// Limit is how often something may happen in a window.
type Limit struct {
	Key    string
	Most   int
	Window time.Duration
}

// TakeAttempt counts one attempt for each limit, in order. When one is used up it returns
// how long to wait, and those after it are not touched; who comes again meanwhile costs
// one look.
func (s *Store) TakeAttempt(ctx context.Context, limits []Limit) (wait time.Duration, err error) {
	if wait, err := s.UsedUp(ctx, limits); err != nil || wait > 0 {
		return wait, err
	}
	err = s.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		for _, l := range limits { // the same order everywhere, so that rivals cannot lock each other out
			var attempts int
			var end time.Time
			err := tx.QueryRow(ctx, `
				INSERT INTO attempt_limits AS a (key, attempts, window_end) VALUES ($1, 1, $3)
				ON CONFLICT (key) DO UPDATE SET
					attempts = CASE WHEN a.window_end > $2 THEN a.attempts + 1 ELSE 1 END,
					window_end = CASE WHEN a.window_end > $2 THEN a.window_end ELSE $3 END
				RETURNING attempts, window_end`, l.Key, tx.Now, tx.Now.Add(l.Window)).Scan(&attempts, &end)
			if err != nil {
				return fmt.Errorf("count an attempt: %w", err)
			}
			if attempts > l.Most {
				wait = end.Sub(tx.Now)
				return nil
			}
		}
		return nil
	})
	return wait, err
}

// UsedUp is how long to wait until none of the limits is used up; zero when none is.
func (s *Store) UsedUp(ctx context.Context, limits []Limit) (wait time.Duration, err error) {
	keys, most := make([]string, len(limits)), make([]int, len(limits))
	for i, l := range limits {
		keys[i], most[i] = l.Key, l.Most
	}
	var end *time.Time
	now := s.db.Now()
	err = s.db.QueryRow(ctx, `
		SELECT max(a.window_end) FROM attempt_limits a JOIN unnest($1::text[], $2::int[]) AS l (key, most) USING (key)
		WHERE a.attempts >= l.most AND a.window_end > $3`, keys, most, now).Scan(&end)
	if err != nil {
		return 0, fmt.Errorf("look for attempts: %w", err)
	}
	if end == nil {
		return 0, nil
	}
	return end.Sub(now), nil
}

// RefundAttempt takes back what a good attempt counted.
func (s *Store) RefundAttempt(ctx context.Context, limits []Limit) error {
	keys := make([]string, len(limits))
	for i, l := range limits {
		keys[i] = l.Key
	}
	_, err := s.db.Exec(ctx, `
		UPDATE attempt_limits SET attempts = attempts - 1
		WHERE key IN (SELECT key FROM attempt_limits WHERE key = ANY ($1) AND attempts > 0 ORDER BY array_position($1, key) FOR UPDATE)`, keys)
	if err != nil {
		return fmt.Errorf("take back an attempt: %w", err)
	}
	return nil
}
