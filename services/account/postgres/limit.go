package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
)

// Limit is how often something may happen in a window.
type Limit struct {
	Key    string
	Most   int
	Window time.Duration
}

// Over is a limit that is used up, for Wait; the zero Over is none.
type Over struct {
	Limit
	Wait time.Duration
}

// TakeAttempt counts one attempt for each limit, in order. When one is used up it returns
// that, and those after it are not touched; who comes again meanwhile costs one look.
func (s *Store) TakeAttempt(ctx context.Context, limits []Limit) (over Over, err error) {
	if over, err := s.UsedUp(ctx, limits); err != nil || over.Wait > 0 {
		return over, err
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
				over = Over{l, end.Sub(tx.Now)}
				return nil
			}
		}
		return nil
	})
	return over, err
}

// UsedUp is the limit that is used up for the longest; the zero Over when none is.
func (s *Store) UsedUp(ctx context.Context, limits []Limit) (Over, error) {
	keys, most := make([]string, len(limits)), make([]int, len(limits))
	for i, l := range limits {
		keys[i], most[i] = l.Key, l.Most
	}
	var at int
	var end time.Time
	now := s.db.Now()
	err := s.db.QueryRow(ctx, `
		SELECT l.at, a.window_end FROM attempt_limits a JOIN unnest($1::text[], $2::int[]) WITH ORDINALITY AS l (key, most, at) USING (key)
		WHERE a.attempts >= l.most AND a.window_end > $3 ORDER BY a.window_end DESC LIMIT 1`, keys, most, now).Scan(&at, &end)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Over{}, nil
	case err != nil:
		return Over{}, fmt.Errorf("look for attempts: %w", err)
	}
	return Over{limits[at-1], end.Sub(now)}, nil
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
