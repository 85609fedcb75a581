package mongodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/mongodb"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

// plan is what a batch of an import is about to store. It is written down first, so
// that whoever takes the import over does the same again: a contact that has the plan
// in its trail was done.
type plan struct {
	ID       string                 `json:"id"`
	Progress account.ImportProgress `json:"progress"` // when nothing is refused
	Rejected []account.RejectedRow  `json:"rejected,omitempty"`
	Contacts []plannedContact       `json:"contacts"`
}

// plannedContact is one contact as it will be, and the rows that it is made of.
type plannedContact struct {
	ID      string              `json:"id"`
	Created bool                `json:"created,omitempty"`
	Same    bool                `json:"same,omitempty"` // it only joins groups
	Doc     json.RawMessage     `json:"doc"`
	Rows    []account.PlacedRow `json:"rows"`
	contact *account.Contact
}

// StoreBatch imports rows; see postgres.Store. Counts, errors and the place to go on
// are noted after the contacts, in one transaction: a crash in between repeats the
// plan, which changes nothing that was done. A rival is only who took the room for new
// contacts: one whose key somebody else took meanwhile is rejected, with the reason.
func (s *Store) StoreBatch(ctx context.Context, job *postgres.ImportJob, im *account.Import, b postgres.ImportBatch, lease time.Duration) error {
	if err := s.finishPlan(ctx, job, im, lease); err != nil {
		return err
	}
	b.Rows = slices.DeleteFunc(slices.Clone(b.Rows), func(r account.ImportRow) bool { return r.Read <= im.ReadCount })
	if len(b.Rows) == 0 {
		return nil
	}
	existing, err := s.contactsByKeys(ctx, im.AccountID, b.Rows)
	if err != nil {
		return err
	}
	if im.DryRun {
		return s.journal.StoreDryBatch(ctx, job, im, b, lease, existing)
	}
	room, err := s.journal.ImportRoom(ctx, im)
	if err != nil {
		return err
	}
	p, err := newPlan(im, b, existing, room)
	if err != nil {
		return err
	}
	if err := s.journal.KeepImportPlan(ctx, job, im, p, p.created(nil), lease); err != nil {
		return err
	}
	return s.carryOut(ctx, job, im, p, lease)
}

// finishPlan does what a process that died had planned.
func (s *Store) finishPlan(ctx context.Context, job *postgres.ImportJob, im *account.Import, lease time.Duration) error {
	p := &plan{}
	left, err := s.journal.ImportPlan(ctx, im, p)
	if err != nil || !left {
		return err
	}
	for i := range p.Contacts {
		c, err := account.ReadDocument(p.Contacts[i].Doc)
		if err != nil {
			return err
		}
		c.ID, c.AccountID = p.Contacts[i].ID, im.AccountID
		p.Contacts[i].contact = c
	}
	return s.carryOut(ctx, job, im, p, lease)
}

// newPlan decides what the rows make of the contacts.
func newPlan(im *account.Import, b postgres.ImportBatch, existing []*account.Contact, room account.Room) (*plan, error) {
	u := account.NewUpsert(im.MatchBy, existing, room)
	p := &plan{ID: account.NewID(), Progress: im.ImportProgress}
	p.Progress.ReadCount, p.Progress.ProcessedBytes = b.Read, b.Processed
	rejected, placed := u.AddRows(b.Rows, &p.Progress)
	p.Rejected = rejected
	// Changed ones first: they may give away a key that a new contact takes.
	for _, c := range slices.Concat(u.Changed, u.Created) {
		if err := p.add(im.AccountID, c, slices.Contains(u.Created, c), false, placed[c]); err != nil {
			return nil, err
		}
		delete(placed, c)
	}
	for c, rows := range placed {
		if err := p.add(im.AccountID, c, false, true, rows); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *plan) add(accountID string, c *account.Contact, created, same bool, rows []account.PlacedRow) error {
	doc, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write import plan: %w", err)
	}
	c.AccountID = accountID
	p.Contacts = append(p.Contacts, plannedContact{ID: c.ID, Created: created, Same: same, Doc: doc, Rows: rows, contact: c})
	return nil
}

// carryOut stores what is planned and notes what became of it.
func (s *Store) carryOut(ctx context.Context, job *postgres.ImportJob, im *account.Import, p *plan, lease time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	refused, err := s.apply(limited, im.AccountID, p)
	if err != nil {
		return err
	}
	if err := s.join(limited, im, p, refused); err != nil {
		return err
	}
	next, rejected := p.Progress, p.Rejected
	for _, c := range p.Contacts {
		if err := refused[c.ID]; err != nil {
			for _, row := range c.Rows {
				rejected = append(rejected, row.Reject(err, &next))
			}
		}
	}
	notMade := p.created(nil) - p.created(refused)
	return s.journal.SettleImportPlan(ctx, job, im, next, rejected, notMade, lease)
}

// created is how many contacts of the plan are new, without those that were refused.
func (p *plan) created(refused map[string]error) (n int) {
	for _, c := range p.Contacts {
		if c.Created && refused[c.ID] == nil {
			n++
		}
	}
	return n
}

// apply stores the contacts of a plan and tells whose were refused. One that is
// refused a key is tried again after the others, which may give it away.
func (s *Store) apply(ctx context.Context, accountID string, p *plan) (map[string]error, error) {
	refused := map[string]error{}
	pending := slices.DeleteFunc(slices.Clone(p.Contacts), func(c plannedContact) bool { return c.Same })
	for len(pending) > 0 {
		var again []plannedContact
		stored, err := s.stored(ctx, accountID, pending)
		if err != nil {
			return nil, err
		}
		contacts := make([]*account.Contact, len(pending))
		for i, c := range pending {
			contacts[i] = c.contact
		}
		taken, err := s.claim(ctx, p.ID, accountID, contacts)
		if err != nil {
			return nil, err
		}
		for _, c := range pending {
			if r := taken[c.ID]; r != nil {
				refused[c.ID] = r.conflict()
				again = append(again, c)
				continue
			}
			delete(refused, c.ID)
		}
		if err := s.write(ctx, accountID, p.ID, pending, stored, refused); err != nil {
			return nil, err
		}
		if len(again) == len(pending) {
			break
		}
		pending = again
	}
	return refused, nil
}

// stored are the documents of planned contacts, by id.
func (s *Store) stored(ctx context.Context, accountID string, list []plannedContact) (map[string]*contactDocument, error) {
	ids := make([]string, len(list))
	for i, c := range list {
		ids[i] = c.ID
	}
	return s.contactDocuments(ctx, accountID, ids)
}

func (s *Store) contactDocuments(ctx context.Context, accountID string, ids []string) (map[string]*contactDocument, error) {
	docs, err := mongodb.Find[contactDocument](ctx, s.contacts, []string{accountID}, mongodb.Is("_id", "$in", ids), mongodb.Page{})
	if err != nil {
		return nil, err
	}
	out := make(map[string]*contactDocument, len(docs))
	for i := range docs {
		out[docs[i].ID] = &docs[i]
	}
	return out, nil
}

// write stores those contacts that have their keys and are not stored yet.
func (s *Store) write(ctx context.Context, accountID, change string, list []plannedContact, stored map[string]*contactDocument, refused map[string]error) error {
	now := s.db.Now()
	var fresh []*account.Contact
	var keys []string
	for _, c := range list {
		d := stored[c.ID]
		switch {
		case refused[c.ID] != nil:
		case d != nil && (c.Created || d.hasChange(change)): // done before a crash
			keys = append(keys, keysOf(d.contact())...)
		case c.Created:
			c.contact.CreatedAt, c.contact.UpdatedAt = now, now
			fresh = append(fresh, c.contact)
			keys = append(keys, keysOf(c.contact)...)
		default:
			c.contact.UpdatedAt = now
			if err := s.change(ctx, d, c.contact, change); err != nil {
				refused[c.ID] = err
			}
		}
	}
	for _, err := range refused {
		if !isRefusal(err) {
			return err
		}
	}
	if _, _, err := s.insertContacts(ctx, accountID, fresh, func(int) string { return change }); err != nil {
		return err
	}
	return s.confirm(ctx, change, accountID, keys)
}

// change stores a changed contact.
func (s *Store) change(ctx context.Context, d *contactDocument, c *account.Contact, change string) error {
	if d == nil { // deleted meanwhile
		return errors.Join(account.ErrNoContact, s.letGo(ctx, change, c.AccountID, keysOf(c)))
	}
	return s.replace(ctx, d, c, change)
}

// isRefusal reports whether an error is about the contact and not about the store.
func isRefusal(err error) bool {
	var e *apierr.Error
	return errors.As(err, &e) && e.Reason != errorv1.Reason_REASON_UNAVAILABLE
}

// join adds the contacts of a plan to the groups of the import that are still there.
func (s *Store) join(ctx context.Context, im *account.Import, p *plan, refused map[string]error) error {
	if len(im.ContactGroupIDs) == 0 {
		return nil
	}
	groups, err := mongodb.Find[groupDocument](ctx, s.groups, []string{im.AccountID}, mongodb.Is("_id", "$in", im.ContactGroupIDs), mongodb.Page{})
	if err != nil {
		return err
	}
	ids := make([]string, 0, len(p.Contacts))
	for _, c := range p.Contacts {
		if refused[c.ID] == nil {
			ids = append(ids, c.ID)
		}
	}
	for _, g := range groups {
		_, err := s.contacts.Update(ctx, []string{im.AccountID}, mongodb.Is("_id", "$in", ids), bson.D{{Key: "$addToSet", Value: bson.D{{Key: "group_ids", Value: g.ID}}}})
		if err != nil {
			return err
		}
	}
	return nil
}

// contactsByKeys returns the contacts that have the id or a key of one of the rows.
func (s *Store) contactsByKeys(ctx context.Context, accountID string, rows []account.ImportRow) ([]*account.Contact, error) {
	var ids []string
	for k, values := range account.KeyValues(rows) {
		for _, v := range values {
			ids = append(ids, keyID(accountID, k, v))
		}
	}
	holders := append([]string{}, account.RowIDs(rows)...)
	if len(ids) == 0 && len(holders) == 0 {
		return nil, nil
	}
	keys, err := mongodb.Find[keyDocument](ctx, s.keys, []string{accountID}, mongodb.Is("_id", "$in", ids), mongodb.Page{})
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		holders = append(holders, k.ContactID)
	}
	docs, err := s.contactDocuments(ctx, accountID, holders)
	if err != nil {
		return nil, err
	}
	out := make([]*account.Contact, 0, len(docs))
	for _, d := range docs {
		out = append(out, d.contact())
	}
	return out, nil
}
