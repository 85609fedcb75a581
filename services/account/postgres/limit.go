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

// TakeAttempt counts one attempt for each limit. When one is used up it returns
// how long to wait; the attempt counts all the same.
func (s *Store) TakeAttempt(ctx context.Context, limits []Limit) (wait time.Duration, err error) {
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
				wait = max(wait, end.Sub(tx.Now))
			}
		}
		return nil
	})
	return wait, err
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
