package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/process"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// holdConfig is what `hold` takes.
type holdConfig struct {
	Operator
	Reason string `env:"TURUMBA_HOLD_REASON" envDefault:"turumba hold" flag:"reason" help:"why, for whoever asks --status later"`
	Status bool   `env:"TURUMBA_HOLD_STATUS" flag:"status" help:"tell whether something is held, since when and why; change nothing"`
}

// hold keeps every worker from handing messages to providers.
func hold(ctx context.Context, environ, args []string, stdout, stderr io.Writer) int {
	return process.Main(ctx, environ, args, stdout, stderr, func(ctx context.Context, cfg holdConfig) error {
		s, done, err := cfg.store(ctx)
		if err != nil {
			return err
		}
		defer done()
		h, err := s.Held(ctx)
		already := h != nil
		if err == nil && !cfg.Status && !already {
			h, err = s.Hold(ctx, cfg.Reason)
		}
		if err != nil {
			return err
		}
		if cfg.JSON {
			return printJSON(stdout, holdReport{Held: h != nil, Already: already, Hold: h})
		}
		printHold(stdout, h, already)
		return nil
	})
}

// holdReport is what is held, and whether it was before.
type holdReport struct {
	Held    bool `json:"held"`
	Already bool `json:"already"`
	*postgres.Hold
}

func printHold(w io.Writer, h *postgres.Hold, already bool) {
	if h == nil {
		fmt.Fprintln(w, "nothing is held")
		return
	}
	was := ""
	if already {
		was = "already "
	}
	fmt.Fprintf(w, "%sheld since %s (%s): no message leaves until turumba release; calls that are under way end\n", was, h.HeldAt.Format(time.RFC3339), h.Reason)
}

// releaseConfig is what `release` takes.
type releaseConfig struct {
	Operator
	Since  string `env:"TURUMBA_RELEASE_SINCE" flag:"since" help:"after a restore: hold, for the time at which the hold began (workers first, then the services), or the time at which the backup had ended, RFC 3339. What waited then is given up with the outcome unknown instead of being sent, because it may have been sent after the backup was made"`
	DryRun bool   `env:"TURUMBA_DRY_RUN" flag:"dry-run" help:"with --since: tell how many messages would be given up and how many sent; change nothing"`
}

// Validate reports what Load cannot see by the types.
func (c releaseConfig) Validate() error {
	if c.Since == "" && c.DryRun {
		return errors.New("--dry-run needs --since, the time of the backup")
	}
	if c.Since == "" || c.Since == sinceHold {
		return nil
	}
	since, err := time.Parse(time.RFC3339, c.Since)
	if err != nil {
		return errors.New("--since is not a time of RFC 3339 (expected hold, or for example 2026-11-30T09:15:00Z)")
	}
	if since.After(clock.System().Now()) {
		return errors.New("--since is a time to come; expected the time of the backup")
	}
	return nil
}

// sinceHold stands for the time at which the hold began: no later than anything new where
// the workers were started with it before the services, and after any backup.
const sinceHold = "hold"

// since is the time that is given up.
func (c releaseConfig) since(h *postgres.Hold) time.Time {
	if c.Since == sinceHold && h != nil {
		return h.HeldAt
	}
	at, _ := time.Parse(time.RFC3339, c.Since) // Validate has parsed it
	return at
}

// releaseReport is what `release` did.
type releaseReport struct {
	Released bool `json:"released"`
	GivenUp  int  `json:"given_up"`
}

// release lets messages leave again.
func release(ctx context.Context, environ, args []string, stdout, stderr io.Writer) int {
	return process.Main(ctx, environ, args, stdout, stderr, func(ctx context.Context, cfg releaseConfig) error {
		s, done, err := cfg.store(ctx)
		if err != nil {
			return err
		}
		defer done()
		h, err := s.Held(ctx)
		if err != nil {
			return err
		}
		if cfg.DryRun {
			return wouldRelease(ctx, s, h, cfg, stdout)
		}
		r := releaseReport{Released: h != nil}
		if r.GivenUp, err = giveUp(ctx, s, h, cfg, stderr); err != nil {
			return err
		}
		if err := s.Release(ctx); err != nil {
			return err
		}
		if cfg.JSON {
			return printJSON(stdout, r)
		}
		r.print(stdout)
		return nil
	})
}

// wouldRelease tells what a release would do.
func wouldRelease(ctx context.Context, s *postgres.Store, h *postgres.Hold, cfg releaseConfig, w io.Writer) error {
	would, err := s.Waiting(ctx, cfg.since(h))
	if err != nil {
		return err
	}
	if cfg.JSON {
		return printJSON(w, would)
	}
	fmt.Fprintf(w, "%d messages would be given up, and all of %d sends whose recipients are not written yet; %d would be sent\n", would.GivenUp, would.Sends, would.Sent)
	return nil
}

func (r releaseReport) print(w io.Writer) {
	if !r.Released {
		fmt.Fprintln(w, "nothing was held")
		return
	}
	fmt.Fprintf(w, "released; %d messages were given up with the outcome unknown\n", r.GivenUp)
}

// giveUpPause is how long a release waits for what workers have in hand.
const giveUpPause = 500 * time.Millisecond

// giveUp gives up what waited at the time of the backup. One that was interrupted goes on,
// also without --since: its time is in the database.
func giveUp(ctx context.Context, s *postgres.Store, h *postgres.Hold, cfg releaseConfig, progress io.Writer) (total int, err error) {
	if cfg.Since == "" && (h == nil || h.Since == nil) {
		return 0, nil
	}
	if h, err = s.BeginGivingUp(ctx, cfg.since(h)); err != nil {
		return 0, err
	}
	fmt.Fprintf(progress, "giving up what waited at %s\n", h.Since.Format(time.RFC3339))
	var told postgres.Left
	for {
		n, err := s.GiveUp(ctx)
		if err != nil {
			return total, err
		}
		if total += n; n > 0 {
			continue
		}
		left, err := s.Left(ctx)
		if err != nil || left == (postgres.Left{}) {
			return total, err
		}
		if left != told {
			told = left
			fmt.Fprintf(progress, "%d given up; waiting for the workers: %d sends whose recipients are written, %d chunks in hand\n", total, left.Sends, left.InWork)
		}
		if err := clock.Sleep(ctx, clock.System(), giveUpPause); err != nil {
			return total, fmt.Errorf("interrupted; still held, turumba release goes on: %w", err)
		}
	}
}
