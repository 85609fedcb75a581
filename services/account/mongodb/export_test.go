package mongodb

import (
	"context"
	"time"

	"github.com/turumba/turumba/kit/mongodb"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

// Claim is the beginning of a change that ends there.
func (s *Store) Claim(ctx context.Context, accountID string, c *account.Contact) error {
	_, err := s.claim(ctx, account.NewID(), accountID, []*account.Contact{c})
	return err
}

// Doubt is a change that ends before it takes the contact's keys.
func (s *Store) Doubt(ctx context.Context, c *account.Contact) error {
	return s.doubt(ctx, account.NewID(), c, nil)
}

// DropGroup is a deletion that ends before the members know.
func (s *Store) DropGroup(ctx context.Context, g *account.Group) error {
	_, err := s.groups.Delete(ctx, []string{g.AccountID}, mongodb.Is("_id", "$eq", g.ID))
	return err
}

// PlanAndDie is an import that ends after it stored some of the contacts of its plan.
func (s *Store) PlanAndDie(ctx context.Context, job *postgres.ImportJob, im *account.Import, b postgres.ImportBatch, stored int) error {
	existing, err := s.contactsByKeys(ctx, im.AccountID, b.Rows)
	if err != nil {
		return err
	}
	p, err := newPlan(im, b, existing, account.Room{})
	if err != nil {
		return err
	}
	if err := s.journal.KeepImportPlan(ctx, job, im, p, p.created(nil), time.Second); err != nil {
		return err
	}
	p.Contacts = p.Contacts[:stored]
	_, err = s.apply(ctx, im.AccountID, p)
	return err
}
