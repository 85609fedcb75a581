package mongodb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"google.golang.org/protobuf/proto"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/mongodb"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

// groupDocument is a stored contact group. Its members know that they are: each
// contact lists its groups.
type groupDocument struct {
	ID          string    `bson:"_id"`
	AccountID   string    `bson:"account_id"`
	Name        string    `bson:"name"`
	Description string    `bson:"description"`
	RequestHash []byte    `bson:"request_hash"`
	Version     int64     `bson:"version"`
	Trail       []string  `bson:"trail"`
	CreatedAt   time.Time `bson:"created_at"`
	UpdatedAt   time.Time `bson:"updated_at"`
}

func (d *groupDocument) group(members int32) *account.Group {
	return &account.Group{
		ID: d.ID, AccountID: d.AccountID, Name: d.Name, Description: d.Description, ContactCount: members,
		CreatedAt: d.CreatedAt.UTC(), UpdatedAt: d.UpdatedAt.UTC(),
	}
}

// CreateGroup stores an empty contact group; see postgres.Store.
func (s *Store) CreateGroup(ctx context.Context, g *account.Group, respond func() proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	if err := s.journal.DB().Replay(ctx, g.AccountID); err != nil {
		return err
	}
	g.ID, g.CreatedAt = s.id(ctx, g.AccountID, "group", 0), s.db.Now()
	g.UpdatedAt = g.CreatedAt
	if err := s.checkName(ctx, g); err != nil {
		return err
	}
	event := account.NewID()
	err := s.journal.Intend(ctx, g.AccountID, "contact_group.create", []postgres.Intent{{EventID: event, ResourceID: g.ID, Changes: account.Changes(nil, g)}})
	if err != nil {
		return err
	}
	made, err := s.insertGroup(ctx, g, event)
	if err != nil {
		return errors.Join(err, s.settleFailed(ctx, err, g.AccountID, event))
	}
	if !made {
		return s.settleCreated(ctx, g.AccountID, nil, []string{event}, respond())
	}
	return s.settleCreated(ctx, g.AccountID, []string{event}, nil, respond())
}

// insertGroup stores a new group; false when the same call made it before, and g is
// read instead.
func (s *Store) insertGroup(ctx context.Context, g *account.Group, change string) (made bool, err error) {
	taken, err := s.groups.Insert(ctx, g.AccountID, []any{groupDocument{
		ID: g.ID, AccountID: g.AccountID, Name: g.Name, Description: g.Description, RequestHash: requestHash(ctx), Version: 1, Trail: []string{change},
		CreatedAt: g.CreatedAt, UpdatedAt: g.UpdatedAt,
	}})
	if err != nil || len(taken) == 0 {
		return err == nil, err
	}
	d, err := s.groupDocument(ctx, []string{g.AccountID}, g.ID)
	switch {
	case apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND): // it is the name that was taken
		return false, account.ErrDuplicateGroup
	case err != nil:
		return false, err
	case !bytes.Equal(d.RequestHash, requestHash(ctx)):
		return false, errKeyReused
	}
	*g = *d.group(0)
	return false, nil
}

func (s *Store) groupDocument(ctx context.Context, scope []string, id string) (*groupDocument, error) {
	return mongodb.One[groupDocument](ctx, s.groups, scope, mongodb.Is("_id", "$eq", id), account.ErrNoGroup)
}

// Group returns one contact group of the scope.
func (s *Store) Group(ctx context.Context, scope []string, id string) (*account.Group, error) {
	d, err := s.groupDocument(ctx, scope, id)
	if err != nil {
		return nil, err
	}
	n, err := s.members(ctx, []string{d.AccountID}, []string{id})
	if err != nil {
		return nil, err
	}
	return d.group(n[id]), nil
}

// members counts the contacts of groups.
func (s *Store) members(ctx context.Context, scope, groupIDs []string) (map[string]int32, error) {
	type count struct {
		ID string `bson:"_id"`
		N  int32  `bson:"n"`
	}
	in := mongodb.Is("group_ids", "$in", groupIDs)
	counts, err := mongodb.Aggregate[count](ctx, s.contacts, scope, in,
		bson.D{{Key: "$unwind", Value: "$group_ids"}}, bson.D{{Key: "$match", Value: in}},
		bson.D{{Key: "$group", Value: bson.D{{Key: "_id", Value: "$group_ids"}, {Key: "n", Value: bson.D{{Key: "$sum", Value: int32(1)}}}}}})
	if err != nil {
		return nil, err
	}
	out := make(map[string]int32, len(counts))
	for _, c := range counts {
		out[c.ID] = c.N
	}
	return out, nil
}

// CheckGroups answers NOT_FOUND unless all groups are the account's.
func (s *Store) CheckGroups(ctx context.Context, accountID string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	known, err := s.groups.Count(ctx, []string{accountID}, mongodb.Is("_id", "$in", ids), int64(len(ids)))
	if err != nil {
		return err
	}
	if int(known) < len(ids) {
		return account.ErrNoGroup
	}
	return nil
}

// Groups returns a page of the scope's contact groups.
func (s *Store) Groups(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.Group], error) {
	q, err := query.Check(s.groupSpec, r, scope)
	if err != nil {
		return nil, err
	}
	docs, err := mongodb.List[groupDocument](ctx, s.groups, q)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(docs.Data))
	for i, d := range docs.Data {
		ids[i] = d.ID
	}
	n := map[string]int32{}
	if len(ids) > 0 {
		if n, err = s.members(ctx, q.Scope, ids); err != nil {
			return nil, err
		}
	}
	page := &query.Page[*account.Group]{Data: make([]*account.Group, len(docs.Data)), Meta: docs.Meta}
	for i := range docs.Data {
		page.Data[i] = docs.Data[i].group(n[docs.Data[i].ID])
	}
	return page, nil
}

// UpdateGroup lets change alter the group and stores it.
func (s *Store) UpdateGroup(ctx context.Context, scope []string, id string, change func(*account.Group)) (*account.Group, error) {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	return untilUnchanged(ctx, s, func() (*account.Group, error) { return s.updateGroupOnce(ctx, scope, id, change) })
}

func (s *Store) updateGroupOnce(ctx context.Context, scope []string, id string, change func(*account.Group)) (*account.Group, error) {
	d, err := s.groupDocument(ctx, scope, id)
	if err != nil {
		return nil, err
	}
	n, err := s.members(ctx, []string{d.AccountID}, []string{id})
	if err != nil {
		return nil, err
	}
	before, g, event := d.group(n[id]), d.group(n[id]), account.NewID()
	change(g)
	g.UpdatedAt = s.db.Now()
	if err := s.checkName(ctx, g); err != nil {
		return nil, err
	}
	err = s.journal.Intend(ctx, g.AccountID, "contact_group.update", []postgres.Intent{{EventID: event, ResourceID: id, Changes: account.Changes(before, g)}})
	if err != nil {
		return nil, err
	}
	filter := append(mongodb.Is("_id", "$eq", id), mongodb.Is("version", "$eq", d.Version)...)
	matched, err := s.groups.Update(ctx, []string{g.AccountID}, filter, mongodb.Set(bson.D{
		{Key: "name", Value: g.Name},
		{Key: "description", Value: g.Description},
		{Key: "version", Value: d.Version + 1},
		{Key: "trail", Value: trailed(d.Trail, event)},
		{Key: "updated_at", Value: g.UpdatedAt},
	}))
	switch {
	case errors.Is(err, mongodb.ErrDuplicate):
		err = account.ErrDuplicateGroup
	case err == nil && matched == 0:
		err = errChanged
	}
	if err != nil {
		return nil, errors.Join(err, s.settleFailed(ctx, err, g.AccountID, event))
	}
	return g, s.journal.Settle(ctx, g.AccountID, account.AuditSucceeded, event)
}

// checkName looks for another group of this name.
func (s *Store) checkName(ctx context.Context, g *account.Group) error {
	filter := append(mongodb.Is("name", "$eq", g.Name), mongodb.Is("_id", "$ne", g.ID)...)
	n, err := s.groups.Count(ctx, []string{g.AccountID}, filter, 1)
	if err == nil && n > 0 {
		err = account.ErrDuplicateGroup
	}
	return err
}

// DeleteGroup removes a contact group of the scope, not its contacts.
func (s *Store) DeleteGroup(ctx context.Context, scope []string, id string) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	d, err := s.groupDocument(ctx, scope, id)
	if err != nil {
		return err
	}
	event := account.NewID()
	if err := s.journal.Intend(ctx, d.AccountID, "contact_group.delete", []postgres.Intent{{EventID: event, ResourceID: id}}); err != nil {
		return err
	}
	if _, err := s.groups.Delete(ctx, []string{d.AccountID}, mongodb.Is("_id", "$eq", id)); err != nil {
		return err
	}
	if err := s.emptyGroup(ctx, d.AccountID, id); err != nil {
		return err
	}
	return s.journal.Settle(ctx, d.AccountID, account.AuditSucceeded, event)
}

// emptyGroup takes every contact out of a group.
func (s *Store) emptyGroup(ctx context.Context, accountID, id string) error {
	// All members, who may be a million; it is less than a call may take.
	_, err := s.contacts.Within(25*time.Second).Update(ctx, []string{accountID}, mongodb.Is("group_ids", "$eq", id), bson.D{{Key: "$pull", Value: bson.D{{Key: "group_ids", Value: id}}}})
	return err
}

// AddContacts adds contacts to a group of the scope and returns how many were not
// members before. All must be of the group's account, else none is added.
func (s *Store) AddContacts(ctx context.Context, scope []string, groupID string, contactIDs []string) (int32, error) {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	d, err := s.groupDocument(ctx, scope, groupID)
	if err != nil {
		return 0, err
	}
	mine := []string{d.AccountID}
	known, err := s.contacts.Count(ctx, mine, mongodb.Is("_id", "$in", contactIDs), int64(len(contactIDs)))
	if err != nil {
		return 0, err
	}
	if int(known) < distinct(contactIDs) {
		return 0, account.ErrNoContact
	}
	fresh := append(mongodb.Is("_id", "$in", contactIDs), mongodb.Is("group_ids", "$ne", groupID)...)
	adding, err := s.contacts.Count(ctx, mine, fresh, int64(len(contactIDs)))
	if err != nil {
		return 0, err
	}
	event := account.NewID()
	changes := fmt.Appendf(nil, `{"contacts": {"to": %d}}`, adding)
	if err := s.journal.Intend(ctx, d.AccountID, "contact_group.add_contacts", []postgres.Intent{{EventID: event, ResourceID: groupID, Changes: changes}}); err != nil {
		return 0, err
	}
	added, err := s.contacts.Update(ctx, mine, fresh, bson.D{{Key: "$addToSet", Value: bson.D{{Key: "group_ids", Value: groupID}}}})
	if err != nil {
		return 0, err
	}
	return int32(added), s.journal.Settle(ctx, d.AccountID, account.AuditSucceeded, event)
}

func distinct(ids []string) int {
	seen := map[string]bool{}
	for _, id := range ids {
		seen[id] = true
	}
	return len(seen)
}

// RemoveContact takes a contact out of a group of the scope.
func (s *Store) RemoveContact(ctx context.Context, scope []string, groupID, contactID string) error {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	member := append(mongodb.Is("_id", "$eq", contactID), mongodb.Is("group_ids", "$eq", groupID)...)
	d, err := mongodb.One[contactDocument](ctx, s.contacts, scope, member, account.ErrNoContact)
	if err != nil {
		return err
	}
	event := account.NewID()
	if err := s.journal.Intend(ctx, d.AccountID, "contact_group.remove_contact", []postgres.Intent{{EventID: event, ResourceID: groupID}}); err != nil {
		return err
	}
	if _, err := s.contacts.Update(ctx, []string{d.AccountID}, member, bson.D{{Key: "$pull", Value: bson.D{{Key: "group_ids", Value: groupID}}}}); err != nil {
		return err
	}
	return s.journal.Settle(ctx, d.AccountID, account.AuditSucceeded, event)
}

// GroupContacts returns a page of a group's members.
func (s *Store) GroupContacts(ctx context.Context, scope []string, groupID string, r query.Request) (*query.Page[*account.Contact], error) {
	d, err := s.groupDocument(ctx, scope, groupID)
	if err != nil {
		return nil, err
	}
	r.Filters = append([]string{"group_id:eq:" + groupID}, r.Filters...)
	return s.Contacts(ctx, []string{d.AccountID}, r)
}
