package postgres

import (
	"context"
	"fmt"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/quota"
	account "github.com/turumba/turumba/services/account"
)

// contactQuota is the quota of contacts with the account's limit. The count goes with
// the rows, also where there is no limit, so that one may be set at any time.
func (s *Store) contactQuota(ctx context.Context, tx *pg.Tx, accountID string) (quota.Quota, error) {
	q := quota.Quota{Name: account.QuotaContacts}
	err := tx.QueryRow(ctx, "SELECT coalesce((SELECT (quotas ->> 'contacts')::int FROM accounts WHERE id = $1), $2, 0)",
		accountID, s.defaults.Contacts).Scan(&q.Most)
	if err != nil {
		return q, fmt.Errorf("read the quota of contacts: %w", err)
	}
	return q, nil
}

// takeContacts counts contacts that are new, or answers QUOTA_EXCEEDED. It comes last,
// since others of the account may wait for what it locks.
func (s *Store) takeContacts(ctx context.Context, tx *pg.Tx, accountID string, n int) error {
	if n == 0 {
		return nil
	}
	q, err := s.contactQuota(ctx, tx, accountID)
	if err != nil {
		return err
	}
	return q.Take(ctx, tx, accountID, int64(n))
}

// takeImported is takeContacts for a batch of an import that was cut to the room there
// was: somebody else has taken it.
func (s *Store) takeImported(ctx context.Context, tx *pg.Tx, accountID string, n int) error {
	err := s.takeContacts(ctx, tx, accountID, n)
	if apierr.HasReason(err, errorv1.Reason_REASON_QUOTA_EXCEEDED) {
		return fmt.Errorf("%w: %w", ErrImportRival, err)
	}
	return err
}

// giveContacts takes back the count of contacts that are gone, or were not made.
func (s *Store) giveContacts(ctx context.Context, tx *pg.Tx, accountID string, n int) error {
	return quota.Quota{Name: account.QuotaContacts}.Give(ctx, tx, accountID, int64(n), tx.Now)
}

// ContactCount is how many contacts the account has.
func (s *Store) ContactCount(ctx context.Context, accountID string) (int64, error) {
	return quota.Quota{Name: account.QuotaContacts}.Used(ctx, s.db, accountID)
}

// ImportRoom is how many new contacts an import may still make. Those of a dry run are
// nowhere counted but in the import.
func (s *Store) ImportRoom(ctx context.Context, im *account.Import) (room account.Room, err error) {
	err = s.db.InTx(ctx, []string{im.AccountID}, func(tx *pg.Tx) error {
		room, err = s.importRoom(ctx, tx, im)
		return err
	})
	return room, err
}

func (s *Store) importRoom(ctx context.Context, tx *pg.Tx, im *account.Import) (account.Room, error) {
	q, err := s.contactQuota(ctx, tx, im.AccountID)
	if err != nil || q.Most == 0 {
		return account.Room{}, err
	}
	used, err := q.UsedIn(ctx, tx, im.AccountID, tx.Now)
	if im.DryRun {
		used += int64(im.CreatedCount)
	}
	return account.Room{Most: q.Most, Left: q.Most - used}, err
}
