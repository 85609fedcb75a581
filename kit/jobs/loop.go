package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/clock"
)

// Loop does the same thing again and again. Set Name, Turn, Clock and Logger; the rest
// has defaults. Do not change it after Run or Wake.
type Loop struct {
	// Name names the loop in logs, readiness and metrics.
	Name string
	// Workers is how many turns run at a time; 0 means 1.
	Workers int
	// Stall is how long a turn may go without progress before its context ends; 0 means
	// DefaultStall.
	Stall time.Duration
	Clock clock.Clock
	// Logger gets failed turns.
	Logger *slog.Logger
	// Loops get the finished turns; nil tells nobody.
	Loops *Loops
	// Turn does the thing once and says how long to pause after it; 0 is not at all. Wake
	// cuts a pause short, but not the one after an error.
	Turn func(ctx context.Context) (pause time.Duration, err error)
	// Failed tells of a failed turn; nil logs a warning.
	Failed func(ctx context.Context, err error, pause time.Duration)

	wakes
}

// Run takes turns until ctx ends and the last one is over; it returns nil.
func (l *Loop) Run(ctx context.Context) error {
	return l.run(ctx, &l.wakes, func(ctx context.Context, t *Turns) (pause time.Duration, err error) {
		w := &watch{turns: t, clock: l.Clock, stall: or(l.Stall, DefaultStall)}
		err = w.run(ctx, func(ctx context.Context) (err error) {
			pause, err = l.Turn(ctx)
			return err
		})
		if err == nil {
			t.Done()
		}
		return pause, err
	})
}

func (l *Loop) run(ctx context.Context, w *wakes, turn func(context.Context, *Turns) (time.Duration, error)) error {
	var g errgroup.Group
	for range max(l.Workers, 1) {
		g.Go(func() error {
			t := l.Loops.Start(l.Name)
			defer t.End()
			for ctx.Err() == nil {
				pause, err := turn(ctx, t)
				l.finished(ctx, t, pause, err)
				l.rest(ctx, t, w, pause, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// finished counts a turn. One that failed is finished too, unless its limit ended it:
// whether what it needs is there is another question than whether the loop goes round.
func (l *Loop) finished(ctx context.Context, t *Turns, pause time.Duration, err error) {
	if err == nil {
		return
	}
	if !errors.Is(err, ErrStalled) {
		t.Done()
	}
	if ctx.Err() != nil {
		return
	}
	l.Loops.failed(l.Name, err)
	if l.Failed != nil {
		l.Failed(ctx, err, pause)
		return
	}
	l.Logger.WarnContext(ctx, "turn failed", "loop", l.Name, "retry_in", pause, "err", err)
}

// rest waits for the next turn.
func (l *Loop) rest(ctx context.Context, t *Turns, w *wakes, pause time.Duration, err error) {
	if pause <= 0 {
		return
	}
	woken := w.channel()
	if err != nil {
		woken = nil // a storm of wakes must not become a storm of failures
	}
	if !errors.Is(err, ErrStalled) { // what stands still does not rest
		t.Rest(pause)
		defer t.Resume()
	}
	timer := l.Clock.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C():
	case <-woken:
	}
}

// wakes hold one token while there may be something to do.
type wakes struct {
	once  sync.Once
	token chan struct{}
}

func (w *wakes) channel() chan struct{} {
	w.once.Do(func() { w.token = make(chan struct{}, 1) })
	return w.token
}

// Wake makes the loop look at once. It never blocks, and it may be called before Run.
func (w *wakes) Wake() {
	select {
	case w.channel() <- struct{}{}:
	default: // one is on its way, and its look comes after this moment too
	}
}

// watch ends what makes no progress, and keeps its lease while it makes some.
type watch struct {
	turns  *Turns
	clock  clock.Clock
	stall  time.Duration
	lease  time.Duration
	extend func(context.Context) error // nil without
}

// run calls do. Its context ends with ErrStalled when nothing finishes for w.stall, and
// with ErrFenced when an extension says so; the error then is that.
func (w *watch) run(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, turnsKey{}, w.turns))
	var watching sync.WaitGroup
	watching.Go(func() { w.keep(ctx, cancel) })
	err := guarded(ctx, do)
	cancel(nil)
	watching.Wait()
	return stalled(ctx, err)
}

// guarded makes an error of a panic: one job that cannot be done ends no other's.
func guarded(ctx context.Context, do func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return do(ctx)
}

// keep looks after what runs until ctx ends.
func (w *watch) keep(ctx context.Context, cancel context.CancelCauseFunc) {
	began := w.clock.Now()
	extended := began
	for clock.Sleep(ctx, w.clock, w.beat()) == nil {
		now, last := w.clock.Now(), w.turns.last()
		if last.Before(began) {
			last = began
		}
		if now.Sub(last) >= w.stall {
			cancel(ErrStalled)
			return
		}
		if w.extend == nil || !last.After(extended) {
			continue
		}
		switch err := w.extend(ctx); {
		case errors.Is(err, ErrFenced):
			cancel(ErrFenced)
			return
		case err == nil:
			extended = now
		}
	}
}

// beat is the time between two looks.
func (w *watch) beat() time.Duration {
	if w.extend != nil {
		return min(w.lease/3, w.stall/4)
	}
	return w.stall / 4
}

// stalled is err, with the reason if its context ended for one of ours.
func stalled(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, ErrStalled), errors.Is(cause, ErrFenced):
		return fmt.Errorf("%w: %w", cause, err)
	case errors.Is(cause, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrStalled, err)
	}
	return err
}
