package bench_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
)

// The messages of a tenant among seedTenants of the same size, over seedMonths months:
// one in five is a single message, on any of seedChannels channels but the last, which
// has one in a thousand of them; three in five are one campaign, twenty days ago, on the
// first channel; the rest are seedCampaigns smaller ones. Others have the same without
// the large one.
const (
	seedTenants   = 10
	seedMonths    = 6
	seedChannels  = 20
	seedCampaigns = 19
)

// seedIDs makes ids from numbers: channels, templates and group messages of an account;
// messages, of a time.
const seedIDs = `
CREATE FUNCTION bench_id(tenant int, kind int, i int) RETURNS uuid LANGUAGE sql IMMUTABLE
	RETURN ('0190a5c8-' || lpad(tenant::text, 4, '0') || '-7000-8' || lpad(kind::text, 3, '0') || '-' || lpad(i::text, 12, '0'))::uuid;
CREATE FUNCTION bench_message_id(at timestamptz, i bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
	RETURN (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008' || lpad(to_hex(i), 15, '0'))::uuid;
-- The outcomes of a hundred thousand: most are delivered, many sent, few failed.
CREATE FUNCTION bench_status(i bigint) RETURNS text LANGUAGE sql IMMUTABLE
	RETURN CASE WHEN i * 7919 % 1000 < 700 THEN 'delivered' WHEN i * 7919 % 1000 < 970 THEN 'sent' WHEN i * 7919 % 1000 < 999 THEN 'permanently_failed' ELSE 'cancelled' END;
DO $$
DECLARE
	month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
BEGIN
	FOR i IN 2..$months + 1 LOOP
		EXECUTE format('CREATE TABLE %I PARTITION OF messages FOR VALUES FROM (%L) TO (%L) WITH (fillfactor = 45)', 'messages_' || to_char(month - make_interval(months => i), 'YYYYMM'),
			(month - make_interval(months => i)) AT TIME ZONE 'UTC', (month - make_interval(months => i - 1)) AT TIME ZONE 'UTC');
	END LOOP;
END $$;
CREATE TEMPORARY TABLE tenants AS SELECT ordinality::int AS t, account FROM unnest($accounts) WITH ORDINALITY AS a (account);
INSERT INTO channels (id, account_id, name, channel_type, provider, status, settings, created_at, updated_at)
	SELECT bench_id(t, 1, i), account, 'Channel ' || i, 'email', 'smtp', 'connected', '{}', now(), now() FROM tenants, generate_series(1, $channels) AS i;
INSERT INTO template_rows (id, account_id, name, body, created_at, updated_at)
	SELECT bench_id(t, 2, 1), account, 'Template', 'Dear {FIRST_NAME}, school starts on Monday.', now(), now() FROM tenants;
-- Ordinal 0 is the large campaign.
CREATE TEMPORARY TABLE campaigns AS
	SELECT t, account, i, bench_id(t, 3, i) AS id, CASE i WHEN 0 THEN $n * 3 / 5 ELSE CASE t WHEN 1 THEN $n / 5 ELSE $n * 4 / 5 END / $campaigns END AS recipients,
		date_trunc('milliseconds', now() - CASE i WHEN 0 THEN interval '20 days' ELSE (i * 9 - 1) * interval '1 day' + t * interval '1 hour' END) AS at
	FROM tenants, generate_series(0, $campaigns) AS i WHERE i > 0 OR t = 1;
INSERT INTO group_messages (id, account_id, name, channel_id, template_id, status, contact_group_ids, snapshot, fanout_done, started_at, completed_at, created_at, updated_at)
	SELECT id, account, 'Campaign ' || i, bench_id(t, 1, 1 + i % ($channels - 1)), bench_id(t, 2, 1), 'completed', '{}', '{"version": 1, "body": "Dear {FIRST_NAME}, school starts on Monday."}',
		true, at, at + interval '5 minutes', at, at + interval '5 minutes'
	FROM campaigns ORDER BY at;`

// seedSingles writes the single messages of all tenants as they come, one after the
// other.
const seedSingles = `
INSERT INTO messages (id, account_id, channel_id, contact_id, template_id, direction, status, delivery_address, message_body, subject, provider_message_id, attempts,
	sent_at, delivered_at, failed_at, error_code, created_at, updated_at)
SELECT bench_message_id(at, i), account, bench_id(t, 1, CASE WHEN i / $tenants % 1000 = 0 THEN $channels ELSE 1 + (i / $tenants % ($channels - 1))::int END),
	('0190a5c8-0001-7000-8000-' || lpad(to_hex(contact), 12, '0'))::uuid, bench_id(t, 2, 1), CASE WHEN i / $tenants % 5 = 0 THEN 'inbound' ELSE 'outbound' END, status, 'c' || contact || '@tenant' || t || '.example',
	'Your order ' || i || ' is on its way and will be with you on Monday.', 'Order', gen_random_uuid()::text, 1, at, CASE status WHEN 'delivered' THEN at END,
	CASE status WHEN 'permanently_failed' THEN at END, CASE status WHEN 'permanently_failed' THEN 'INVALID_RECIPIENT' END, at, at
FROM (SELECT i, 1 + (i % $tenants)::int AS t, 1 + (i / $tenants * 7919) % ($n * 3 / 5) AS contact, bench_status(i / $tenants) AS status,
		date_trunc('milliseconds', now() - interval '$months months' + i * (interval '$months months' / ($n * $tenants / 5))) AS at
	FROM generate_series(1::bigint, $n * $tenants / 5) AS i) AS single JOIN tenants USING (t)
ORDER BY at`

// seedCampaign writes the messages of one group message; $1 is its id.
const seedCampaign = `
INSERT INTO messages (id, account_id, channel_id, contact_id, group_message_id, template_id, status, delivery_address, vars, provider_message_id, attempts,
	sent_at, delivered_at, failed_at, error_code, created_at, updated_at)
SELECT bench_message_id(at, k), account, channel_id, ('0190a5c8-0001-7000-8000-' || lpad(to_hex(contact), 12, '0'))::uuid, id, template_id, status, 'c' || contact || '@tenant' || t || '.example',
	'{"FIRST_NAME": "Abebe"}', gen_random_uuid()::text, 1, at, CASE status WHEN 'delivered' THEN at END,
	CASE status WHEN 'permanently_failed' THEN at END, CASE status WHEN 'permanently_failed' THEN 'INVALID_RECIPIENT' END, at, at
FROM (SELECT c.t, account, c.at, id, g.channel_id, g.template_id, k, k + (c.i * 1013) % ($n * 3 / 5 - recipients + 1) AS contact, bench_status(k) AS status
	FROM campaigns c JOIN group_messages g USING (id), generate_series(1::bigint, recipients) AS n (k) WHERE c.id = $1) AS sent`

// seedPages writes the pages of addresses of all sends, as the worker does with chunks.
const seedPages = `
INSERT INTO message_addresses (account_id, group_message_id, created_at, first_id, last_id, addresses)
SELECT account_id, group_message_id, created_at, (array_agg(id ORDER BY id))[1], (array_agg(id ORDER BY id DESC))[1],
	address_page(E'\n' || string_agg(delivery_address, E'\n' ORDER BY id) || E'\n')
FROM (SELECT account_id, group_message_id, created_at, id, delivery_address, (row_number() OVER (PARTITION BY group_message_id ORDER BY id) - 1) / 500 AS page
	FROM messages WHERE group_message_id IS NOT NULL) AS m
GROUP BY account_id, group_message_id, created_at, page`

// seedCounters counts the messages of all sends.
const seedCounters = `
UPDATE group_messages g SET total_recipients = total, sent_count = sent, failed_count = failed, cancelled_count = cancelled, delivered_count = delivered
FROM (SELECT group_message_id, count(*) AS total, count(*) FILTER (WHERE status IN ('sent', 'delivered')) AS sent,
		count(*) FILTER (WHERE status = 'delivered') AS delivered, count(*) FILTER (WHERE status = 'permanently_failed') AS failed, count(*) FILTER (WHERE status = 'cancelled') AS cancelled
	FROM messages WHERE group_message_id IS NOT NULL GROUP BY 1) AS n
WHERE n.group_message_id = g.id`

// fillMessages writes n messages for each of the accounts.
func fillMessages(b *testing.B, url string, n int, accounts []string) {
	b.Helper()
	ctx := b.Context()
	conn, err := pgx.Connect(ctx, url)
	require.NoError(b, err)
	defer func() { require.NoError(b, conn.Close(context.WithoutCancel(ctx))) }()
	exec := func(sql string, args ...any) {
		b.Helper()
		_, err := conn.Exec(ctx, seedText(sql, n, accounts), args...)
		require.NoError(b, err)
	}
	began := clock.System().Now()
	exec("SET synchronous_commit = off; SET maintenance_work_mem = '512MB'; SET work_mem = '256MB'")
	exec(seedIDs)
	restore := dropIndexes(b, conn, "messages")
	exec(seedSingles)
	rows, err := conn.Query(ctx, "SELECT id::text FROM campaigns ORDER BY at")
	require.NoError(b, err)
	campaigns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(b, err)
	for _, id := range campaigns {
		exec(seedCampaign, id)
	}
	exec(seedCounters)
	exec(seedPages)
	restore()
	exec("VACUUM (ANALYZE) messages, message_addresses, group_messages, channels, template_rows")
	_, err = fmt.Fprintf(os.Stdout, "%d messages written and indexed in %.0f s\n", n*len(accounts), clock.System().Now().Sub(began).Seconds())
	require.NoError(b, err)
}

// seedText puts the numbers into the SQL of the seed.
func seedText(sql string, n int, accounts []string) string {
	return strings.NewReplacer("$months", strconv.Itoa(seedMonths), "$channels", strconv.Itoa(seedChannels), "$campaigns", strconv.Itoa(seedCampaigns),
		"$tenants", strconv.Itoa(len(accounts)), "$accounts", "'{"+strings.Join(accounts, ",")+"}'::uuid[]", "$n", strconv.Itoa(n)).Replace(sql)
}

// dropIndexes drops the indexes and keys of a table and returns what makes them again, as
// a restore would: rows are written in a third of the time without.
func dropIndexes(b *testing.B, conn *pgx.Conn, table string) (restore func()) {
	b.Helper()
	rows, err := conn.Query(b.Context(), `
		SELECT CASE WHEN c.oid IS NULL THEN format('DROP INDEX %s', indexrelid::regclass) ELSE format('ALTER TABLE %s DROP CONSTRAINT %I', $1::text, c.conname) END,
			CASE WHEN c.oid IS NULL THEN replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ') ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', $1::text, c.conname, pg_get_constraintdef(c.oid)) END
		FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = indexrelid WHERE indrelid = $1::text::regclass`, table)
	require.NoError(b, err)
	indexes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Drop, Make string }])
	require.NoError(b, err)
	exec := func(sql string) {
		_, err := conn.Exec(b.Context(), sql)
		require.NoError(b, err, sql)
	}
	for _, i := range indexes {
		exec(i.Drop)
	}
	return func() {
		for _, i := range indexes {
			exec(i.Make)
		}
	}
}
