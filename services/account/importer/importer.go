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
	"github.com/turumba/turumba/kit/jobs"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

const (
	importsAtOnce = 2               // of different accounts
	batchSize     = 500             // rows of one transaction
	lease         = 5 * time.Second // renewed with each batch, and while files are read
	pause         = 5 * time.Second // after a failure of ours
	rivalRetries  = 10              // of one row
)

// denied is why an import ends whose person may not import any more. What was stored
// before stays.
const denied = "whoever uploaded the file may not import contacts any more"

// Batches is where the contacts of a file go; see postgres.Store.StoreBatch.
type Batches interface {
	// CheckGroups returns account.ErrNoGroup unless all groups are the account's.
	CheckGroups(ctx context.Context, accountID string, ids []string) error
	StoreBatch(ctx context.Context, job *postgres.ImportJob, im *account.Import, b postgres.ImportBatch, lease time.Duration) error
}

// Importer imports the files that are complete.
type Importer struct {
	store     *postgres.Store
	contacts  Batches
	validator protovalidate.Validator
	queue     *jobs.Queue[postgres.ImportJob]
}

// New makes an importer: the files are in store, and their contacts go to contacts.
// loops get its finished turns; nil tells nobody.
func New(store *postgres.Store, contacts Batches, c clock.Clock, log *slog.Logger, loops *jobs.Loops) (*Importer, error) {
	v, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("prepare validation: %w", err)
	}
	i := &Importer{store: store, contacts: contacts, validator: v}
	i.queue = &jobs.Queue[postgres.ImportJob]{
		Name: "import", Workers: importsAtOnce, Lease: lease, Retry: pause, Clock: c, Logger: log, Loops: loops,
		Claim: store.ClaimImport, Do: i.importFile, Extend: store.ExtendImport, Release: store.ReleaseImport,
		ID: func(job *postgres.ImportJob) string { return job.ImportID },
	}
	store.OnImport(i.queue.Wake)
	return i, nil
}

// Run imports until ctx ends.
func (i *Importer) Run(ctx context.Context) error { return i.queue.Run(ctx) }

// importFile imports a file to its end.
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
	if f.rows.Damaged() {
		im.Warnings = append(im.Warnings, damagedBytes)
	}
	if err := i.missGroups(ctx, im); err != nil {
		return err
	}
	return i.store.FinishImport(ctx, job, im, f.failure)
}

// damagedBytes is the warning of a file of UTF-8 with other bytes in it.
var damagedBytes = account.ImportWarning{
	Code: account.WarnDamaged, Alternative: "windows-1252",
	Message: "the file is UTF-8 with cells that are not: those were read as windows-1252",
}

// missGroups warns of groups that were deleted since the upload: nobody joined them.
func (i *Importer) missGroups(ctx context.Context, im *account.Import) error {
	for _, id := range im.ContactGroupIDs {
		err := i.contacts.CheckGroups(ctx, im.AccountID, []string{id})
		if errors.Is(err, account.ErrNoGroup) {
			im.Warnings = append(im.Warnings, account.ImportWarning{
				Code: account.WarnGroup, Message: "the contact group " + id + " was deleted before the import ended: its contacts are not in it",
			})
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// storeBatch stores a batch; one that met a rival in halves, down to single rows.
func (i *Importer) storeBatch(ctx context.Context, job *postgres.ImportJob, im *account.Import, b postgres.ImportBatch) error {
	for try := 0; ; try++ {
		err := i.contacts.StoreBatch(ctx, job, im, b, lease)
		jobs.Progress(ctx)
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
