// Package jobs runs what a process does besides answering calls: loops that look
// for work again and again (Loop), and queues of jobs that wait in a table (Queue).
//
// # Leases
//
// A job is a row. Claim takes one by a lease: it writes until when the job is ours
// and hands out a number (an epoch) that is higher with each claim. Nobody else takes
// the job before the lease is over. A process that dies says nothing; its lease ends
// and somebody else goes on.
//
// A lease is kept only by who makes progress: by a statement or a call that has
// finished (Progress), or by a call in flight that is younger than its own limit
// (Call). A goroutine that merely lives keeps nothing, else one that hangs would hold
// its job for ever.
//
// # Fences
//
// A process that was frozen wakes up and believes that its lease still holds. So each
// statement of a job names the epoch of its claim and changes nothing if a newer claim
// exists: the store returns ErrFenced, and the job is let go without another word.
// The clock never decides who owns a job; the epoch in the row does.
//
// # Wakes
//
// Wake makes a loop look at once. It is a hint: it may be lost, come twice, or come
// before the row can be seen, and everything still works, one poll later. A wake is
// registered with the transaction that stores the job (pg.Tx.Wake), not called by
// whoever happens to know of the commit.
//
// # Limits
//
// A connection may take bytes and never answer (a failover, a frozen host, lost NAT
// state). So each claim, extension and release has a limit (Limit), and each job or
// turn ends when nothing of it finishes for as long (Stall): a dead connection costs
// one limit, not the loop.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/turumba/turumba/kit/clock"
)

// The limits where none is set.
const (
	// DefaultLimit bounds one claim, extension or release.
	DefaultLimit = 3 * time.Second
	// DefaultStall is how long a job or a turn may go without progress.
	DefaultStall = 10 * time.Second
	// DefaultPoll is the longest time between two looks for work.
	DefaultPoll = time.Second
)

var (
	// ErrFenced is what a store returns, wrapped or not, when the caller's claim is no
	// longer the newest, or the job is gone.
	ErrFenced = errors.New("another worker has the job")
	// ErrStalled ends the context of a job or a turn that made no progress in time.
	ErrStalled = errors.New("no progress")
)

// Queue works on the jobs of one table. Set Name, Clock, Logger, Claim, Do and Release;
// the rest has defaults. Do not change it after Run or Wake.
type Queue[J any] struct {
	// Name names the queue in logs, readiness and metrics.
	Name string
	// Workers is how many jobs are in work at a time; 0 means 1.
	Workers int
	// Lease is how long a claim holds without a sign of progress.
	Lease time.Duration
	// Poll is the longest time between two looks; 0 means DefaultPoll.
	Poll time.Duration
	// Retry is how long a job waits after an error that may pass.
	Retry time.Duration
	// Limit bounds each claim, extension and release; 0 means DefaultLimit.
	Limit time.Duration
	// Stall is how long Do may go without progress before its context ends; 0 means
	// DefaultStall. Without Extend it should not be longer than Lease.
	Stall time.Duration
	Clock clock.Clock
	// Logger gets failures, without contents of jobs.
	Logger *slog.Logger
	// Loops get the finished turns; nil tells nobody.
	Loops *Loops

	// Claim takes the job that waits longest; nil when there is none. It goes on when
	// the queue stops: a claim that is called off may have been made, and its job would
	// lie until the lease is over.
	Claim func(ctx context.Context, lease time.Duration) (*J, error)
	// Do does a job to its end. ctx ends when the queue stops, when nothing finishes for
	// Stall, and when an extension finds the job fenced.
	Do func(ctx context.Context, job *J) error
	// Release gives a claim back; the job can be claimed again after delay, which is 0
	// after a stop and Retry after a failure. It is not called for ErrFenced.
	Release func(ctx context.Context, job *J, delay time.Duration) error
	// Extend renews a lease three times in its length while there is progress; nil where
	// the statements of Do renew it themselves.
	Extend func(ctx context.Context, job *J, lease time.Duration) error
	// ID names a job in logs; nil names none.
	ID func(job *J) string

	wakes
}

// Run works until ctx ends and what is in work has been given back; it returns nil.
func (q *Queue[J]) Run(ctx context.Context) error {
	l := &Loop{Name: q.Name, Workers: q.Workers, Clock: q.Clock, Logger: q.Logger, Loops: q.Loops}
	return l.run(ctx, &q.wakes, q.turn)
}

// turn claims a job and does it.
func (q *Queue[J]) turn(ctx context.Context, t *Turns) (pause time.Duration, err error) {
	poll := or(q.Poll, DefaultPoll)
	job, err := q.claim(ctx)
	if err != nil {
		return poll, fmt.Errorf("claim: %w", err)
	}
	if job == nil {
		t.Done()
		return poll, nil
	}
	q.Wake() // there may be more for the others
	if ctx.Err() == nil {
		err = q.do(ctx, t, job)
	} else {
		err = ctx.Err()
	}
	q.settle(ctx, t, job, err)
	return 0, nil
}

func (q *Queue[J]) claim(ctx context.Context) (*J, error) {
	ctx, cancel := q.bound(ctx)
	defer cancel()
	job, err := q.Claim(ctx, q.Lease)
	return job, stalled(ctx, err)
}

// bound is the context of a statement that outlasts a stop.
func (q *Queue[J]) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), or(q.Limit, DefaultLimit))
}

func (q *Queue[J]) do(ctx context.Context, t *Turns, job *J) error {
	w := &watch{turns: t, clock: q.Clock, stall: or(q.Stall, DefaultStall), lease: q.Lease}
	if q.Extend != nil {
		w.extend = func(ctx context.Context) error {
			ctx, cancel := q.bound(ctx)
			defer cancel()
			err := q.Extend(ctx, job, q.Lease)
			if err != nil && !errors.Is(err, ErrFenced) {
				q.Logger.WarnContext(ctx, "lease not extended", "loop", q.Name, "job", q.id(job), "err", err)
			}
			return err
		}
	}
	return w.run(ctx, func(ctx context.Context) error { return q.Do(ctx, job) })
}

// settle gives a job back that is not done. One that failed ends a turn all the same:
// only one that stalled says that the loop itself stands still.
func (q *Queue[J]) settle(ctx context.Context, t *Turns, job *J, err error) {
	if !errors.Is(err, ErrStalled) {
		t.Done()
	}
	if err == nil {
		return
	}
	if errors.Is(err, ErrFenced) {
		q.Loops.failed(q.Name, err)
		return
	}
	var delay time.Duration
	if ctx.Err() == nil {
		delay = q.Retry
		q.Loops.failed(q.Name, err)
		q.Logger.WarnContext(ctx, "job interrupted", "loop", q.Name, "job", q.id(job), "retry_in", delay, "err", err)
	}
	ctx, cancel := q.bound(ctx)
	defer cancel()
	if err := q.Release(ctx, job, delay); err != nil && !errors.Is(err, ErrFenced) {
		q.Logger.WarnContext(ctx, "job not released; its lease will end", "loop", q.Name, "job", q.id(job), "err", err)
	}
}

func (q *Queue[J]) id(job *J) string {
	if q.ID == nil {
		return ""
	}
	return q.ID(job)
}

// or is the value, or the default where it is zero.
func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
