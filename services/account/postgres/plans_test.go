package postgres

import (
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/query/querytest"
	account "github.com/turumba/turumba/services/account"
)

const (
	planGroup = "0190a5c8-0000-7000-8002-100000000001"
	// planRows is what a page may look at where rows pile up by machine.
	planRows = 500
	// planOwn is how many rows the caller's account has where people make them one at
	// a time; a page may look at all of those, and at none of others.
	planOwn = 200
	// planMembers is how many contacts planGroup has.
	planMembers = 100
	// planWeek is less than the contract asks for where it asks for a range.
	planWeek = "created_at:range:2025-02-01,2025-02-08"
)

// planAccounts are two of the caller's and two of others.
var planAccounts = []string{
	"0190a5c8-0000-7000-8000-000000000001", "0190a5c8-0000-7000-8000-000000000002",
	"0190a5c8-0000-7000-8000-000000000003", "0190a5c8-0000-7000-8000-000000000004",
}

// TestEveryDeclaredFilterAndOrderIsServed holds what a page of a list reads to a
// bound, whatever is asked of it.
func TestEveryDeclaredFilterAndOrderIsServed(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, Migrations()...)
	db := d.Open(t, pg.RoleAPI)
	s, err := New(db, make([]byte, 32), "http://test", account.Quotas{})
	require.NoError(t, err)
	fillForPlans(t, d)
	lists := []querytest.List{
		{Name: "contacts", Spec: s.contacts, Most: planRows, Narrow: planWeek},
		{Name: "audit events", Spec: s.auditEvents, Most: planRows, Narrow: planWeek},
		{Name: "contact groups", Spec: s.groups, Most: 2 * planOwn}, // each counts its members
		{Name: "contact imports", Spec: s.imports, Most: planOwn},
		{Name: "roles", Spec: s.roles, Most: planOwn},
		{Name: "API keys", Spec: s.apiKeys, Most: planOwn},
		{Name: "invitations", Spec: s.invitations, Most: planOwn},
		{Name: "memberships", Spec: s.members, Most: 3 * planOwn}, // with the user and the role of each
		{Name: "users", Spec: s.users, Most: 3 * planOwn},         // and whether another membership counts
	}
	ofGroup := querytest.List{
		Name: "contacts of a group", Spec: s.groupContacts, Most: 5 * planMembers, Always: []string{"group_id:eq:" + planGroup}, Narrow: planWeek,
	}
	accounts := querytest.List{Name: "accounts", Spec: s.accounts, Most: 1}
	querytest.Complete(t, s, append(lists, ofGroup, accounts)...)
	querytest.Check(t, db, planAccounts[:1], append(lists, ofGroup)...)
	querytest.Check(t, db, planAccounts[:2], append(lists, accounts)...)
}

// fillForPlans fills the lists of the caller's accounts and of two others, which
// have fifty times as much where the caller may look at all of his own.
func fillForPlans(t *testing.T, d *pgtest.Database) {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), d.URL)
	require.NoError(t, err)
	for i, id := range planAccounts {
		text, rows := "own", planOwn
		if i > 1 {
			text, rows = querytest.Theirs, 50*planOwn
		}
		_, err := admin.Exec(t.Context(), strings.NewReplacer(
			"$account", "'"+id+"'::uuid", "$text", "'"+text+"'", "$rows", strconv.Itoa(rows), "$members", strconv.Itoa(planMembers), "$tenant", strconv.Itoa(i+1),
		).Replace(planSQL))
		require.NoError(t, err)
	}
	_, err = admin.Exec(t.Context(), "VACUUM ANALYZE")
	require.NoError(t, err)
	require.NoError(t, admin.Close(t.Context()))
}

// planSQL fills the lists of one account; their texts hold $text.
const planSQL = `
CREATE OR REPLACE FUNCTION plan_id(tenant int, kind int, i int) RETURNS uuid LANGUAGE sql IMMUTABLE
	RETURN ('0190a5c8-0000-7000-800' || kind || '-' || tenant || lpad(i::text, 11, '0'))::uuid;
CREATE OR REPLACE FUNCTION plan_time(i int) RETURNS timestamptz LANGUAGE sql IMMUTABLE RETURN timestamptz '2025-01-01Z' + i * interval '1 hour';

INSERT INTO accounts (id, name, created_at, updated_at) VALUES ($account, $text, plan_time(0), plan_time(0));
INSERT INTO accounts (id, name, created_at, updated_at)
	SELECT plan_id($tenant, 0, i), 'theirs' || i, plan_time(i), plan_time(i % 977) FROM generate_series(1, 2000) AS i;
INSERT INTO contact_documents (id, account_id, doc, created_at, updated_at)
	SELECT plan_id($tenant, 1, i), $account, jsonb_build_object('first_name', $text || ' First ' || i % 97, 'last_name', $text || ' Last ' || i % 89, 'display', $text || ' First ' || i,
			'email', 'c' || i || '@' || $text || '.org', 'phone', $text || '+2519' || lpad(i::text, 8, '0'), 'external_id', $text || i,
			'tags', jsonb_build_array('all'), 'metadata', jsonb_build_object('k', 'v' || i % 100)), plan_time(i), plan_time(i % 977)
	FROM generate_series(1, 5000) AS i;
INSERT INTO contact_groups (id, account_id, name, created_at, updated_at)
	SELECT plan_id($tenant, 2, i), $account, $text || i, plan_time(i), plan_time(i % 977) FROM generate_series(1, $rows) AS i;
INSERT INTO contact_group_members (account_id, group_id, contact_id)
	SELECT $account, plan_id($tenant, 2, 1), plan_id($tenant, 1, i) FROM generate_series(1, $members) AS i;
INSERT INTO contact_imports (id, account_id, status, file_name, dry_run, encoding, delimiter, columns, match_by, contact_group_ids, created_at, updated_at)
	SELECT plan_id($tenant, 3, i), $account, CASE $text WHEN 'own' THEN 'completed' ELSE 'failed' END, $text, false, '', '', '[]', '{}', '{}', plan_time(i), plan_time(i)
	FROM generate_series(1, $rows) AS i;
INSERT INTO roles (id, account_id, name, permissions, created_at, updated_at)
	SELECT plan_id($tenant, 4, i), $account, $text || i, '{}', plan_time(i), plan_time(i % 977) FROM generate_series(1, $rows) AS i;
INSERT INTO users (id, email, phone, given_name, family_name, idp_issuer, idp_subject, created_at, updated_at)
	SELECT plan_id($tenant, 5, i), $text || md5($account::text || i), CASE $text WHEN 'theirs' THEN 'theirs' || i END, $text || i % 97, $text || i % 89, 'x', $text || plan_id($tenant, 5, i), plan_time(i), plan_time(i % 977) FROM generate_series(1, $rows) AS i;
INSERT INTO account_users (id, account_id, user_id, role_id, created_at)
	SELECT plan_id($tenant, 6, i), $account, plan_id($tenant, 5, i), plan_id($tenant, 4, 1 + i % 7), plan_time(i) FROM generate_series(1, $rows) AS i;
INSERT INTO api_keys (id, account_id, name, prefix, secret_hash, permissions, created_by_user_id, created_at)
	SELECT plan_id($tenant, 7, i), $account, $text || i, '', '', '{}', plan_id($tenant, 5, i), plan_time(i) FROM generate_series(1, $rows) AS i;
INSERT INTO invitations (id, account_id, email, role_id, token_hash, status, invited_by_user_id, expires_at, created_at, updated_at)
	SELECT plan_id($tenant, 8, i), $account, $text || i, plan_id($tenant, 4, 1 + i % 7), decode(md5($text || $account || i), 'hex'), CASE $text WHEN 'own' THEN 'accepted' ELSE 'revoked' END,
		plan_id($tenant, 5, 1), plan_time(i), plan_time(i), plan_time(i)
	FROM generate_series(1, $rows) AS i;
INSERT INTO audit_events (id, account_id, action, resource_type, resource_id, actor_user_id, actor_api_key_id, ip, created_at)
	SELECT plan_id($tenant, 9, i), $account, $text || '.create', $text, plan_id($tenant, 1, i), CASE WHEN i % 2 = 0 THEN plan_id($tenant, 5, i % 7) END, CASE WHEN i % 2 = 1 THEN plan_id($tenant, 7, i % 7) END, $text, plan_time(i)
	FROM generate_series(1, 5000) AS i;
`
