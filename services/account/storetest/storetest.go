// Package storetest is what every contact store must do. PostgreSQL and MongoDB pass
// the same cases, so that it never matters to a caller where contacts are.
package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/idempotency"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/importer"
	"github.com/turumba/turumba/services/account/postgres"
	"github.com/turumba/turumba/services/account/server"
)

// Stores are what a case works with: empty, and its own.
type Stores struct {
	Contacts server.Contacts
	Batches  importer.Batches
	// Journal has the audit log, the imports and the idempotency keys.
	Journal *postgres.Store
}

// fixture is a case at work.
type fixture struct {
	Stores
	t   *testing.T
	ctx context.Context
	// mine and other are two accounts.
	mine, other string
}

// Run runs the suite and prints how many cases passed, and the names of those that the
// server cannot pass.
func Run(t *testing.T, name string, cannot []string, open func(t *testing.T) Stores) {
	t.Helper()
	var passed atomic.Int32
	cases := map[string]func(f *fixture){
		"contact keeps every field":                      keepsEveryField,
		"keys and values are data":                       dataIsData,
		"duplicates name the contact that has it":        duplicates,
		"a batch keeps the good ones":                    batch,
		"one address, fifty at once":                     rivals,
		"the same call twice makes one":                  repeatedCall,
		"the same call fifty times at once makes one":    repeatedAtOnce,
		"update hands keys on":                           updateKeys,
		"spellings of one mailbox":                       spellings,
		"keys of before are brought into today's form":   rekeys,
		"updates at once lose nothing":                   updatesAtOnce,
		"delete frees what it had":                       deleteFrees,
		"nobody sees another account":                    tenants,
		"every filter":                                   filters,
		"refused filters":                                refusedFilters,
		"every order, page by page":                      orders,
		"pages that are too heavy end":                   heavyPages,
		"page tokens fit one list":                       tokens,
		"several accounts in one list":                   severalAccounts,
		"groups":                                         groups,
		"members":                                        members,
		"recipients once, in order, from a cursor":       recipients,
		"every change is audited":                        audited,
		"import batch":                                   importBatch,
		"import of keys that move":                       importMovedKeys,
		"dry run of an import":                           importDryRun,
		"an import acts for its person":                  importOf,
		"free data is found by key":                      attributes,
		"a contact that is gone is in no group and list": goneFromGroups,
		"a group that is gone leaves its contacts":       groupGone,
		"text that looks like a pattern is literal":      literalText,
		"totals":                                          totals,
		"contacts up to the quota":                        quotas,
		"contacts up to the quota, many at once":          quotaRivals,
		"an import up to the quota":                       quotaOfImports,
		"an update that breaks a rule changes nothing":    refusedUpdate,
		"the same name is free in another account":        groupNames,
		"a page beyond the end is empty":                  beyondTheEnd,
		"a call without an idempotency key makes another": notRepeated,
	}
	for _, what := range cannot {
		require.Contains(t, cases, what)
		delete(cases, what)
	}
	without := ""
	if len(cannot) > 0 {
		without = "; it cannot do: " + strings.Join(cannot, ", ")
	}
	t.Cleanup(func() {
		fmt.Fprintf(os.Stdout, "contacts on %s: %d cases, %d passed%s\n", name, len(cases), passed.Load(), without)
	})
	for what, run := range cases {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			run(&fixture{Stores: open(t), t: t, ctx: t.Context(), mine: account.NewID(), other: account.NewID()})
			passed.Add(1)
		})
	}
}

// create stores contacts of an account, which must all be good.
func (f *fixture) create(accountID string, list ...*account.Contact) {
	f.t.Helper()
	for i, err := range f.tryCreate(f.ctx, accountID, list...) {
		require.NoError(f.t, err, "%+v", list[i])
	}
}

// tryCreate stores contacts and returns what became of each.
func (f *fixture) tryCreate(ctx context.Context, accountID string, list ...*account.Contact) []error {
	f.t.Helper()
	var got []error
	err := f.Contacts.CreateContacts(ctx, accountID, list, func(errs []error) (proto.Message, error) {
		got = errs
		return &accountv1.BatchCreateContactsResponse{}, nil
	})
	require.NoError(f.t, err)
	return got
}

// createOne stores one contact as CreateContact does.
func (f *fixture) createOne(ctx context.Context, accountID string, c *account.Contact) error {
	return f.Contacts.CreateContacts(ctx, accountID, []*account.Contact{c}, func(errs []error) (proto.Message, error) {
		return &accountv1.CreateContactResponse{Contact: &accountv1.Contact{Id: c.ID}}, errs[0]
	})
}

func (f *fixture) group(accountID, name string) *account.Group {
	f.t.Helper()
	g := &account.Group{AccountID: accountID, Name: name}
	require.NoError(f.t, f.createGroup(f.ctx, g))
	return g
}

func (f *fixture) createGroup(ctx context.Context, g *account.Group) error {
	return f.Contacts.CreateGroup(ctx, g, func() proto.Message {
		return &accountv1.CreateContactGroupResponse{ContactGroup: &accountv1.ContactGroup{Id: g.ID}}
	})
}

// withKey is a call with an idempotency key.
func (f *fixture) withKey(key, body string) context.Context {
	hash := make([]byte, 32)
	copy(hash, body)
	return idempotency.With(f.ctx, &idempotency.Request{Method: "/test/Create", Key: key, Hash: hash})
}

// list is the names on the first page of an account's contacts.
func (f *fixture) list(accountID string, filters ...string) []string {
	f.t.Helper()
	return f.names(query.Request{Filters: filters, Sorts: []string{"name:asc"}}, accountID)
}

func (f *fixture) names(r query.Request, scope ...string) []string {
	f.t.Helper()
	page, err := f.Contacts.Contacts(f.ctx, scope, r)
	require.NoError(f.t, err, "%v", r)
	out := make([]string, len(page.Data))
	for i, c := range page.Data {
		out[i] = c.DisplayName()
	}
	return out
}

func (f *fixture) get(accountID, id string) *account.Contact {
	f.t.Helper()
	c, err := f.Contacts.Contact(f.ctx, []string{accountID}, id)
	require.NoError(f.t, err)
	return c
}

func (f *fixture) reason(want errorv1.Reason, err error) {
	f.t.Helper()
	require.True(f.t, apierr.HasReason(err, want), "%v is not %v", err, want)
}

// holder is the contact that an error names as the one that has the value.
func (f *fixture) holder(want errorv1.Reason, err error) string {
	f.t.Helper()
	f.reason(want, err)
	return apierr.From(err).Meta["existing_id"]
}

func object(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // a case is wrong
	}
	return raw
}
