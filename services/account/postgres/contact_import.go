package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/bounds"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

const importColumns = `id, account_id, status, file_name, dry_run, encoding, delimiter, columns, match_by, contact_group_ids::text[] AS contact_group_ids,
	received_bytes, processed_bytes, read_count, row_count, created_count, updated_count, rejected_count, warnings, error_message,
	coalesce(created_by_user_id::text, '') AS created_by_user_id, coalesce(created_by_api_key_id::text, '') AS created_by_api_key_id,
	finished_at, created_at, updated_at`

var errImport = apierr.NotFound("contact import")

func importSpec(tokenKey []byte) (*query.Spec, error) {
	return query.SpecFor((&accountv1.ContactImport{}).ProtoReflect().Descriptor(), query.Table{
		From: "contact_imports", Select: []string{importColumns}, TokenKey: tokenKey,
		Columns: map[string]query.Column{"status": {NotNull: true}},
	})
}

// CreateImport stores an import whose file begins to arrive. An account with too
// many unfinished ones is refused with QUOTA_EXCEEDED.
func (s *Store) CreateImport(ctx context.Context, tx *pg.Tx, im *account.Import) error {
	im.ID, im.Status, im.CreatedAt, im.UpdatedAt = account.NewID(), account.ImportUploading, tx.Now, tx.Now
	tag, err := tx.Exec(ctx, `
		INSERT INTO contact_imports (id, account_id, status, file_name, dry_run, encoding, delimiter, columns, match_by, contact_group_ids,
			created_by_user_id, created_by_api_key_id, created_at, updated_at, warnings)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10::uuid[], nullif($11, '')::uuid, nullif($12, '')::uuid, $13, $13, $15
		WHERE (SELECT count(*) FROM contact_imports WHERE account_id = $2 AND finished_at IS NULL) < $14`,
		im.ID, im.AccountID, im.Status, clean(im.FileName), im.DryRun, im.Encoding, im.Delimiter, im.Columns, im.MatchBy, im.ContactGroupIDs,
		im.CreatedByUserID, im.CreatedByAPIKeyID, tx.Now, account.MaxOpenImports, emptyIfNil(im.Warnings))
	if err != nil {
		return fmt.Errorf("insert contact import: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return apierr.New(errorv1.Reason_REASON_QUOTA_EXCEEDED, "%d imports of the account are unfinished; let them end or cancel them", account.MaxOpenImports)
	}
	return s.audit(ctx, tx, im.AccountID, "contact_import.create", im.ID, account.Changes(nil, im))
}

func emptyIfNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// AppendImport stores the next bytes of an upload. CONFLICT when the file has not
// exactly im.ReceivedBytes so far, INVALID_STATE when it takes no more.
func (s *Store) AppendImport(ctx context.Context, im *account.Import, data []byte) error {
	return s.db.InTx(ctx, []string{im.AccountID}, func(tx *pg.Tx) error {
		tag, err := tx.Exec(ctx, `
			UPDATE contact_imports SET received_bytes = received_bytes + $4, updated_at = $5
			WHERE account_id = $1 AND id = $2 AND status = 'uploading' AND received_bytes = $3`,
			im.AccountID, im.ID, im.ReceivedBytes, len(data), tx.Now)
		if err != nil {
			return fmt.Errorf("update contact import: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return apierr.New(conflictReason, "the file was continued or cancelled elsewhere meanwhile")
		}
		_, err = tx.Exec(ctx, "INSERT INTO contact_import_chunks (account_id, import_id, starts_at, data) VALUES ($1, $2, $3, $4)",
			im.AccountID, im.ID, im.ReceivedBytes, data)
		if err != nil {
			return fmt.Errorf("insert file chunk: %w", err)
		}
		tx.OnCommit(func() { im.ReceivedBytes += int32(len(data)) })
		return nil
	})
}

// QueueImport makes a file that is complete ready to be imported.
func (s *Store) QueueImport(ctx context.Context, im *account.Import) error {
	return s.db.InTx(ctx, []string{im.AccountID}, func(tx *pg.Tx) error {
		tag, err := tx.Exec(ctx, `
			UPDATE contact_imports SET status = 'queued', updated_at = $4
			WHERE account_id = $1 AND id = $2 AND status = 'uploading' AND received_bytes = $3`, im.AccountID, im.ID, im.ReceivedBytes, tx.Now)
		if err != nil {
			return fmt.Errorf("queue contact import: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return apierr.New(conflictReason, "the file was continued or cancelled elsewhere meanwhile")
		}
		_, err = tx.Exec(ctx, "INSERT INTO contact_import_jobs (import_id, account_id, lease_until, created_at) VALUES ($1, $2, $3, $3)",
			im.ID, im.AccountID, tx.Now)
		if err != nil {
			return fmt.Errorf("insert import job: %w", err)
		}
		im.Status, im.UpdatedAt = account.ImportQueued, tx.Now
		tx.Wake(importQueued{})
		return nil
	})
}

// importQueued is what QueueImport wakes.
type importQueued struct{}

// OnImport calls wake after each commit that made an import ready. It must not block.
func (s *Store) OnImport(wake func()) { s.db.OnWake(importQueued{}, wake) }

// Import returns one import of the scope.
func (s *Store) Import(ctx context.Context, scope []string, id string) (*account.Import, error) {
	return pg.Read(ctx, s.db, scope, pg.One[account.Import](errImport),
		"SELECT "+importColumns+" FROM contact_imports WHERE account_id = ANY ($1::uuid[]) AND id = $2", scope, id)
}

// WatchedImports returns those of the imports that the scope has, in no order.
func (s *Store) WatchedImports(ctx context.Context, scope, ids []string) ([]*account.Import, error) {
	return pg.Read(ctx, s.db, scope, pg.All[account.Import],
		"SELECT "+importColumns+" FROM contact_imports WHERE account_id = ANY ($1::uuid[]) AND id = ANY ($2::uuid[])", scope, ids)
}

// Imports returns a page of the scope's imports.
func (s *Store) Imports(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.Import], error) {
	c, err := query.Compile(s.imports, r, scope)
	if err != nil {
		return nil, err
	}
	return query.List(ctx, s.db, c, pgx.RowToAddrOfStructByName[account.Import])
}

// CancelImport ends an import of the scope. INVALID_STATE when it has ended.
func (s *Store) CancelImport(ctx context.Context, scope []string, id string) (*account.Import, error) {
	var im *account.Import
	err := s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		// The job is locked first, as by the import itself.
		if _, err := tx.Exec(ctx, "DELETE FROM contact_import_jobs WHERE import_id = $1 AND account_id = ANY ($2::uuid[])", id, scope); err != nil {
			return fmt.Errorf("delete import job: %w", err)
		}
		rows, err := tx.Query(ctx, "SELECT "+importColumns+" FROM contact_imports WHERE account_id = ANY ($1::uuid[]) AND id = $2 FOR UPDATE", scope, id)
		if err != nil {
			return fmt.Errorf("read contact import: %w", err)
		}
		if im, err = pg.One[account.Import](errImport)(rows); err != nil {
			return err
		}
		if im.Final() {
			return apierr.New(errorv1.Reason_REASON_INVALID_STATE, "the import is %s already", im.Status)
		}
		if err := s.endImport(ctx, tx, im, account.ImportCancelled, ""); err != nil {
			return err
		}
		return s.audit(ctx, tx, im.AccountID, "contact_import.cancel", im.ID, nil)
	})
	return im, err
}

// endImport notes the end of an import and forgets its file.
func (s *Store) endImport(ctx context.Context, tx *pg.Tx, im *account.Import, status account.ImportStatus, message string) error {
	im.Status, im.ErrorMessage, im.FinishedAt, im.UpdatedAt = status, message, &tx.Now, tx.Now
	_, err := tx.Exec(ctx, "UPDATE contact_imports SET status = $3, error_message = $4, finished_at = $5, updated_at = $5 WHERE account_id = $1 AND id = $2",
		im.AccountID, im.ID, status, message, tx.Now)
	if err != nil {
		return fmt.Errorf("end contact import: %w", err)
	}
	for _, table := range []string{"contact_import_chunks", "contact_import_drafts", "contact_import_plans"} {
		if _, err := tx.Exec(ctx, "DELETE FROM "+table+" WHERE account_id = $1 AND import_id = $2", im.AccountID, im.ID); err != nil {
			return fmt.Errorf("delete from %s: %w", table, err)
		}
	}
	return nil
}

// ImportChunk returns the bytes of the file from offset to the end of their chunk;
// none at the end of the file.
func (s *Store) ImportChunk(ctx context.Context, im *account.Import, offset int32) ([]byte, error) {
	chunks, err := pg.Read(ctx, s.db, []string{im.AccountID}, func(rows pgx.Rows) ([][]byte, error) { return pgx.CollectRows(rows, pgx.RowTo[[]byte]) },
		"SELECT data FROM contact_import_chunks WHERE account_id = $1 AND import_id = $2 AND starts_at = $3", im.AccountID, im.ID, offset)
	if err != nil || len(chunks) == 0 {
		return nil, err
	}
	return chunks[0], nil
}

// RejectedRows returns up to limit rejected rows of an import after the line.
func (s *Store) RejectedRows(ctx context.Context, im *account.Import, after, limit int) ([]*account.RejectedRow, error) {
	page := bounds.NewPage(ctx, account.ExportWeight)
	return pg.Read(ctx, s.db, []string{im.AccountID}, query.Upto(page, pgx.RowToAddrOfStructByName[account.RejectedRow]),
		"SELECT line, code, field, message, cells FROM contact_import_errors WHERE account_id = $1 AND import_id = $2 AND line > $3 ORDER BY line LIMIT $4",
		im.AccountID, im.ID, after, limit)
}

// purgeImports removes imports that are older than they are kept.
func (s *Store) purgeImports(ctx context.Context) error {
	now := s.db.Now()
	_, err := s.db.Within(purgeLimit).Exec(ctx, "SELECT contact_imports_purge($1, $2, 100)", now.Add(-account.ImportLife), now.Add(-account.UploadLife))
	if err != nil {
		return fmt.Errorf("purge contact imports: %w", err)
	}
	return nil
}
