package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/turumba/turumba/services/messaging"
)

const (
	// rateWindow is how far ahead bulk may reserve, and how much at a time.
	rateWindow = 250 * time.Millisecond
	// singlesAhead is how far ahead single messages may: as far as bulk gets with its last
	// window. With less they would never find the channel free while a send is running.
	singlesAhead = 2 * rateWindow
)

// Reserve takes slots of a channel's rate of perMinute messages (decision D9),
// by the generic cell rate algorithm on one row. It returns how many of the
// wanted messages may leave now, or how long to wait. Time that passes unused is
// lost: after a rest a lane is ahead as far as it may reserve, and no more. Whatever
// bulk has taken ahead, a single message goes before what bulk takes next. What was taken at
// a rate that was much lower is forgotten: who raises the rate need not wait it out.
func (s *Store) Reserve(ctx context.Context, channelID, lane string, perMinute int32, want int) (granted int, wait time.Duration, err error) {
	rate := float64(perMinute) / 60
	ahead := singlesAhead
	if lane == LaneBulk {
		rate *= messaging.BulkShare
		ahead = rateWindow
		want = min(want, max(1, int(rate*rateWindow.Seconds())))
	} else {
		want = 1
	}
	step := time.Duration(float64(want) / rate * float64(time.Second))
	forget := 2 * (singlesAhead + max(rateWindow, time.Duration(60/float64(perMinute)/messaging.BulkShare*float64(time.Second)))) // twice the most of either lane
	var taken bool
	var seconds float64
	err = s.db.QueryRow(ctx, `
		WITH taken AS (
			INSERT INTO channel_rates AS r (key, tat) VALUES ($1, now() + $2::interval)
			ON CONFLICT (key) DO UPDATE SET tat = CASE WHEN r.tat > now() + $4::interval THEN now() ELSE greatest(r.tat, now()) END + $2::interval
			WHERE r.tat <= now() + $3::interval OR r.tat > now() + $4::interval
			RETURNING 1)
		SELECT EXISTS (SELECT 1 FROM taken), coalesce((SELECT extract(epoch FROM tat - now() - $3::interval)::float8 FROM channel_rates WHERE key = $1), 0)`,
		channelID, interval(step), interval(ahead), interval(forget)).Scan(&taken, &seconds)
	if err != nil {
		return 0, 0, fmt.Errorf("reserve the channel's rate: %w", err)
	}
	if taken {
		return want, 0, nil
	}
	return 0, max(time.Duration(seconds*float64(time.Second)), time.Millisecond), nil
}
