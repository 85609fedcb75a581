// Package fanout turns a queued group message into messages: it leases the job,
// streams the recipients from the account service and writes them, chunk by
// chunk, each with its cursor. Whoever takes over after a crash goes on at the
// cursor.
package fanout

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/failpoint"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

const (
	// lease is how long a job is a worker's without a sign of life; every chunk
	// written is one.
	lease = 10 * time.Second
	// poll is the longest time between two looks for work.
	poll = time.Second
	// again is how long a job waits after an error that may pass.
	again = 2 * time.Second
	// workers is how many sends a process fans out at a time.
	workers = 2
	// letGo bounds the last statement after a stop.
	letGo = 3 * time.Second
)

// Directory is what the account service tells.
type Directory interface {
	// Sender returns the names that templates may use.
	Sender(ctx context.Context, accountID, userID string) (accountName, senderName, senderEmail string, err error)
	// Recipients calls each with the members of the groups, ascending and each
	// once, from the one after cursor on.
	Recipients(ctx context.Context, accountID string, groupIDs []string, cursor string, size int32, each func([]messaging.Recipient) error) error
}

// Role is the fan-out role of a worker.
type Role struct {
	Store     *postgres.Store
	Directory Directory
	Clock     clock.Clock
	Logger    *slog.Logger
	// Written is called after every chunk.
	Written func()
	wake    chan struct{}
}

// New makes the role.
func New(store *postgres.Store, directory Directory, c clock.Clock, log *slog.Logger, written func()) *Role {
	return &Role{Store: store, Directory: directory, Clock: c, Logger: log, Written: written, wake: make(chan struct{}, 1)}
}

// Wake makes the role look for work at once. It never blocks.
func (r *Role) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (r *Role) Run(ctx context.Context) error {
	var g errgroup.Group
	for range workers {
		g.Go(func() error {
			r.work(ctx)
			return nil
		})
	}
	return g.Wait()
}

func (r *Role) work(ctx context.Context) {
	for ctx.Err() == nil {
		job, err := r.claim(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			r.Logger.WarnContext(ctx, "no fan-out job could be claimed", "err", err)
			r.wait(ctx)
		case job == nil:
			r.wait(ctx)
		default:
			r.Wake() // there may be more for the others
			r.handle(ctx, *job)
		}
	}
}

// claim goes on when ctx ends: one that is called off may have been made, and would
// lie until its lease is over.
func (r *Role) claim(ctx context.Context) (*postgres.FanoutJob, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), letGo)
	defer cancel()
	return r.Store.ClaimFanout(ctx, lease)
}

func (r *Role) wait(ctx context.Context) {
	t := r.Clock.NewTimer(poll)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C():
	case <-r.wake:
	}
}

// handle does one job and gives it back when that failed for a reason that may
// pass.
func (r *Role) handle(ctx context.Context, job postgres.FanoutJob) {
	err := r.fanout(ctx, job)
	if err == nil || errors.Is(err, postgres.ErrFenced) {
		return
	}
	delay := again
	if ctx.Err() != nil {
		delay = 0
	} else {
		r.Logger.WarnContext(ctx, "fan-out interrupted", "group_message_id", job.GroupMessageID, "retry_in", delay, "err", err)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), letGo)
	defer cancel()
	if err := r.Store.ReleaseFanout(last, job, delay); err != nil {
		r.Logger.WarnContext(ctx, "fan-out job not released; its lease will end", "group_message_id", job.GroupMessageID, "err", err)
	}
}

func (r *Role) fanout(ctx context.Context, job postgres.FanoutJob) error {
	f, err := r.Store.StartFanout(ctx, job, lease)
	if err != nil || f == nil {
		return err
	}
	p, err := r.prepare(ctx, f)
	if err != nil {
		return err
	}
	err = r.Directory.Recipients(ctx, job.AccountID, f.Group.ContactGroupIDs, job.Cursor, postgres.MaxChunk, func(list []messaging.Recipient) error {
		defer r.Written()
		b := p.batch(list)
		suppressed, err := r.Store.Suppressed(ctx, job.AccountID, f.ChannelType, p.keys(b))
		if err != nil {
			return err
		}
		return r.write(ctx, f, p.without(b, suppressed))
	})
	switch {
	case err == nil, errors.Is(err, postgres.ErrStopped):
		if err := failpoint.Hit(ctx, failpoint.FanoutBeforeEnd); err != nil {
			return err
		}
		return r.Store.FinishFanout(ctx, f)
	case apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND):
		return r.Store.FailFanout(ctx, f, "a contact group of the send does not exist any more")
	}
	return err
}

// write stores one stretch of recipients.
func (r *Role) write(ctx context.Context, f *postgres.Fanout, b postgres.FanoutBatch) error {
	if err := failpoint.Hit(ctx, failpoint.FanoutBeforeBatch); err != nil {
		return err
	}
	if err := r.Store.WriteFanout(ctx, f, b); err != nil {
		return err
	}
	return failpoint.Hit(ctx, failpoint.FanoutAfterBatch)
}

// prepare reads what all recipients of the send share.
func (r *Role) prepare(ctx context.Context, f *postgres.Fanout) (*plan, error) {
	g := f.Group
	account, sender, email, err := r.Directory.Sender(ctx, g.AccountID, g.CreatedByUserID)
	if err != nil && !apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) { // its user may have left
		return nil, err
	}
	renderer, err := messaging.NewRenderer(*g.Snapshot)
	if err != nil {
		return nil, err
	}
	p := newPlan(f, renderer, messaging.Sources{Custom: g.CustomValues, AccountName: account, SenderName: sender, SenderEmail: email, Now: *g.StartedAt})
	if f.Job.Cursor == "" {
		return p, nil
	}
	addresses, err := r.Store.SentAddresses(ctx, g)
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		p.duplicate(a)
	}
	return p, nil
}
