package mongodb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"google.golang.org/protobuf/proto"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/bounds"
	"github.com/turumba/turumba/kit/mongodb"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

// CreateContacts stores contacts of one account; see postgres.Store. A call that is
// repeated with its idempotency key finds the contacts that it made.
func (s *Store) CreateContacts(ctx context.Context, accountID string, list []*account.Contact, respond func(errs []error) (proto.Message, error)) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	if err := s.journal.DB().Replay(ctx, accountID); err != nil {
		return err
	}
	for i, c := range list {
		c.ID, c.AccountID, c.CreatedAt = s.id(ctx, accountID, "contact", i), accountID, s.db.Now()
		c.UpdatedAt = c.CreatedAt
	}
	token := account.NewID()
	errs, err := s.claimContacts(ctx, token, accountID, list)
	if err != nil {
		return err
	}
	var good []*account.Contact
	var intents []postgres.Intent
	var keys []string
	for i, c := range list {
		if errs[i] == nil {
			good, keys = append(good, c), append(keys, keysOf(c)...)
			intents = append(intents, postgres.Intent{EventID: account.NewID(), ResourceID: c.ID, Changes: account.Changes(nil, c)})
		}
	}
	if err := s.journal.Intend(ctx, accountID, "contact.create", intents); err != nil {
		return errors.Join(err, s.letGo(ctx, token, accountID, keys))
	}
	made, again, err := s.insertContacts(ctx, accountID, good, func(i int) string { return intents[i].EventID })
	if err != nil {
		return err
	}
	if err := s.confirm(ctx, token, accountID, keys); err != nil {
		return err
	}
	resp, err := respond(errs)
	if err != nil {
		return err
	}
	eventOf := func(i int) string { return intents[i].EventID }
	return s.settleCreated(ctx, accountID, mapAll(made, eventOf), mapAll(again, eventOf), resp)
}

// settleCreated notes what a call made and what it had made before, when it was
// repeated; that has its own event.
func (s *Store) settleCreated(ctx context.Context, accountID string, made, again []string, resp proto.Message) error {
	if err := s.journal.Settle(ctx, accountID, account.AuditFailed, again...); err != nil {
		return err
	}
	return s.journal.SettleCreated(ctx, accountID, made, resp)
}

func mapAll[F, T any](in []F, convert func(F) T) []T {
	out := make([]T, len(in))
	for i, v := range in {
		out[i] = convert(v)
	}
	return out
}

// claimContacts claims the keys of new contacts and tells whose are taken. One that
// lost to another of the list is given what that other, if it failed too, let go.
func (s *Store) claimContacts(ctx context.Context, token, accountID string, list []*account.Contact) ([]error, error) {
	errs := make([]error, len(list))
	at := map[string]int{}
	for i, c := range list {
		at[c.ID] = i
	}
	pending := list
	for len(pending) > 0 {
		refused, err := s.claim(ctx, token, accountID, pending)
		if err != nil {
			return nil, err
		}
		for _, c := range pending {
			errs[at[c.ID]] = nil
			if r := refused[c.ID]; r != nil {
				if _, ours := at[r.holder]; ours && r.holder != c.ID {
					r.rival = false // another of the list is the holder
				}
				errs[at[c.ID]] = r.conflict()
			}
		}
		var again []*account.Contact
		for _, c := range pending {
			r := refused[c.ID]
			if r == nil {
				continue
			}
			if i, ours := at[r.holder]; ours && errs[i] != nil && r.holder != c.ID {
				again = append(again, c)
			}
		}
		if len(again) == len(pending) {
			break // each waits for another
		}
		pending = again
	}
	return errs, nil
}

// insertContacts stores new contacts with the change that makes each, and returns the
// places of those. The others are there already: the same call made them before, and
// they are read instead.
func (s *Store) insertContacts(ctx context.Context, accountID string, list []*account.Contact, changeOf func(i int) string) (made, again []int, err error) {
	docs := make([]any, len(list))
	for i, c := range list {
		fields, err := fieldsOf(c)
		if err != nil {
			return nil, nil, err
		}
		fields.Trail = []string{changeOf(i)}
		docs[i] = contactDocument{ID: c.ID, AccountID: accountID, GroupIDs: []string{}, RequestHash: requestHash(ctx), CreatedAt: c.CreatedAt, Fields: fields}
	}
	again, err = s.contacts.Insert(ctx, accountID, docs)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range again {
		d, err := s.contactDocument(ctx, []string{accountID}, list[i].ID)
		if err != nil {
			return nil, nil, err
		}
		if !bytes.Equal(d.RequestHash, requestHash(ctx)) {
			return nil, nil, errKeyReused
		}
		*list[i] = *d.contact()
	}
	for i := range list {
		if !slices.Contains(again, i) {
			made = append(made, i)
		}
	}
	return made, again, nil
}

var errKeyReused = apierr.New(errorv1.Reason_REASON_IDEMPOTENCY_KEY_REUSED, "the Idempotency-Key was used with another request")

func (s *Store) contactDocument(ctx context.Context, scope []string, id string) (*contactDocument, error) {
	return mongodb.One[contactDocument](ctx, s.contacts, scope, mongodb.Is("_id", "$eq", id), account.ErrNoContact)
}

// Contact returns one contact of the scope.
func (s *Store) Contact(ctx context.Context, scope []string, id string) (*account.Contact, error) {
	d, err := s.contactDocument(ctx, scope, id)
	if err != nil {
		return nil, err
	}
	return d.contact(), nil
}

// Contacts returns a page of the scope's contacts.
func (s *Store) Contacts(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.Contact], error) {
	q, err := query.Check(s.contactSpec, r, scope)
	if err != nil {
		return nil, err
	}
	for i := range q.Sorts {
		if q.Sorts[i].Path == "email" {
			q.Sorts[i].Path = "email_order"
		}
	}
	docs, err := mongodb.List[contactDocument](ctx, s.contacts, q)
	if err != nil {
		return nil, err
	}
	page := &query.Page[*account.Contact]{Data: make([]*account.Contact, len(docs.Data)), Meta: docs.Meta}
	for i := range docs.Data {
		page.Data[i] = docs.Data[i].contact()
	}
	return page, nil
}

// UpdateContact lets change alter the contact and stores it. change is called again
// when somebody else changed the contact meanwhile.
func (s *Store) UpdateContact(ctx context.Context, scope []string, id string, change func(*account.Contact) error) (*account.Contact, error) {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	return untilUnchanged(ctx, s, func() (*account.Contact, error) { return s.updateOnce(ctx, scope, id, change) })
}

// untilUnchanged tries a change again that met another, after a moment.
func untilUnchanged[T any](ctx context.Context, s *Store, change func() (T, error)) (T, error) {
	for try := 1; ; try++ {
		v, err := change()
		if (!errors.Is(err, errChanged) && !errors.Is(err, errRival)) || try == versionTries {
			return v, err
		}
		if err := s.db.Pause(ctx, time.Duration(rand.IntN(10*try))*time.Millisecond); err != nil {
			return v, err
		}
	}
}

// errChanged: somebody else changed the document between the look and the write.
var errChanged = apierr.New(errorv1.Reason_REASON_CONFLICT, "somebody else changed it at the same time")

func (s *Store) updateOnce(ctx context.Context, scope []string, id string, change func(*account.Contact) error) (*account.Contact, error) {
	d, err := s.contactDocument(ctx, scope, id)
	if err != nil {
		return nil, err
	}
	before := d.contact()
	c := d.contact()
	if err := change(c); err != nil {
		return nil, err
	}
	c.UpdatedAt = s.db.Now()
	event := account.NewID() // which is the token of the change, too
	refused, err := s.claim(ctx, event, c.AccountID, []*account.Contact{c})
	if err != nil {
		return nil, err
	}
	if r := refused[c.ID]; r != nil {
		return nil, r.conflict()
	}
	err = s.journal.Intend(ctx, c.AccountID, "contact.update", []postgres.Intent{{EventID: event, ResourceID: c.ID, Changes: account.Changes(before, c)}})
	if err != nil {
		return nil, errors.Join(err, s.settleKeys(ctx, event, c.AccountID, keysOf(before), keysOf(c)))
	}
	if err := s.replace(ctx, d, c, event); err != nil {
		return nil, errors.Join(err, s.settleFailed(ctx, err, c.AccountID, event))
	}
	return c, s.journal.Settle(ctx, c.AccountID, account.AuditSucceeded, event)
}

// replace writes a changed contact whose keys are claimed, if nobody changed it since
// it was read, and lets go of the keys that it has no longer.
func (s *Store) replace(ctx context.Context, d *contactDocument, c *account.Contact, change string) error {
	fields, err := fieldsOf(c)
	if err != nil {
		return err
	}
	fields.Version, fields.Trail = d.Fields.Version+1, trailed(d.Fields.Trail, change)
	before := d.contact()
	if err := s.doubt(ctx, change, before, c); err != nil {
		return errors.Join(err, s.letGo(ctx, change, c.AccountID, keysOf(c)))
	}
	matched, err := s.contacts.Update(ctx, []string{c.AccountID}, versionOf(d), bson.D{{Key: "$set", Value: fields}})
	if err != nil {
		return err
	}
	if matched == 0 { // what it claimed it never had, and what it doubted is as it was
		return errors.Join(errChanged, s.settleKeys(ctx, change, c.AccountID, keysOf(before), keysOf(c)))
	}
	return s.settleKeys(ctx, change, c.AccountID, keysOf(c), keysOf(before))
}

func versionOf(d *contactDocument) bson.D {
	return bson.D{{Key: "_id", Value: bson.D{{Key: "$eq", Value: d.ID}}}, {Key: "version", Value: bson.D{{Key: "$eq", Value: d.Fields.Version}}}}
}

// settleFailed notes that an intended change was not made, when that is sure: what a
// lost connection left open is settled by Sweep.
func (s *Store) settleFailed(ctx context.Context, cause error, accountID, event string) error {
	sure := ctx.Err() == nil && !apierr.HasReason(cause, errorv1.Reason_REASON_UNAVAILABLE)
	if !sure {
		return nil
	}
	return s.journal.Settle(ctx, accountID, account.AuditFailed, event)
}

// DeleteContact removes a contact of the scope; it leaves its groups with it.
func (s *Store) DeleteContact(ctx context.Context, scope []string, id string) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	_, err := untilUnchanged(ctx, s, func() (struct{}, error) { return struct{}{}, s.deleteOnce(ctx, scope, id) })
	return err
}

func (s *Store) deleteOnce(ctx context.Context, scope []string, id string) error {
	d, err := s.contactDocument(ctx, scope, id)
	if err != nil {
		return err
	}
	c, event := d.contact(), account.NewID()
	if err := s.journal.Intend(ctx, c.AccountID, "contact.delete", []postgres.Intent{{EventID: event, ResourceID: id}}); err != nil {
		return err
	}
	if err := s.doubt(ctx, event, c, nil); err != nil {
		return errors.Join(err, s.settleFailed(ctx, err, c.AccountID, event))
	}
	if _, err := s.contacts.Delete(ctx, []string{c.AccountID}, mongodb.Is("_id", "$eq", id)); err != nil {
		return err
	}
	if err := s.letGo(ctx, event, c.AccountID, keysOf(c)); err != nil {
		return err
	}
	return s.journal.Settle(ctx, c.AccountID, account.AuditSucceeded, event)
}

// CountMembers counts the members of the groups, each once, up to most.
func (s *Store) CountMembers(ctx context.Context, accountID string, groupIDs []string, most int) (int64, error) {
	return s.contacts.Count(ctx, []string{accountID}, mongodb.Is("group_ids", "$in", groupIDs), int64(most))
}

// Recipients returns up to limit members of the groups, each once, in order of id,
// after the cursor.
func (s *Store) Recipients(ctx context.Context, accountID string, groupIDs []string, cursor string, limit int) ([]*account.Contact, error) {
	filter := bson.D{{Key: "group_ids", Value: bson.D{{Key: "$in", Value: groupIDs}}}, {Key: "_id", Value: bson.D{{Key: "$gt", Value: cursor}}}}
	docs, err := mongodb.Find[contactDocument](ctx, s.contacts, []string{accountID}, filter, mongodb.Page{Sort: bson.D{{Key: "_id", Value: int32(1)}}, Limit: int64(limit), Weight: bounds.MaxPage})
	if err != nil {
		return nil, fmt.Errorf("read recipients: %w", err)
	}
	out := make([]*account.Contact, len(docs))
	for i := range docs {
		out[i] = docs[i].contact()
	}
	return out, nil
}
