package mongodb

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/mongodb"
	account "github.com/turumba/turumba/services/account"
)

// keyDocument says whose a value is that belongs to one contact of an account. It is
// claimed before the contact is written and confirmed after it; what is neither
// confirmed nor true after claimLife is swept.
type keyDocument struct {
	ID        string `bson:"_id"` // account|kind|value
	AccountID string `bson:"account_id"`
	ContactID string `bson:"contact_id"`
	// ClaimedAt is nil once the contact has the value for sure.
	ClaimedAt *time.Time `bson:"claimed_at"`
	// Claim is the change that claims or doubts it; only that one confirms it or lets
	// it go.
	Claim string `bson:"claim"`
}

func keyID(accountID string, k account.ContactKey, value string) string {
	return accountID + "|" + string(k) + "|" + value
}

// keysOf are the ids of the keys that the contact has.
func keysOf(c *account.Contact) []string {
	var out []string
	for _, k := range account.ContactKeys() {
		if v := c.Key(k); v != "" {
			out = append(out, keyID(c.AccountID, k, v))
		}
	}
	return out
}

// refusal is why a contact cannot have a key.
type refusal struct {
	key    account.ContactKey
	holder string // the contact that has it
	rival  bool   // the holder is only about to have it
}

func (r *refusal) conflict() error {
	if r.rival {
		return errRival
	}
	return account.DuplicateKey(r.key, r.holder)
}

// errRival: another change is at the same key, perhaps of the same call.
var errRival = apierr.New(errorv1.Reason_REASON_CONFLICT, "another change of this address is in progress")

// want is a key that a contact is to have.
type want struct {
	id      string
	key     account.ContactKey
	contact *account.Contact
}

// claim claims every key of the contacts that they do not have yet. Contacts that are
// refused one, by their id, claim none.
func (s *Store) claim(ctx context.Context, token, accountID string, list []*account.Contact) (map[string]*refusal, error) {
	now := s.db.Now()
	var wants []want
	var docs []any
	for _, c := range list {
		for _, k := range account.ContactKeys() {
			if v := c.Key(k); v != "" {
				w := want{id: keyID(accountID, k, v), key: k, contact: c}
				wants = append(wants, w)
				docs = append(docs, keyDocument{ID: w.id, AccountID: accountID, ContactID: c.ID, ClaimedAt: &now, Claim: token})
			}
		}
	}
	taken, err := s.keys.Insert(ctx, accountID, docs)
	if err != nil || len(taken) == 0 {
		return nil, err
	}
	slices.Sort(taken)
	holders, err := s.keyDocuments(ctx, accountID, taken, wants)
	if err != nil {
		return nil, err
	}
	refused := map[string]*refusal{}
	for _, i := range taken {
		r, err := s.contest(ctx, token, wants[i], holders[wants[i].id])
		if err != nil {
			return nil, err
		}
		if r != nil && refused[wants[i].contact.ID] == nil {
			refused[wants[i].contact.ID] = r
		}
	}
	var release []string
	for _, w := range wants {
		if refused[w.contact.ID] != nil {
			release = append(release, w.id)
		}
	}
	return refused, s.letGo(ctx, token, accountID, release)
}

func (s *Store) keyDocuments(ctx context.Context, accountID string, at []int, wants []want) (map[string]*keyDocument, error) {
	ids := make([]string, len(at))
	for i, n := range at {
		ids[i] = wants[n].id
	}
	docs, err := mongodb.Find[keyDocument](ctx, s.keys, []string{accountID}, mongodb.Is("_id", "$in", ids), mongodb.Page{})
	if err != nil {
		return nil, err
	}
	out := make(map[string]*keyDocument, len(docs))
	for i := range docs {
		out[docs[i].ID] = &docs[i]
	}
	return out, nil
}

// contest settles a key that somebody has: nil when the contact may have it. A claim
// that is young is another change's, which alone may settle it.
func (s *Store) contest(ctx context.Context, token string, w want, held *keyDocument) (*refusal, error) {
	if held == nil { // let go in between
		return &refusal{key: w.key, rival: true}, nil
	}
	mine := held.ContactID == w.contact.ID
	has := held.ClaimedAt == nil
	if !has {
		var err error
		if has, err = s.hasKey(ctx, held); err != nil {
			return nil, err
		}
	}
	young := held.ClaimedAt != nil && s.db.Now().Sub(*held.ClaimedAt) < claimLife
	switch {
	case mine && held.ClaimedAt == nil:
		return nil, nil
	case !mine && has:
		return &refusal{key: w.key, holder: held.ContactID}, nil
	case young:
		return &refusal{key: w.key, holder: held.ContactID, rival: true}, nil
	}
	return s.takeOver(ctx, token, w, held)
}

// takeOver claims a key whose claim nobody confirmed.
func (s *Store) takeOver(ctx context.Context, token string, w want, held *keyDocument) (*refusal, error) {
	n, err := s.keys.Update(ctx, []string{held.AccountID}, claimOf(held), mongodb.Set(bson.D{
		{Key: "contact_id", Value: w.contact.ID}, {Key: "claimed_at", Value: s.db.Now()}, {Key: "claim", Value: token},
	}))
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return &refusal{key: w.key, holder: held.ContactID, rival: true}, nil
	}
	return nil, nil
}

// claimOf finds the key while its claim is the one that was seen.
func claimOf(k *keyDocument) bson.D {
	return bson.D{{Key: "_id", Value: bson.D{{Key: "$eq", Value: k.ID}}}, {Key: "claim", Value: bson.D{{Key: "$eq", Value: k.Claim}}}}
}

// hasKey reports whether the contact has the value that the key says it has.
func (s *Store) hasKey(ctx context.Context, k *keyDocument) (bool, error) {
	docs, err := mongodb.Find[contactDocument](ctx, s.contacts, []string{k.AccountID}, mongodb.Is("_id", "$eq", k.ContactID), mongodb.Page{Limit: 1})
	return len(docs) > 0 && slices.Contains(keysOf(docs[0].contact()), k.ID), err
}

// doubt marks the keys that a change takes from the contact, so that a crash leaves
// none behind that nobody has. errChanged when another change is at one of them.
func (s *Store) doubt(ctx context.Context, token string, before, after *account.Contact) error {
	lost := keysOf(before)
	if after != nil {
		kept := keysOf(after)
		lost = slices.DeleteFunc(lost, func(id string) bool { return slices.Contains(kept, id) })
	}
	if len(lost) == 0 {
		return nil
	}
	free := append(mongodb.Is("_id", "$in", lost), mongodb.Is("contact_id", "$eq", before.ID)...)
	free = append(free, mongodb.Is("claimed_at", "$eq", nil)...)
	n, err := s.keys.Update(ctx, []string{before.AccountID}, free, mongodb.Set(bson.D{{Key: "claimed_at", Value: s.db.Now()}, {Key: "claim", Value: token}}))
	if err == nil && int(n) < len(lost) {
		err = errors.Join(errChanged, s.confirm(ctx, token, before.AccountID, lost))
	}
	return err
}

// confirm notes that contacts have the keys that the change claimed.
func (s *Store) confirm(ctx context.Context, token, accountID string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	filter := append(mongodb.Is("_id", "$in", ids), mongodb.Is("claim", "$eq", token)...)
	_, err := s.keys.Update(ctx, []string{accountID}, filter, mongodb.Set(bson.D{{Key: "claimed_at", Value: nil}, {Key: "claim", Value: ""}}))
	return err
}

// letGo removes the keys that the change claimed or doubted.
func (s *Store) letGo(ctx context.Context, token, accountID string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := s.keys.Delete(ctx, []string{accountID}, append(mongodb.Is("_id", "$in", ids), mongodb.Is("claim", "$eq", token)...))
	return err
}

// settleKeys confirms or removes what the change claimed or doubted: has are the keys
// that the contact has in the end, had those that it has not.
func (s *Store) settleKeys(ctx context.Context, token, accountID string, has, had []string) error {
	if err := s.confirm(ctx, token, accountID, has); err != nil {
		return err
	}
	return s.letGo(ctx, token, accountID, slices.DeleteFunc(slices.Clone(had), func(id string) bool { return slices.Contains(has, id) }))
}
