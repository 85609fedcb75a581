// Package postgres is the account service's store. Every method takes the scope
// (account ids) explicitly and every query filters on it; row-level security
// and the contacts view are the second net.
package postgres

import (
	"embed"
	"fmt"
	"io/fs"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/kit/quota"
	account "github.com/turumba/turumba/services/account"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the sets that the service's database needs.
func Migrations() []pg.MigrationSet {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return []pg.MigrationSet{quota.Migrations(), {Name: "account", FS: sub}, pg.IdempotencyMigrations()}
}

// Store is the account service's PostgreSQL.
type Store struct {
	db       *pg.DB
	issuer   string
	defaults account.Quotas
	// accountsPerPerson is how many accounts a person may own; 0 is no limit.
	accountsPerPerson int64

	accounts, users, roles, members, invitations, apiKeys, auditEvents, contacts, groups, groupContacts, imports *query.Spec
}

// New makes a store. tokenKey authenticates page tokens; issuer is the iss of the
// tokens of API keys. defaults are the quotas of accounts that have none of their own.
func New(db *pg.DB, tokenKey []byte, issuer string, defaults account.Quotas) (*Store, error) {
	s := &Store{db: db, issuer: issuer, defaults: defaults}
	for _, def := range []struct {
		spec  **query.Spec
		make  func() (*query.Spec, error)
		named string
	}{
		{&s.accounts, func() (*query.Spec, error) {
			return query.SpecFor((&accountv1.Account{}).ProtoReflect().Descriptor(), query.Table{
				From: "accounts", Select: []string{accountColumns}, Tenant: "id", TokenKey: tokenKey,
				Columns: map[string]query.Column{"name": {NotNull: true}, "status": {NotNull: true}},
			})
		}, "accounts"},
		{&s.roles, func() (*query.Spec, error) {
			return query.SpecFor((&accountv1.Role{}).ProtoReflect().Descriptor(), query.Table{
				From: "roles", Select: []string{roleColumns}, TokenKey: tokenKey,
				Columns: map[string]query.Column{"name": {NotNull: true}},
			})
		}, "roles"},
		{&s.members, func() (*query.Spec, error) {
			return query.SpecFor((&accountv1.Membership{}).ProtoReflect().Descriptor(), query.Table{
				From: membershipFrom, Select: []string{membershipColumns}, TokenKey: tokenKey,
			})
		}, "memberships"},
		{&s.users, func() (*query.Spec, error) {
			return query.SpecFor((&accountv1.User{}).ProtoReflect().Descriptor(), query.Table{
				From: usersFrom, Select: []string{userColumns}, TokenKey: tokenKey,
				Columns: map[string]query.Column{
					"email": {NotNull: true}, "given_name": {NotNull: true}, "family_name": {NotNull: true},
					"account_id": {Kind: query.KindUUID, Operators: []optionsv1.Operator{optionsv1.Operator_OPERATOR_EQ, optionsv1.Operator_OPERATOR_IN}},
				},
			})
		}, "users"},
		{&s.invitations, func() (*query.Spec, error) {
			return query.SpecFor((&accountv1.Invitation{}).ProtoReflect().Descriptor(), query.Table{
				From: "invitations", Select: []string{invitationColumns}, TokenKey: tokenKey,
				Columns: map[string]query.Column{"email": {NotNull: true}, "status": {Expr: invitationStatus}},
			})
		}, "invitations"},
		{&s.auditEvents, func() (*query.Spec, error) {
			return query.SpecFor((&accountv1.AuditEvent{}).ProtoReflect().Descriptor(), query.Table{
				From: "audit_events", Select: []string{auditColumns}, TokenKey: tokenKey,
			})
		}, "audit events"},
		{&s.apiKeys, func() (*query.Spec, error) {
			return query.SpecFor((&accountv1.ApiKey{}).ProtoReflect().Descriptor(), query.Table{
				From: "api_keys", Select: []string{apiKeyColumns}, TokenKey: tokenKey,
				Columns: map[string]query.Column{"name": {NotNull: true}},
			})
		}, "API keys"},
		{&s.contacts, func() (*query.Spec, error) { return contactSpec("contacts", tokenKey) }, "contacts"},
		{&s.imports, func() (*query.Spec, error) { return importSpec(tokenKey) }, "contact imports"},
		{&s.groupContacts, func() (*query.Spec, error) { return contactSpec(groupContactsFrom, tokenKey) }, "contacts of a group"},
		{&s.groups, func() (*query.Spec, error) {
			return query.SpecFor((&accountv1.ContactGroup{}).ProtoReflect().Descriptor(), query.Table{
				From: "contact_groups", Select: []string{groupColumns}, TokenKey: tokenKey,
				Columns: map[string]query.Column{"name": {NotNull: true}},
			})
		}, "contact groups"},
	} {
		spec, err := def.make()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", def.named, err)
		}
		*def.spec = spec
	}
	return s, nil
}

// LimitAccounts sets how many accounts a person may own; 0, as it is without, is no limit.
func (s *Store) LimitAccounts(perPerson int64) { s.accountsPerPerson = perPerson }

// Defaults are the quotas of accounts that have none of their own.
func (s *Store) Defaults() account.Quotas { return s.defaults }

// DB is the store's database, for the transactions of handlers.
func (s *Store) DB() *pg.DB { return s.db }
