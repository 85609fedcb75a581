package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Querier runs a query: a pool, a connection or a transaction.
type Querier interface {
	// Query runs a statement that returns rows.
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// checkLedger is one statement, hence one snapshot.
const checkLedger = `
WITH row_counts AS (
	SELECT g.id,
		count(m.id) AS total,
		count(m.id) FILTER (WHERE m.status IN ('scheduled', 'queued', 'sending', 'failed')) AS pending,
		count(m.id) FILTER (WHERE m.status IN ('sent', 'delivered')) AS sent,
		count(m.id) FILTER (WHERE m.status = 'permanently_failed') AS failed,
		count(m.id) FILTER (WHERE m.status = 'cancelled') AS cancelled,
		count(m.id) FILTER (WHERE m.status = 'permanently_failed' AND m.error_code = 'outcome_unknown') AS unknown,
		count(DISTINCT CASE m.delivery_address WHEN '' THEN m.id::text ELSE lower(m.delivery_address) END) AS addresses, -- '': erased
		count(m.contact_id) AS to_contacts,
		count(DISTINCT m.contact_id) AS contacts
	FROM group_messages g LEFT JOIN messages m ON m.group_message_id = g.id AND m.created_at = g.started_at
	GROUP BY g.id),
chunked AS (
	SELECT m.id, d.id AS chunk_id FROM dispatch_chunks d CROSS JOIN LATERAL unnest(d.message_ids) AS m (id)),
pending AS (
	SELECT m.id, m.group_message_id,
		(SELECT count(*) FROM chunked c WHERE c.id = m.id AND c.chunk_id = m.chunk_id) + (SELECT count(*) FROM message_due d WHERE d.message_id = m.id) AS places
	FROM messages m WHERE m.status IN ('queued', 'failed'))
SELECT format('group message %s counts %s/%s/%s/%s/%s/%s (total/pending/sent/failed/cancelled/unknown), its rows %s/%s/%s/%s/%s/%s',
	g.id, g.total_recipients, g.pending_count, g.sent_count, g.failed_count, g.cancelled_count, g.unknown_count,
	r.total, r.pending, r.sent, r.failed, r.cancelled, r.unknown)
FROM group_messages g JOIN row_counts r USING (id)
WHERE (g.total_recipients, g.pending_count, g.sent_count, g.failed_count, g.cancelled_count, g.unknown_count)
	IS DISTINCT FROM (r.total::int, r.pending::int, r.sent::int, r.failed::int, r.cancelled::int, r.unknown::int)
UNION ALL
SELECT format('group message %s has %s messages, %s of them for %s contacts, for %s addresses', r.id, r.total, r.to_contacts, r.contacts, r.addresses)
FROM row_counts r WHERE r.to_contacts <> r.contacts OR r.total <> r.addresses
UNION ALL
SELECT format('group message %s is %s with %s pending, recipients complete: %s', g.id, g.status, g.pending_count, g.fanout_done)
FROM group_messages g
WHERE (g.status IN ('completed', 'partially_failed', 'failed')) <> (g.fanout_done AND g.pending_count = 0 AND g.status <> 'cancelled')
	AND NOT (g.status = 'processing' AND EXISTS (SELECT FROM dispatch_chunks d WHERE d.group_message_id = g.id)) -- the end of its last chunk closes it
UNION ALL
SELECT format('message %s of group message %s is pending in %s places, want 1', p.id, p.group_message_id, p.places)
FROM pending p WHERE p.places <> 1
UNION ALL
SELECT format('message %s is unknown without an attempt that says so', m.id)
FROM messages m WHERE m.status = 'permanently_failed' AND m.error_code = 'outcome_unknown'
	AND NOT EXISTS (SELECT 1 FROM message_attempts a WHERE a.message_id = m.id AND a.outcome = 'unknown')
UNION ALL
SELECT format('message %s is of %s, its id of %s', m.id, m.created_at, uuid7_time(m.id))
FROM messages m WHERE m.created_at <> uuid7_time(m.id)
UNION ALL
SELECT format('message %s of account %s is in send %s of account %s', m.id, m.account_id, g.id, g.account_id)
FROM messages m JOIN group_messages g ON g.id = m.group_message_id WHERE m.account_id <> g.account_id
UNION ALL
SELECT format('message %s of account %s goes by channel %s of account %s', m.id, m.account_id, c.id, c.account_id)
FROM messages m JOIN channels c ON c.id = m.channel_id WHERE m.account_id <> c.account_id
LIMIT 100`

// CheckLedger looks, in one snapshot, for what must never be: counters that
// differ from rows, a contact or address with two messages of one send, a final
// state before its time or one that is late, a pending message that nothing will
// pick up, an unknown without its attempt, a created_at that is not in the id, a message of another account than its
// send or channel. It returns one line for each, at most
// 100. The role must see all tenants, or the transaction has its scope set.
func CheckLedger(ctx context.Context, q Querier) ([]string, error) {
	rows, err := q.Query(ctx, checkLedger)
	if err != nil {
		return nil, fmt.Errorf("check the ledger: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
