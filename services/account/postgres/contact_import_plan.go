package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
)

// ImportPlan reads into plan what a batch of the import was about to store elsewhere;
// false when nothing is left to be done.
func (s *Store) ImportPlan(ctx context.Context, im *account.Import, plan any) (bool, error) {
	raw, err := pg.Read(ctx, s.db, []string{im.AccountID}, func(rows pgx.Rows) ([]byte, error) { return pgx.CollectExactlyOneRow(rows, pgx.RowTo[[]byte]) },
		"SELECT plan FROM contact_import_plans WHERE account_id = $1 AND import_id = $2", im.AccountID, im.ID)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(raw, plan); err != nil {
		return false, fmt.Errorf("read import plan: %w", err)
	}
	return true, nil
}

// KeepImportPlan notes what a batch is about to store elsewhere, before it does, and
// counts the contacts that are new. ErrImportRival when there is no room for them.
func (s *Store) KeepImportPlan(ctx context.Context, job *ImportJob, im *account.Import, plan any, created int, lease time.Duration) error {
	raw, err := json.Marshal(plan)
	if err != nil {
		return fmt.Errorf("write import plan: %w", err)
	}
	return s.db.InTx(ctx, []string{im.AccountID}, func(tx *pg.Tx) error {
		if err := s.hold(ctx, tx, job, lease); err != nil {
			return err
		}
		if err := s.mayImport(ctx, tx, im); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "INSERT INTO contact_import_plans (import_id, account_id, plan, created_at) VALUES ($1, $2, $3, $4)",
			im.ID, im.AccountID, raw, tx.Now)
		if err != nil {
			return fmt.Errorf("insert import plan: %w", err)
		}
		return s.takeImported(ctx, tx, im.AccountID, created)
	})
}

// SettleImportPlan notes what became of a plan: the rows that were rejected, the
// counts and the place to go on. notMade are contacts that were to be new.
func (s *Store) SettleImportPlan(ctx context.Context, job *ImportJob, im *account.Import, next account.ImportProgress, rejected []account.RejectedRow, notMade int, lease time.Duration) error {
	err := s.db.InTx(ctx, []string{im.AccountID}, func(tx *pg.Tx) error {
		if err := s.hold(ctx, tx, job, lease); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "DELETE FROM contact_import_plans WHERE account_id = $1 AND import_id = $2", im.AccountID, im.ID)
		if err != nil {
			return fmt.Errorf("delete import plan: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return ErrImportLost
		}
		if err := s.progress(ctx, tx, im, next, rejected); err != nil {
			return err
		}
		return s.giveContacts(ctx, tx, im.AccountID, notMade)
	})
	if err == nil {
		im.ImportProgress, im.Status = next, account.ImportProcessing
	}
	return err
}
