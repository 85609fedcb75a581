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
)

const (
	planSend = "0190a5c8-0000-7000-8003-100000000001"
	// planRows is what a page may look at where rows pile up by machine.
	planRows = 500
	// planOwn is how many rows the caller's account has where people make them one at
	// a time; a page may look at all of those, and at none of others.
	planOwn = 200
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
	s, err := New(db, make([]byte, 32), func() {})
	require.NoError(t, err)
	fillForPlans(t, d)
	var now string // messages can only be where there is a partition: now
	require.NoError(t, db.QueryRow(t.Context(), "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')").Scan(&now))
	lists := []querytest.List{
		{Name: "messages", Spec: s.messages, Most: planRows, Narrow: "created_at:range:" + now + "T00:00:00Z," + now + "T02:00:00Z"},
		{Name: "channels", Spec: s.channels, Most: planOwn},
		{Name: "templates", Spec: s.templates, Most: planOwn},
		{Name: "group messages", Spec: s.groups, Most: planOwn},
		{Name: "suppressions", Spec: s.suppressions, Most: planRows},
		{Name: "message erasures", Spec: s.erasures, Most: planRows},
	}
	skips := querytest.List{Name: "skipped recipients", Spec: s.skips, Most: planRows, Always: []string{"group_message_id:eq:" + planSend}}
	querytest.Complete(t, s, append(lists, skips)...)
	querytest.Check(t, db, planAccounts[:1], append(lists, skips)...)
	querytest.Check(t, db, planAccounts[:2], lists...)
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
			"$account", "'"+id+"'::uuid", "$text", "'"+text+"'", "$rows", strconv.Itoa(rows), "$tenant", strconv.Itoa(i+1),
		).Replace(planSQL))
		require.NoError(t, err)
	}
	_, err = admin.Exec(t.Context(), "VACUUM ANALYZE")
	require.NoError(t, err)
	require.NoError(t, admin.Close(t.Context()))
}

// planSQL fills the lists of one account; their texts hold $text. A message's
// time is that in its id.
const planSQL = `
CREATE OR REPLACE FUNCTION plan_id(tenant int, kind int, i int) RETURNS uuid LANGUAGE sql IMMUTABLE
	RETURN ('0190a5c8-0000-7000-800' || kind || '-' || tenant || lpad(i::text, 11, '0'))::uuid;
CREATE OR REPLACE FUNCTION plan_time(i int) RETURNS timestamptz LANGUAGE sql IMMUTABLE RETURN timestamptz '2025-01-01Z' + i * interval '1 hour';
CREATE OR REPLACE FUNCTION plan_message_id(tenant int, at timestamptz, i int) RETURNS uuid LANGUAGE sql STABLE
	RETURN (left(uuid7_first(at)::text, 13) || '-7000-8' || lpad(tenant::text, 3, '0') || '-' || lpad(i::text, 12, '0'))::uuid;
CREATE OR REPLACE FUNCTION plan_minute(i int) RETURNS timestamptz LANGUAGE sql STABLE RETURN date_trunc('day', now(), 'UTC') + i * interval '1 minute';

INSERT INTO channels (id, account_id, name, channel_type, provider, status, is_enabled, settings, priority, created_at, updated_at)
	SELECT plan_id($tenant, 1, i), $account, $text || i, CASE $text WHEN 'own' THEN 'email' ELSE 'sms' END, $text, CASE $text WHEN 'own' THEN 'connected' ELSE 'error' END, $text = 'own', '{}', i % 10,
		plan_time(i), plan_time(i % 977)
	FROM generate_series(1, $rows) AS i;
INSERT INTO template_rows (id, account_id, name, body, category, channel_type, language, fallback_strategy, approval_status, is_active, created_by_user_id, created_at, updated_at)
	SELECT plan_id($tenant, 2, i), $account, $text || i, 'x', $text, CASE $text WHEN 'own' THEN 'email' ELSE 'sms' END, $text,
		CASE $text WHEN 'own' THEN 'keep_placeholder' ELSE 'use_default' END, CASE $text WHEN 'own' THEN '' ELSE 'approved' END, $text = 'own', plan_id($tenant, 9, i % 7),
		plan_time(i), plan_time(i % 977)
	FROM generate_series(1, $rows) AS i;
INSERT INTO group_messages (id, account_id, name, channel_id, template_id, status, contact_group_ids, created_by_user_id, started_at, created_at, updated_at)
	SELECT plan_id($tenant, 3, i), $account, $text || i, plan_id($tenant, 1, i % 7), plan_id($tenant, 2, i % 7), CASE $text WHEN 'own' THEN 'completed' ELSE 'failed' END, '{}', plan_id($tenant, 9, i % 7),
		plan_time(i), plan_time(i), plan_time(i % 977)
	FROM generate_series(1, $rows) AS i;
INSERT INTO group_message_skips (account_id, group_message_id, id, contact_id, reason, created_at)
	SELECT $account, plan_id($tenant, 3, 1 + i % 5), plan_id($tenant, 8, i), plan_id($tenant, 8, i), 'no_address', plan_time(i) FROM generate_series(1, 5000) AS i;
INSERT INTO suppressions (id, account_id, channel_type, address, reason, created_at)
	SELECT plan_id($tenant, 4, i), $account, CASE $text WHEN 'own' THEN 'email' ELSE 'sms' END, $text || i, 'manual', plan_time(i) FROM generate_series(1, 5000) AS i;
INSERT INTO message_erasures (id, account_id, message_id, contact_id, status, created_at)
	SELECT plan_id($tenant, 5, i), $account, plan_id($tenant, 6, i), plan_id($tenant, 8, i), 'completed', plan_time(i) FROM generate_series(1, 5000) AS i;
INSERT INTO messages (id, account_id, channel_id, contact_id, template_id, direction, status, delivery_address, created_at, updated_at)
	SELECT plan_message_id($tenant, plan_minute(i), 0), $account, plan_id($tenant, 1, i % 7), plan_id($tenant, 8, i), plan_id($tenant, 2, i % 7), CASE $text WHEN 'own' THEN 'outbound' ELSE 'inbound' END,
		CASE $text WHEN 'own' THEN 'sent' ELSE 'permanently_failed' END, $text || i, plan_minute(i), plan_minute(i)
	FROM generate_series(1, 5000) AS i;
-- The first sends have fifty messages each, and began today.
UPDATE group_messages SET started_at = plan_minute(substring(name FROM length($text) + 1)::int) + $tenant * interval '1 millisecond', total_recipients = 50,
		sent_count = CASE $text WHEN 'own' THEN 50 ELSE 0 END, failed_count = CASE $text WHEN 'own' THEN 0 ELSE 50 END
	WHERE account_id = $account AND substring(name FROM length($text) + 1)::int <= 50;
INSERT INTO messages (id, account_id, channel_id, contact_id, group_message_id, template_id, direction, status, delivery_address, created_at, updated_at)
	SELECT plan_message_id($tenant, started_at, i), account_id, channel_id, plan_id($tenant, 8, i), id, template_id, 'outbound',
		CASE $text WHEN 'own' THEN 'sent' ELSE 'permanently_failed' END, $text || i, started_at, started_at
	FROM group_messages, generate_series(1, 50) AS i WHERE account_id = $account AND total_recipients > 0;
INSERT INTO message_addresses (account_id, group_message_id, created_at, first_id, last_id, addresses)
	SELECT account_id, group_message_id, created_at, (array_agg(id ORDER BY id))[1], (array_agg(id ORDER BY id DESC))[1], address_page(E'\n' || string_agg(delivery_address, E'\n') || E'\n')
	FROM messages WHERE account_id = $account AND group_message_id IS NOT NULL GROUP BY account_id, group_message_id, created_at;
`
