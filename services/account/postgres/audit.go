package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/kit/telemetry"
	account "github.com/turumba/turumba/services/account"
)

const auditColumns = `id, account_id, action, resource_type, resource_id, coalesce(actor_user_id::text, '') AS actor_user_id,
	coalesce(actor_api_key_id::text, '') AS actor_api_key_id, ip, user_agent, request_id, changes, outcome, created_at`

// audit notes who did what, in the transaction that does it. action is a resource
// and a verb; the actor and where the call came from are those of ctx.
func (s *Store) audit(ctx context.Context, tx *pg.Tx, accountID, action, resourceID string, changes json.RawMessage) error {
	if changes == nil {
		changes = json.RawMessage(`{}`)
	}
	return s.auditMany(ctx, tx, accountID, action, []string{resourceID}, []string{string(changes)})
}

// auditMany notes the same action on many resources of an account.
func (s *Store) auditMany(ctx context.Context, tx *pg.Tx, accountID, action string, resources []string, changes []string) error {
	if len(resources) == 0 {
		return nil
	}
	ids := make([]string, len(resources))
	for i := range ids {
		ids[i] = account.NewID()
	}
	return s.insertEvents(ctx, tx, accountID, action, account.AuditSucceeded, ids, resources, changes)
}

func (s *Store) insertEvents(ctx context.Context, tx *pg.Tx, accountID, action string, outcome account.AuditOutcome, ids, resources, changes []string) error {
	caller, client := auth.From(ctx), auth.ClientFrom(ctx)
	kind, _, _ := strings.Cut(action, ".")
	_, err := tx.Exec(ctx, `
		INSERT INTO audit_events (id, account_id, action, resource_type, resource_id, actor_user_id, actor_api_key_id, ip, user_agent, request_id, changes, outcome, created_at)
		SELECT n.id, $1, $2, $3, n.resource, nullif($4, '')::uuid, nullif($5, '')::uuid, $6, $7, $8, n.changes, $9, $10
		FROM unnest($11::uuid[], $12::uuid[], $13::jsonb[]) AS n (id, resource, changes) ON CONFLICT (id) DO NOTHING`,
		accountID, action, kind, caller.UserID, caller.APIKeyID, client.IP, clean(client.UserAgent), telemetry.RequestID(ctx), outcome, tx.Now, ids, resources, changes)
	if err != nil {
		return fmt.Errorf("insert audit events: %w", err)
	}
	return nil
}

// clean is text that PostgreSQL can store.
func clean(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "�"), "\x00", "")
}

// AuditEvent returns one event of the scope.
func (s *Store) AuditEvent(ctx context.Context, scope []string, id string) (*account.AuditEvent, error) {
	return pg.Read(ctx, s.db, scope, pg.One[account.AuditEvent](apierr.NotFound("audit event")),
		"SELECT "+auditColumns+" FROM audit_events WHERE account_id = ANY ($1::uuid[]) AND id = $2", scope, id)
}

// AuditEvents returns a page of the scope's events.
func (s *Store) AuditEvents(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.AuditEvent], error) {
	c, err := query.Compile(s.auditEvents, r, scope)
	if err != nil {
		return nil, err
	}
	return query.List(ctx, s.db, c, pgx.RowToAddrOfStructByName[account.AuditEvent])
}

// Intent is one change that is about to be made in another store.
type Intent struct {
	// EventID is the event's id; the same one again changes nothing.
	EventID    string
	ResourceID string
	Changes    json.RawMessage
}

// Intend notes changes before they are made in another store. New contacts are counted
// here, or refused with QUOTA_EXCEEDED.
func (s *Store) Intend(ctx context.Context, accountID, action string, intents []Intent) error {
	if len(intents) == 0 {
		return nil
	}
	ids, resources, changes := make([]string, len(intents)), make([]string, len(intents)), make([]string, len(intents))
	for i, in := range intents {
		ids[i], resources[i], changes[i] = in.EventID, in.ResourceID, `{}`
		if in.Changes != nil {
			changes[i] = string(in.Changes)
		}
	}
	return s.db.InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if err := s.insertEvents(ctx, tx, accountID, action, account.AuditPending, ids, resources, changes); err != nil {
			return err
		}
		if action != contactCreate {
			return nil
		}
		return s.takeContacts(ctx, tx, accountID, len(ids))
	})
}

// The changes of contacts elsewhere that their count depends on.
const (
	contactCreate = "contact.create"
	contactDelete = "contact.delete"
)

// Settle notes what became of intended changes.
func (s *Store) Settle(ctx context.Context, accountID string, outcome account.AuditOutcome, eventIDs ...string) error {
	if len(eventIDs) == 0 {
		return nil
	}
	return s.db.InTx(ctx, []string{accountID}, func(tx *pg.Tx) error { return s.settle(ctx, tx, accountID, outcome, eventIDs) })
}

// SettleCreated notes that intended changes were made, and keeps the answer for the
// idempotency key. *pg.ReplayError when a rival with the same key was faster.
func (s *Store) SettleCreated(ctx context.Context, accountID string, eventIDs []string, resp proto.Message) error {
	return s.db.InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, accountID); err != nil {
			return err
		}
		if err := s.settle(ctx, tx, accountID, account.AuditSucceeded, eventIDs); err != nil {
			return err
		}
		return tx.Respond(ctx, resp)
	})
}

// settle also takes contacts out of the count: those that were not made, and those that
// are gone.
func (s *Store) settle(ctx context.Context, tx *pg.Tx, accountID string, outcome account.AuditOutcome, eventIDs []string) error {
	if len(eventIDs) == 0 {
		return nil
	}
	actions, err := collect(ctx, tx, pgx.RowTo[string],
		"UPDATE audit_events SET outcome = $3 WHERE account_id = $1 AND id = ANY ($2::uuid[]) AND outcome = 'pending' RETURNING action", accountID, eventIDs, outcome)
	if err != nil {
		return fmt.Errorf("settle audit events: %w", err)
	}
	gone := 0
	for _, action := range actions {
		if action == contactCreate && outcome == account.AuditFailed || action == contactDelete && outcome == account.AuditSucceeded {
			gone++
		}
	}
	return s.giveContacts(ctx, tx, accountID, gone)
}

// PendingEvents are events of all accounts that were intended before the time and
// never settled, the oldest first.
func (s *Store) PendingEvents(ctx context.Context, before time.Time, most int) ([]*account.AuditEvent, error) {
	rows, err := s.db.Query(ctx, "SELECT id::text, account_id::text FROM lookup.audit_pending($1, $2)", before, most)
	if err != nil {
		return nil, fmt.Errorf("find pending audit events: %w", err)
	}
	type key struct{ ID, AccountID string }
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByName[key])
	if err != nil {
		return nil, fmt.Errorf("find pending audit events: %w", err)
	}
	events := make([]*account.AuditEvent, len(keys))
	for i, k := range keys {
		if events[i], err = s.AuditEvent(ctx, []string{k.AccountID}, k.ID); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// auditPurge bounds the rows that one statement removes.
const auditPurge = 5000

// purgeAudit removes events that are older than they are kept.
func (s *Store) purgeAudit(ctx context.Context) error {
	for {
		var n int
		err := s.db.Within(purgeLimit).QueryRow(ctx, "SELECT audit_purge($1, $2)", s.db.Now().Add(-account.AuditLife), auditPurge).Scan(&n)
		if err != nil {
			return fmt.Errorf("purge audit events: %w", err)
		}
		if n < auditPurge {
			return nil
		}
	}
}
