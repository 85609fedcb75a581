package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/kit/telemetry"
	account "github.com/turumba/turumba/services/account"
)

const auditColumns = `id, account_id, action, resource_type, resource_id, coalesce(actor_user_id::text, '') AS actor_user_id,
	coalesce(actor_api_key_id::text, '') AS actor_api_key_id, ip, user_agent, request_id, changes, created_at`

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
	caller, client := auth.From(ctx), auth.ClientFrom(ctx)
	kind, _, _ := strings.Cut(action, ".")
	ids := make([]string, len(resources))
	for i := range ids {
		ids[i] = account.NewID()
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO audit_events (id, account_id, action, resource_type, resource_id, actor_user_id, actor_api_key_id, ip, user_agent, request_id, changes, created_at)
		SELECT n.id, $1, $2, $3, n.resource, nullif($4, '')::uuid, nullif($5, '')::uuid, $6, $7, $8, n.changes, $9
		FROM unnest($10::uuid[], $11::uuid[], $12::jsonb[]) AS n (id, resource, changes)`,
		accountID, action, kind, caller.UserID, caller.APIKeyID, client.IP, clean(client.UserAgent), telemetry.RequestID(ctx), tx.Now, ids, resources, changes)
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
	return query.List(ctx, s.db.Pool(), c, pgx.RowToAddrOfStructByName[account.AuditEvent])
}

// auditPurge bounds the rows that one statement removes.
const auditPurge = 5000

// purgeAudit removes events that are older than they are kept.
func (s *Store) purgeAudit(ctx context.Context) error {
	for {
		var n int
		err := s.db.Pool().QueryRow(ctx, "SELECT audit_purge($1, $2)", s.db.Now().Add(-account.AuditLife), auditPurge).Scan(&n)
		if err != nil {
			return fmt.Errorf("purge audit events: %w", err)
		}
		if n < auditPurge {
			return nil
		}
	}
}
