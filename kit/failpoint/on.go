//go:build chaos

package failpoint

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/turumba/turumba/kit/clock"
)

// planned is what FP asks for, read at the first hit. It is a global because the
// points lie where nothing could hand it down.
var planned = sync.OnceValue(func() map[Point]*action {
	plan, err := parse(os.Getenv("FP"))
	if err != nil {
		panic(err) // a run without its fault would pass for the wrong reason
	}
	return plan
})

// Hit does what FP asks for at the point.
func Hit(ctx context.Context, p Point) error {
	a := planned()[p]
	if a == nil {
		return nil
	}
	if n := a.hits.Add(1); a.nth != 0 && n != a.nth {
		return nil
	}
	fmt.Fprintf(os.Stderr, "failpoint %s: %s\n", p, a.verb)
	return a.do(ctx)
}

// action is what happens at a point.
type action struct {
	verb string
	wait time.Duration
	nth  int64 // 0: every hit
	hits atomic.Int64
}

func (a *action) do(ctx context.Context) error {
	switch a.verb {
	case "exit":
		os.Exit(137) // as after kill -9: nothing is deferred, nothing flushed
	case "panic":
		panic("failpoint: injected panic")
	case "error":
		return ErrInjected
	case "sleep":
		return clock.Sleep(ctx, clock.System(), a.wait)
	case "block":
		lift := make(chan os.Signal, 1)
		signal.Notify(lift, syscall.SIGUSR1)
		defer signal.Stop(lift)
		select {
		case <-lift:
		case <-ctx.Done():
		}
	}
	return nil
}

// parse reads name=verb[:duration][@nth], separated by semicolons.
func parse(text string) (map[Point]*action, error) {
	plan := map[Point]*action{}
	for entry := range strings.SplitSeq(text, ";") {
		if entry == "" {
			continue
		}
		name, what, _ := strings.Cut(entry, "=")
		if !slices.Contains(Points(), Point(name)) {
			return nil, fmt.Errorf("FP: there is no failpoint %q", name)
		}
		a, err := parseAction(what)
		if err != nil {
			return nil, fmt.Errorf("FP: %s: %w", name, err)
		}
		plan[Point(name)] = a
	}
	return plan, nil
}

func parseAction(text string) (a *action, err error) {
	a = &action{}
	what, nth, counted := strings.Cut(text, "@")
	if counted {
		if a.nth, err = strconv.ParseInt(nth, 10, 32); err != nil || a.nth < 1 {
			return nil, fmt.Errorf("%q is no number of a hit", nth)
		}
	}
	verb, wait, timed := strings.Cut(what, ":")
	a.verb = verb
	if timed != (verb == "sleep") || !slices.Contains([]string{"exit", "panic", "error", "sleep", "block"}, verb) {
		return nil, fmt.Errorf("%q is no action", what)
	}
	if timed {
		if a.wait, err = time.ParseDuration(wait); err != nil {
			return nil, err
		}
	}
	return a, nil
}
