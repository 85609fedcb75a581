package jobs_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/telemetry"
)

// row is a job in a table, as stores keep them.
type row struct {
	epoch int
	until time.Time
	steps int // done so far; 3 end the job
}

// table is a table of jobs with statements that may hang, fail, or be made although
// their caller hears nothing.
type table struct {
	mu     sync.Mutex
	rows   map[int]*row
	faults []int // what happens to the next statements; empty: nothing
	double bool  // a step was done twice, or by a claim that was not the newest
}

type claimed struct{ id, epoch int }

// statement runs fn as a server would.
func (x *table) statement(ctx context.Context, fn func()) error {
	x.mu.Lock()
	fault := 0
	if len(x.faults) > 0 {
		fault, x.faults = x.faults[0], x.faults[1:]
	}
	if fault != 1 && fault != 2 {
		fn()
	}
	x.mu.Unlock()
	switch fault {
	case 1:
		return errors.New("refused")
	case 2, 3: // nothing comes back; the second was made
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (x *table) claim(ctx context.Context, lease time.Duration) (c *claimed, err error) {
	err = x.statement(ctx, func() {
		now := clock.System().Now()
		for id, r := range x.rows {
			if c == nil && !r.until.After(now) {
				r.epoch++
				r.until = now.Add(lease)
				c = &claimed{id, r.epoch}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// held is one statement of a claim; it is fenced by a newer one.
func (x *table) held(ctx context.Context, c *claimed, fn func(*row)) error {
	fenced := false
	err := x.statement(ctx, func() {
		r := x.rows[c.id]
		if fenced = r == nil || r.epoch != c.epoch; !fenced {
			fn(r)
		}
	})
	if err == nil && fenced {
		return jobs.ErrFenced
	}
	return err
}

func (x *table) do(ctx context.Context, c *claimed) error {
	for {
		end := false
		err := x.held(ctx, c, func(r *row) {
			r.steps++
			x.double = x.double || r.steps > 3
			if end = r.steps == 3; end {
				delete(x.rows, c.id)
			}
		})
		if err != nil || end {
			return err
		}
		jobs.Progress(ctx)
		if err := clock.Sleep(ctx, clock.System(), 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// TestWhateverHappensEveryJobIsDone: whatever statements hang, are refused or are made
// unheard, and however often a process stops, each job is done, each step once, within
// the sum of the limits.
func TestWhateverHappensEveryJobIsDone(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(rt, "jobs")
		faults := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 20).Draw(rt, "faults")
		stops := rapid.SliceOfN(rapid.IntRange(0, 8000), 0, 3).Draw(rt, "stops")
		x := &table{rows: map[int]*row{}, faults: faults}
		for id := range n {
			x.rows[id] = &row{}
		}
		synctest.Test(t, func(t *testing.T) {
			q := func() *jobs.Queue[claimed] {
				return &jobs.Queue[claimed]{
					Name: "table", Workers: 2, Lease: 10 * time.Second, Retry: time.Second, Clock: clock.System(), Logger: telemetry.Discard(),
					Claim: x.claim, Do: x.do,
					Extend: func(ctx context.Context, c *claimed, lease time.Duration) error {
						return x.held(ctx, c, func(r *row) { r.until = clock.System().Now().Add(lease) })
					},
					Release: func(ctx context.Context, c *claimed, delay time.Duration) error {
						return x.held(ctx, c, func(r *row) { r.until = clock.System().Now().Add(delay) })
					},
				}
			}
			run := func(d time.Duration) {
				ctx, stop := context.WithCancel(t.Context())
				ran := make(chan error, 1)
				go func() { ran <- q().Run(ctx) }()
				pass(d)
				stop()
				require.NoError(t, <-ran)
			}
			for _, ms := range stops {
				run(time.Duration(ms) * time.Millisecond)
			}
			run(time.Duration(len(faults)+n) * (jobs.DefaultStall*5/4 + 2*jobs.DefaultLimit + 10*time.Second))
		})
		if len(x.rows) > 0 || x.double {
			rt.Fatalf("left %d jobs, double %v", len(x.rows), x.double)
		}
	})
}
