// Package clock is the only place that reads the time of day. Everything that
// needs the time or a timer takes a Clock, so tests can move time by hand.
package clock

import (
	"context"
	"time"
)

// Clock tells the time and makes timers. Implementations are safe for
// concurrent use.
type Clock interface {
	// Now returns the current time.
	Now() time.Time
	// NewTimer returns a timer that fires once, d from now. A d of zero or less
	// fires at once.
	NewTimer(d time.Duration) Timer
}

// Timer fires once.
type Timer interface {
	// C returns the channel that receives the time at which the timer fired.
	C() <-chan time.Time
	// Stop prevents the timer from firing and reports whether it was still
	// pending. It does not close or drain the channel.
	Stop() bool
}

// System returns the machine's clock.
func System() Clock { return system{} }

type system struct{}

func (system) Now() time.Time { return time.Now() }

func (system) NewTimer(d time.Duration) Timer { return systemTimer{time.NewTimer(d)} }

type systemTimer struct{ timer *time.Timer }

func (t systemTimer) C() <-chan time.Time { return t.timer.C }

func (t systemTimer) Stop() bool { return t.timer.Stop() }

// Sleep waits for d on the clock. It returns ctx.Err() if ctx ends first, and
// nil otherwise; a d of zero or less returns at once.
func Sleep(ctx context.Context, c Clock, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d <= 0 {
		return nil
	}
	timer := c.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
