// Package mongodb keeps contacts and contact groups as documents in MongoDB (decision
// B8). It answers exactly as services/account/postgres does; one suite, storetest,
// holds both to that.
//
// MongoDB takes no part in the transactions of PostgreSQL, where the audit log and
// idempotency keys are. So each change is intended there first, made here, and settled
// there after; Sweep settles what a crash left open. What makes a contact unique is
// claimed first, as documents whose _id is the account, the kind and the value: no
// transaction over documents is needed, and no partial index.
package mongodb

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/idempotency"
	"github.com/turumba/turumba/kit/mongodb"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

const (
	// writeLimit is how long one change may take here. It is well below claimLife, so
	// that nobody writes by a claim that was taken over.
	writeLimit = 20 * time.Second
	// claimLife is how long a claim holds that was not confirmed.
	claimLife = 30 * time.Second
	// trailLength is how many of a document's last changes it remembers.
	trailLength = 20
	// versionTries is how often a change is tried again that met another.
	versionTries = 10
)

// Config is what the store needs.
type Config struct {
	DB *mongodb.DB
	// Journal is the service's PostgreSQL.
	Journal *postgres.Store
	// TokenKey authenticates page tokens.
	TokenKey []byte
	// IDKey makes ids of idempotency keys: a call that is repeated finds what it made.
	IDKey []byte
}

// Store is the contacts and contact groups in MongoDB.
type Store struct {
	db      *mongodb.DB
	journal *postgres.Store
	idKey   []byte

	// rekeyed is whether this process looked for keys of before one normaliser; Rekey is
	// called by one loop alone.
	rekeyed bool

	contacts, keys, groups *mongodb.Collection
	contactSpec, groupSpec *query.Spec
}

// New makes a store, and the indexes where they are missing.
func New(ctx context.Context, cfg Config) (*Store, error) {
	s := &Store{db: cfg.DB, journal: cfg.Journal, idKey: cfg.IDKey}
	for _, def := range []struct {
		collection **mongodb.Collection
		name       string
		indexes    []mongodb.Index
	}{
		{&s.contacts, "contacts", contactIndexes()},
		{&s.keys, "contact_keys", []mongodb.Index{{Fields: []string{"claimed_at"}}}},
		{&s.groups, "contact_groups", []mongodb.Index{
			{Fields: []string{"account_id", "name"}, Unique: true},
			{Fields: []string{"account_id", "created_at", "_id"}},
		}},
	} {
		var err error
		if *def.collection, err = cfg.DB.Collection(ctx, def.name, def.indexes...); err != nil {
			return nil, err
		}
	}
	var err error
	s.contactSpec, err = query.SpecFor((&accountv1.Contact{}).ProtoReflect().Descriptor(), query.Table{
		From: "contacts", Select: []string{"contacts"}, ID: "_id", TokenKey: cfg.TokenKey,
		Columns: map[string]query.Column{
			"id": {Expr: "_id"}, "name": {Expr: "display"}, "metadata": {Expr: "attributes"},
			"group_id": {Expr: "group_ids", Kind: query.KindUUID, Operators: []optionsv1.Operator{optionsv1.Operator_OPERATOR_EQ, optionsv1.Operator_OPERATOR_IN}},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("contacts: %w", err)
	}
	s.groupSpec, err = query.SpecFor((&accountv1.ContactGroup{}).ProtoReflect().Descriptor(), query.Table{
		From: "contact_groups", Select: []string{"contact_groups"}, ID: "_id", TokenKey: cfg.TokenKey,
		Columns: map[string]query.Column{"id": {Expr: "_id"}},
	})
	if err != nil {
		return nil, fmt.Errorf("contact groups: %w", err)
	}
	return s, nil
}

// Ready reports whether MongoDB answers.
func (s *Store) Ready(ctx context.Context) error { return s.db.Ping(ctx) }

// id is a new id, or for a call with an idempotency key the same one each time (a
// UUIDv8, RFC 9562): n tells the things apart that one call makes.
func (s *Store) id(ctx context.Context, accountID, what string, n int) string {
	r, ok := idempotency.From(ctx)
	if !ok {
		return account.NewID()
	}
	mac := hmac.New(sha256.New, s.idKey)
	for _, part := range []string{accountID, r.Method, r.Key, what, strconv.Itoa(n)} {
		fmt.Fprintf(mac, "%d:%s", len(part), part)
	}
	id := uuid.UUID(mac.Sum(nil)[:16])
	id[6], id[8] = 0x80|id[6]&0x0f, 0x80|id[8]&0x3f
	return id.String()
}

// requestHash is what the call asked for, to tell a repeated call from another with
// the same idempotency key; empty without a key.
func requestHash(ctx context.Context) []byte {
	if r, ok := idempotency.From(ctx); ok {
		return r.Hash
	}
	return nil
}

// trailed is a document's trail with one more change.
func trailed(trail []string, change string) []string {
	out := append(slices.Clone(trail), change)
	return out[max(0, len(out)-trailLength):]
}
