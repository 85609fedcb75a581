package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
)

// ImportJob is a claim on an import; a newer claim ends it.
type ImportJob struct {
	ImportID, AccountID string
	Epoch               int
}

// ImportBatch is consecutive rows of a file.
type ImportBatch struct {
	Rows []account.ImportRow
	// Read and Processed are the records and the bytes read up to the batch's end.
	Read, Processed int32
}

// The ends of a batch that was not stored.
var (
	// ErrImportLost: the import was cancelled, or claimed by another process.
	ErrImportLost = fmt.Errorf("the import is no longer ours: %w", jobs.ErrFenced)
	// ErrImportDenied: who uploaded the file may not import contacts any more.
	ErrImportDenied = errors.New("who uploaded the file may not import contacts any more")
	// ErrImportRival: somebody else wrote one of the contacts meanwhile, or rows of the
	// batch hand a key on; a smaller batch may pass.
	ErrImportRival = errors.New("the batch met a rival")
)

// ClaimImport takes the import that waits longest, of an account that has none in
// work; nil when there is none.
func (s *Store) ClaimImport(ctx context.Context, lease time.Duration) (*ImportJob, error) {
	now := s.db.Now()
	rows, err := s.db.Query(ctx, `
		UPDATE contact_import_jobs SET epoch = epoch + 1, lease_until = $2
		WHERE import_id = (SELECT import_id FROM contact_import_jobs j WHERE lease_until <= $1
				AND NOT EXISTS (SELECT 1 FROM contact_import_jobs o WHERE o.account_id = j.account_id AND o.lease_until > $1)
			ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING import_id, account_id, epoch`, now, now.Add(lease))
	if err != nil {
		return nil, fmt.Errorf("claim import: %w", err)
	}
	job, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[ImportJob])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return job, err
}

// ExtendImport renews a claim, or returns ErrImportLost.
func (s *Store) ExtendImport(ctx context.Context, job *ImportJob, lease time.Duration) error {
	tag, err := s.db.Exec(ctx, "UPDATE contact_import_jobs SET lease_until = $3 WHERE import_id = $1 AND epoch = $2", job.ImportID, job.Epoch, s.db.Now().Add(lease))
	if err != nil {
		return fmt.Errorf("extend import: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrImportLost
	}
	return nil
}

// ReleaseImport gives a claim back; the import can be claimed again after the delay.
func (s *Store) ReleaseImport(ctx context.Context, job *ImportJob, delay time.Duration) error {
	return s.ExtendImport(ctx, job, delay)
}

// hold proves that the claim is the newest, keeps others from claiming until the
// transaction ends, and renews it.
func (s *Store) hold(ctx context.Context, tx *pg.Tx, job *ImportJob, lease time.Duration) error {
	tag, err := tx.Exec(ctx, "UPDATE contact_import_jobs SET lease_until = $3 WHERE import_id = $1 AND epoch = $2", job.ImportID, job.Epoch, tx.Now.Add(lease))
	if err != nil {
		return fmt.Errorf("hold import: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrImportLost
	}
	return nil
}

// mayImport refuses a batch for somebody who may not import any more: an import acts for
// who uploaded the file, and for the API key that it was uploaded by (ADR 0044).
func (s *Store) mayImport(ctx context.Context, tx *pg.Tx, im *account.Import) error {
	userID := im.CreatedByUserID
	if im.CreatedByAPIKeyID != "" {
		rows, err := tx.Query(ctx, "SELECT "+apiKeyColumns+" FROM api_keys WHERE account_id = $1 AND id = $2", im.AccountID, im.CreatedByAPIKeyID)
		if err != nil {
			return fmt.Errorf("read API key: %w", err)
		}
		k, err := pg.One[account.APIKey](ErrImportDenied)(rows)
		if err != nil {
			return err
		}
		if !k.Works(tx.Now) || !slices.Contains(k.Permissions, account.PermissionImport) {
			return ErrImportDenied
		}
		userID = k.CreatedByUserID
	}
	if userID == "" {
		return ErrImportDenied
	}
	permissions, err := permissionsOf(ctx, tx, im.AccountID, userID)
	if err == nil && !slices.Contains(permissions, account.PermissionImport) {
		err = ErrImportDenied
	}
	return err
}

// StoreBatch imports rows: contacts, groups, errors, counts and the place to go on
// are one transaction. The errors ErrImportLost, ErrImportDenied and
// ErrImportRival store nothing.
func (s *Store) StoreBatch(ctx context.Context, job *ImportJob, im *account.Import, b ImportBatch, lease time.Duration) error {
	// It reads a sample of all contacts of the installation.
	if _, err := s.db.Within(time.Minute).Exec(ctx, "SELECT contacts_analyze()"); err != nil {
		return fmt.Errorf("renew statistics: %w", err)
	}
	return s.storeBatch(ctx, job, im, b, lease, func(tx *pg.Tx) ([]*account.Contact, error) {
		return s.contactsByKeys(ctx, tx, im.AccountID, b.Rows)
	})
}

// StoreDryBatch counts what rows would do to contacts that are kept elsewhere;
// existing are those that have a key of one of the rows.
func (s *Store) StoreDryBatch(ctx context.Context, job *ImportJob, im *account.Import, b ImportBatch, lease time.Duration, existing []*account.Contact) error {
	return s.storeBatch(ctx, job, im, b, lease, func(*pg.Tx) ([]*account.Contact, error) { return existing, nil })
}

func (s *Store) storeBatch(ctx context.Context, job *ImportJob, im *account.Import, b ImportBatch, lease time.Duration, existing func(*pg.Tx) ([]*account.Contact, error)) error {
	next := im.ImportProgress
	next.ReadCount, next.ProcessedBytes = b.Read, b.Processed
	err := s.db.InTx(ctx, []string{im.AccountID}, func(tx *pg.Tx) error {
		if err := s.hold(ctx, tx, job, lease); err != nil {
			return err
		}
		if err := s.mayImport(ctx, tx, im); err != nil {
			return err
		}
		known, err := existing(tx)
		if err != nil {
			return err
		}
		rejected, err := s.upsert(ctx, tx, im, b.Rows, known, &next)
		if err != nil {
			return err
		}
		return s.progress(ctx, tx, im, next, rejected)
	})
	if err == nil {
		im.ImportProgress, im.Status = next, account.ImportProcessing
	}
	return rival(err)
}

// progress notes how far an import has come.
func (s *Store) progress(ctx context.Context, tx *pg.Tx, im *account.Import, next account.ImportProgress, rejected []account.RejectedRow) error {
	if err := s.insertRejected(ctx, tx, im, rejected); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		UPDATE contact_imports SET status = 'processing', read_count = $3, processed_bytes = $4, row_count = $5, created_count = $6,
			updated_count = $7, rejected_count = $8, updated_at = $9
		WHERE account_id = $1 AND id = $2`, im.AccountID, im.ID, next.ReadCount, next.ProcessedBytes, next.RowCount, next.CreatedCount,
		next.UpdatedCount, next.RejectedCount, tx.Now)
	if err != nil {
		return fmt.Errorf("update contact import: %w", err)
	}
	return nil
}

// rival recognises what only happens when others write too.
func rival(err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) && (e.Code == "23505" || e.Code == "40P01") { // unique violation, deadlock
		return fmt.Errorf("%w: %w", ErrImportRival, err)
	}
	return err
}

// upsert stores what the rows make of the account's contacts, or of the drafts of a
// dry run, and counts.
func (s *Store) upsert(ctx context.Context, tx *pg.Tx, im *account.Import, rows []account.ImportRow, existing []*account.Contact, count *account.ImportProgress) ([]account.RejectedRow, error) {
	if im.DryRun {
		var err error
		if existing, err = s.withDrafts(ctx, tx, im, rows, existing); err != nil {
			return nil, err
		}
	}
	room, err := s.importRoom(ctx, tx, im)
	if err != nil {
		return nil, err
	}
	u := account.NewUpsert(im.MatchBy, existing, room)
	rejected, placed := u.AddRows(rows, count)
	if im.DryRun {
		return rejected, s.storeDrafts(ctx, tx, im, u)
	}
	return rejected, s.storeUpsert(ctx, tx, im, u, placed)
}

func (s *Store) storeUpsert(ctx context.Context, tx *pg.Tx, im *account.Import, u *account.Upsert, placed map[*account.Contact][]account.PlacedRow) error {
	if len(u.Changed) > 0 { // first: they may give away a key that a new contact takes
		ids, docs, err := documents(u.Changed)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			UPDATE contacts SET doc = n.doc, updated_at = $4 FROM unnest($2::uuid[], $3::jsonb[]) AS n (id, doc)
			WHERE contacts.account_id = $1 AND contacts.id = n.id`, im.AccountID, ids, docs, tx.Now)
		if err != nil {
			return fmt.Errorf("update contacts: %w", err)
		}
	}
	if len(u.Created) > 0 {
		kept, err := s.insertContacts(ctx, tx, im.AccountID, u.Created)
		if err != nil {
			return err
		}
		if len(kept) < len(u.Created) {
			return ErrImportRival
		}
	}
	if err := s.joinGroups(ctx, tx, im, placed); err != nil {
		return err
	}
	return s.takeImported(ctx, tx, im.AccountID, len(u.Created))
}

// joinGroups makes members of the groups of the import.
func (s *Store) joinGroups(ctx context.Context, tx *pg.Tx, im *account.Import, placed map[*account.Contact][]account.PlacedRow) error {
	if len(im.ContactGroupIDs) == 0 {
		return nil
	}
	ids := make([]string, 0, len(placed))
	for c := range placed {
		ids = append(ids, c.ID)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO contact_group_members (account_id, group_id, contact_id)
		SELECT $1, g.id, c.id FROM contact_groups g CROSS JOIN (SELECT id FROM unnest($3::uuid[]) AS n (id) ORDER BY id) c
		WHERE g.account_id = $1 AND g.id = ANY ($2::uuid[]) ON CONFLICT DO NOTHING`, im.AccountID, im.ContactGroupIDs, ids)
	if err != nil {
		return fmt.Errorf("insert members: %w", err)
	}
	return nil
}

// contactsByKeys returns, and locks, the contacts that have the id or a key of one of the rows.
func (s *Store) contactsByKeys(ctx context.Context, tx *pg.Tx, accountID string, rows []account.ImportRow) ([]*account.Contact, error) {
	found := map[string]bool{}
	for k, values := range account.KeyValues(rows) {
		// One look into the index of the key for each value.
		ids, err := collect(ctx, tx, pgx.RowTo[string], `
			SELECT c.id::text FROM unnest($2::text[]) AS n (value)
			CROSS JOIN LATERAL (SELECT id FROM contacts WHERE account_id = $1 AND `+keyExpr(k)+` = n.value LIMIT 1) c`, accountID, values)
		if err != nil {
			return nil, fmt.Errorf("find contacts by %s: %w", k, err)
		}
		for _, id := range ids {
			found[id] = true
		}
	}
	for _, id := range account.RowIDs(rows) {
		found[id] = true
	}
	if len(found) == 0 {
		return nil, nil
	}
	ids := make([]string, 0, len(found))
	for id := range found {
		ids = append(ids, id)
	}
	// In one order, so that two who lock the same contacts do not wait for each other.
	return collect(ctx, tx, scanContact, "SELECT "+contactColumns+" FROM contacts WHERE account_id = $1 AND id = ANY ($2::uuid[]) ORDER BY id FOR UPDATE", accountID, ids)
}

func collect[T any](ctx context.Context, tx *pg.Tx, scan pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

// withDrafts replaces contacts by their drafts and adds those that only the dry run
// knows.
func (s *Store) withDrafts(ctx context.Context, tx *pg.Tx, im *account.Import, rows []account.ImportRow, existing []*account.Contact) ([]*account.Contact, error) {
	byID := map[string]*account.Contact{}
	ids := make([]string, len(existing))
	for i, c := range existing {
		byID[c.ID], ids[i] = c, c.ID
	}
	const columns = "SELECT id, account_id, doc, $3::timestamptz AS created_at, $3::timestamptz AS updated_at FROM contact_import_drafts WHERE account_id = $1 AND import_id = $2 AND "
	where := map[string][]string{"id = ANY ($4::uuid[])": ids}
	for k, values := range account.KeyValues(rows) {
		where[keyExpr(k)+" = ANY ($4::text[])"] = values
	}
	for condition, values := range where {
		drafts, err := collect(ctx, tx, scanContact, columns+condition, im.AccountID, im.ID, tx.Now, values)
		if err != nil {
			return nil, fmt.Errorf("find drafts: %w", err)
		}
		for _, d := range drafts {
			byID[d.ID] = d
		}
	}
	out := make([]*account.Contact, 0, len(byID))
	for _, c := range byID {
		out = append(out, c)
	}
	return out, nil
}

func (s *Store) storeDrafts(ctx context.Context, tx *pg.Tx, im *account.Import, u *account.Upsert) error {
	drafts := slices.Concat(u.Changed, u.Created)
	if len(drafts) == 0 {
		return nil
	}
	ids, docs, err := documents(drafts)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO contact_import_drafts (account_id, import_id, id, doc)
		SELECT $1, $2, id, doc FROM unnest($3::uuid[], $4::jsonb[]) AS n (id, doc)
		ON CONFLICT (import_id, id) DO UPDATE SET doc = excluded.doc`, im.AccountID, im.ID, ids, docs)
	if err != nil {
		return fmt.Errorf("insert drafts: %w", err)
	}
	return nil
}

func (s *Store) insertRejected(ctx context.Context, tx *pg.Tx, im *account.Import, rejected []account.RejectedRow) error {
	b := &pgx.Batch{}
	for _, r := range rejected {
		if r.Cells == nil {
			r.Cells = []string{}
		}
		b.Queue("INSERT INTO contact_import_errors (account_id, import_id, line, code, field, message, cells) VALUES ($1, $2, $3, $4, $5, $6, $7)",
			im.AccountID, im.ID, r.Line, r.Code, r.Field, r.Message, r.Cells)
	}
	if b.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("insert rejected rows: %w", err)
	}
	return nil
}

// FinishImport ends an import: completed, or failed with a message.
func (s *Store) FinishImport(ctx context.Context, job *ImportJob, im *account.Import, failure string) error {
	return s.db.InTx(ctx, []string{im.AccountID}, func(tx *pg.Tx) error {
		if err := s.hold(ctx, tx, job, 0); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "DELETE FROM contact_import_jobs WHERE import_id = $1", im.ID); err != nil {
			return fmt.Errorf("delete import job: %w", err)
		}
		status := account.ImportCompleted
		if failure != "" {
			status = account.ImportFailed
		} else {
			im.ProcessedBytes = im.ReceivedBytes
		}
		_, err := tx.Exec(ctx, "UPDATE contact_imports SET processed_bytes = $3, warnings = $4 WHERE account_id = $1 AND id = $2",
			im.AccountID, im.ID, im.ProcessedBytes, emptyIfNil(im.Warnings))
		if err != nil {
			return fmt.Errorf("update contact import: %w", err)
		}
		if err := s.endImport(ctx, tx, im, status, failure); err != nil {
			return err
		}
		ctx := auth.With(ctx, auth.Caller{UserID: im.CreatedByUserID, APIKeyID: im.CreatedByAPIKeyID})
		return s.audit(ctx, tx, im.AccountID, "contact_import.finish", im.ID, account.Changes(nil, &im.ImportProgress))
	})
}
