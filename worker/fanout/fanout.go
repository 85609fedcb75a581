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

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/failpoint"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

const (
	// lease is how long a job is a worker's without a sign of progress: a stretch read,
	// or written.
	lease = 10 * time.Second
	// again is how long a job waits after an error that may pass.
	again = 2 * time.Second
	// workers is how many sends a process fans out at a time.
	workers = 2
	// letGo bounds the last statement after a stop.
	letGo = 3 * time.Second
	// addressesLimit is how long it may take to read whom a large send has reached.
	addressesLimit = 20 * time.Second
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
	// Adapters say how long a message may be.
	Adapters channel.Adapters
	// Unsubscriber makes the recipients' links; may be nil.
	Unsubscriber *messaging.Unsubscriber
	Clock        clock.Clock
	// Dispatch is the dispatch role of the same process.
	Dispatch Dispatch
	// Metrics counts; nil counts nothing that anybody sees.
	Metrics *Metrics
	// Tracing makes spans; nil makes none.
	Tracing *telemetry.Tracing
	queue   *jobs.Queue[postgres.FanoutJob]
}

// Dispatch is the dispatch role of the same process.
type Dispatch interface {
	// Wake makes it look for ready chunks.
	Wake()
	// Lease is the lease that a new chunk is born with, to be handed over; 0 if it is
	// to be ready for anybody.
	Lease(ctx context.Context, channelType string) time.Duration
	// Hand gives it a chunk that was born in work; false if it takes none any more.
	Hand(c *postgres.Handed) bool
}

// New makes the role. loops get its finished turns; nil tells nobody.
func New(store *postgres.Store, directory Directory, adapters channel.Adapters, links *messaging.Unsubscriber, c clock.Clock, log *slog.Logger, dispatch Dispatch, loops *jobs.Loops) *Role {
	m, _ := NewMetrics(nil) // fails only to register
	r := &Role{Store: store, Directory: directory, Adapters: adapters, Unsubscriber: links, Clock: c, Dispatch: dispatch, Metrics: m}
	r.queue = &jobs.Queue[postgres.FanoutJob]{
		Name: "fanout", Workers: workers, Lease: lease, Retry: again, Limit: letGo, Clock: c, Logger: log, Loops: loops,
		Claim: store.ClaimFanout, Do: r.do, Extend: store.ExtendFanout, Release: store.ReleaseFanout,
		ID: func(job *postgres.FanoutJob) string { return job.GroupMessageID },
	}
	return r
}

// Wake makes the role look for work at once. It never blocks.
func (r *Role) Wake() { r.queue.Wake() }

// Run works until ctx ends.
func (r *Role) Run(ctx context.Context) error { return r.queue.Run(ctx) }

// do does one job.
func (r *Role) do(ctx context.Context, job *postgres.FanoutJob) error {
	began := r.Clock.Now()
	ctx, span := r.Tracing.Tracer("fanout").Start(telemetry.WithTraceparent(ctx, job.Traceparent), "fan out")
	defer span.End()
	err := r.fanout(ctx, *job)
	switch {
	case err == nil:
		r.Metrics.durations.Observe(r.Clock.Now().Sub(began).Seconds())
	case errors.Is(err, jobs.ErrFenced):
		r.Metrics.leasesLost.Inc()
	}
	return err
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
	err = r.recipients(ctx, f, p)
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

// write stores a stretch and hands its chunks to the dispatch of this process,
// which saves reading them again. A channel with a rate limit is slower than any
// read: its chunks are ready for all.
func (r *Role) write(ctx context.Context, f *postgres.Fanout, b postgres.FanoutBatch) error {
	if err := failpoint.Hit(ctx, failpoint.FanoutBeforeBatch); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var lease time.Duration
	if !f.Limited {
		lease = r.Dispatch.Lease(ctx, f.ChannelType)
	}
	work, end := r.outlast(ctx)
	defer end()
	handed, err := r.Store.WriteFanout(work, f, b, lease)
	if err != nil {
		return err
	}
	jobs.Progress(ctx)
	r.Metrics.written(f.ChannelType, len(b.Messages), len(b.Skips))
	if err := failpoint.Hit(ctx, failpoint.FanoutAfterBatch); err != nil {
		return err
	}
	if len(handed) == 0 {
		r.Dispatch.Wake() // some may be ready
	}
	for _, h := range handed {
		if err := r.pass(work, h); err != nil {
			return err
		}
	}
	return nil
}

// outlast goes on when ctx ends, for as long as the last statement may take: a stretch
// that is called off may have been stored, and its chunk would lie until its lease is
// over.
func (r *Role) outlast(ctx context.Context) (work context.Context, end func()) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if clock.Sleep(work, r.Clock, letGo) == nil {
			cancel()
		}
	})
	return work, func() {
		stop()
		cancel()
	}
}

// pass hands over a chunk that was born in work.
func (r *Role) pass(ctx context.Context, handed *postgres.Handed) error {
	if r.Dispatch.Hand(handed) {
		return nil
	}
	return r.Store.EndChunk(ctx, handed.Chunk, nil, postgres.Rest{})
}

// recipients writes all recipients: those given by address, whose values then win over
// what is known of a contact with the same address, then the members of the groups. A
// resend has those of its old send's failed messages alone.
func (r *Role) recipients(ctx context.Context, f *postgres.Fanout, p *plan) error {
	var a ahead
	err := r.stretches(ctx, f, p, func(list []messaging.Recipient) error {
		to, skips, err := p.audience.Sort(p.fresh(list), func(keys []string) (map[string]bool, error) {
			return r.Store.Suppressed(ctx, f.Job.AccountID, f.ChannelType, keys)
		})
		if err != nil {
			return err
		}
		b := postgres.FanoutBatch{Cursor: p.cursor, AddressCursor: p.address, Messages: to, Skips: skips}
		return a.do(func() error { return r.write(ctx, f, b) })
	})
	if last := a.wait(); last != nil {
		return last
	}
	return err
}

// stretches calls each with the recipients, stretch by stretch.
func (r *Role) stretches(ctx context.Context, f *postgres.Fanout, p *plan, each func([]messaging.Recipient) error) error {
	given := r.Store.AddressRecipients
	if f.Group.ResendOfID != "" {
		given = r.Store.FailedRecipients
	}
	if err := given(ctx, f.Group, f.Job.AddressCursor, postgres.MaxBatch, each); err != nil || len(f.Group.ContactGroupIDs) == 0 {
		return err
	}
	members := func(groupIDs []string) func(func([]messaging.Recipient) error) error {
		return func(each func([]messaging.Recipient) error) error {
			return r.Directory.Recipients(ctx, f.Job.AccountID, groupIDs, f.Job.Cursor, postgres.MaxBatch, func(list []messaging.Recipient) error {
				jobs.Progress(ctx) // also where all of them are left out
				return each(list)
			})
		}
	}
	if len(f.Group.ExcludeContactGroupIDs) > 0 {
		p.audience.Left = messaging.WalkMembers(members(f.Group.ExcludeContactGroupIDs))
		defer p.audience.Left.Stop()
	}
	return members(f.Group.ContactGroupIDs)(each)
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
	p := newPlan(f, renderer.On(r.Adapters.Capabilities(f.ChannelType, f.Provider)), messaging.Sources{Custom: g.CustomValues, AccountName: account, SenderName: sender, SenderEmail: email, Now: *g.StartedAt, WayOut: r.wayOut(f)})
	if f.Job.Cursor == "" && f.Job.AddressCursor == "" {
		return p, nil
	}
	read := jobs.Call(ctx, addressesLimit)
	addresses, err := r.Store.SentAddresses(ctx, g)
	if read(); err != nil {
		return nil, err
	}
	for _, a := range addresses {
		p.audience.Duplicate(a)
	}
	return p, nil
}

// wayOut makes the links of the send's recipients.
func (r *Role) wayOut(f *postgres.Fanout) func(messaging.Recipient) string {
	return func(to messaging.Recipient) string {
		return r.Unsubscriber.URL(messaging.WayOut{AccountID: f.Group.AccountID, ChannelType: f.ChannelType, Address: to.Address(f.ChannelType)})
	}
}
