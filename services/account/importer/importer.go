// Package importer imports CSV files in the background: it claims one by lease,
// reads it where the last batch ended, and stores batch after batch. A process that
// dies in the middle loses nothing and repeats nothing; another, or its successor,
// goes on (decision E3).
package importer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"buf.build/go/protovalidate"
	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/clock"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

const (
	importsAtOnce = 2               // of different accounts
	batchSize     = 500             // rows of one transaction
	lease         = 5 * time.Second // renewed with each batch
	poll          = time.Second     // for files of other processes, and of those that died
	pause         = 5 * time.Second // after a failure of ours
	rivalRetries  = 10              // of one row
)

// denied is why an import ends whose person may not import any more. What was stored
// before stays.
const denied = "whoever uploaded the file may not import contacts any more"

// Batches is where the contacts of a file go; see postgres.Store.StoreBatch.
type Batches interface {
	StoreBatch(ctx context.Context, job *postgres.ImportJob, im *account.Import, b postgres.ImportBatch, lease time.Duration) error
}

// Importer imports the files that are complete.
type Importer struct {
	store     *postgres.Store
	contacts  Batches
	clock     clock.Clock
	log       *slog.Logger
	validator protovalidate.Validator
	woken     chan struct{}
}

// New makes an importer: the files are in store, and their contacts go to contacts.
func New(store *postgres.Store, contacts Batches, c clock.Clock, log *slog.Logger) (*Importer, error) {
	v, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("prepare validation: %w", err)
	}
	return &Importer{store: store, contacts: contacts, clock: c, log: log, validator: v, woken: make(chan struct{}, importsAtOnce)}, nil
}

// Wake tells that a file is complete.
func (i *Importer) Wake() {
	select {
	case i.woken <- struct{}{}:
	default: // enough are awake
	}
}

// Run imports until ctx ends.
func (i *Importer) Run(ctx context.Context) error {
	var g errgroup.Group
	for range importsAtOnce {
		g.Go(func() error {
			i.work(ctx)
			return nil
		})
	}
	return g.Wait()
}

func (i *Importer) work(ctx context.Context) {
	for ctx.Err() == nil {
		job, err := i.store.ClaimImport(ctx, lease)
		switch {
		case err != nil && ctx.Err() == nil:
			i.log.WarnContext(ctx, "imports cannot be claimed", "err", err)
		case job != nil:
			i.process(ctx, job)
			continue
		}
		timer := i.clock.NewTimer(poll)
		select {
		case <-ctx.Done():
		case <-i.woken:
		case <-timer.C():
		}
		timer.Stop()
	}
}

// process imports a file to its end. After a failure of ours it is released, to go
// on later.
func (i *Importer) process(ctx context.Context, job *postgres.ImportJob) {
	err := i.importFile(ctx, job)
	if err == nil || errors.Is(err, postgres.ErrImportLost) {
		return
	}
	at := i.clock.Now()
	if ctx.Err() == nil {
		i.log.WarnContext(ctx, "an import is interrupted", "contact_import_id", job.ImportID, "err", err)
		at = at.Add(pause)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pause)
	defer cancel()
	if err := i.store.ReleaseImport(ctx, job, at); err != nil {
		i.log.WarnContext(ctx, "an import is released only when its lease ends", "contact_import_id", job.ImportID, "err", err)
	}
}

func (i *Importer) importFile(ctx context.Context, job *postgres.ImportJob) error {
	im, err := i.store.Import(ctx, []string{job.AccountID}, job.ImportID)
	if err != nil {
		return err
	}
	a, err := i.store.Account(ctx, []string{job.AccountID}, job.AccountID)
	if err != nil {
		return err
	}
	f, err := openFile(ctx, i.store, im, func(c *account.Contact) error { return i.check(c, a.DefaultCountry) })
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	batches := make(chan postgres.ImportBatch, 1) // one is read while one is stored
	g.Go(func() error {
		defer close(batches)
		return f.batches(gctx, batches)
	})
	g.Go(func() error {
		for b := range batches {
			if err := i.storeBatch(gctx, job, im, b); err != nil {
				return err
			}
		}
		return nil
	})
	err = g.Wait()
	if errors.Is(err, postgres.ErrImportDenied) {
		f.failure, err = denied, nil
	}
	if err != nil {
		return err
	}
	return i.store.FinishImport(ctx, job, im, f.failure)
}

// storeBatch stores a batch; one that met a rival in halves, down to single rows.
func (i *Importer) storeBatch(ctx context.Context, job *postgres.ImportJob, im *account.Import, b postgres.ImportBatch) error {
	for try := 0; ; try++ {
		err := i.contacts.StoreBatch(ctx, job, im, b, lease)
		if !errors.Is(err, postgres.ErrImportRival) {
			return err
		}
		if half := len(b.Rows) / 2; half > 0 {
			first := postgres.ImportBatch{Rows: b.Rows[:half], Read: b.Rows[half-1].Read, Processed: im.ProcessedBytes}
			if err := i.storeBatch(ctx, job, im, first); err != nil {
				return err
			}
			b.Rows = b.Rows[half:]
			return i.storeBatch(ctx, job, im, b)
		}
		if try == rivalRetries {
			return err
		}
	}
}
