package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
)

const (
	// shownStatus derives `sending`: the chunk is in work and has called past it.
	shownStatus = `CASE WHEN status IN ('queued', 'failed') AND EXISTS (
		SELECT 1 FROM dispatch_chunks d WHERE d.id = chunk_id AND d.state = 'leased' AND ordinal < d.calling_upto) THEN 'sending' ELSE status END`

	messageColumns = `id, account_id, coalesce(channel_id::text, '') AS channel_id, coalesce(contact_id::text, '') AS contact_id,
		coalesce(group_message_id::text, '') AS group_message_id, coalesce(template_id::text, '') AS template_id, direction,
		` + shownStatus + ` AS status, delivery_address, vars, coalesce(subject, '') AS subject, message_body AS body, coalesce(provider_message_id, '') AS provider_message_id,
		attempts, coalesce(error_code, '') AS error_code, coalesce(error_provider, '') AS error_provider, coalesce(error_text, '') AS error_text,
		coalesce(sent_by_user_id::text, '') AS sent_by_user_id, metadata, not_after, sent_at, delivered_at, failed_at, body_erased_at,
		created_at, updated_at`
)

// What filters of messages imply, so that no index of their own is needed for the
// messages of sends (decision E5).
const (
	// sendTime: all messages of a send have the time of its start, in their ids too.
	startOf  = `(SELECT g.started_at FROM group_messages g WHERE g.account_id = ANY (app_accounts()) AND g.id = $value)`
	sendTime = `(created_at = ` + startOf + ` AND id BETWEEN uuid7_first(` + startOf + `) AND uuid7_last(` + startOf + `))`
	// anySend: a message is a single one or of one of the accounts' sends; a contact has
	// at most one of each, found by the key that makes it so.
	anySend = `(group_message_id IS NULL OR group_message_id = ANY (ARRAY (SELECT g.id FROM group_messages g WHERE g.account_id = ANY (app_accounts()))))`
	// someOf: the counters of a send tell which statuses its messages have.
	someOf = `(lead.sent_count > lead.delivered_count AND 'sent' = ANY ($values) OR lead.delivered_count > 0 AND 'delivered' = ANY ($values) OR lead.pending_count > 0 AND '{scheduled,queued,sending,failed}' && $values
		OR lead.failed_count > 0 AND 'permanently_failed' = ANY ($values) OR lead.cancelled_count > 0 AND 'cancelled' = ANY ($values))`
)

// sends are what most messages come from. A message of a send has its channel, its template
// and the time of its start; its address is in one of the send's pages.
var sends = query.Stretches{
	Alone: "group_message_id IS NULL",
	Leads: query.Lead{From: "group_messages", Time: "started_at", Rows: "group_message_id = lead.id AND id BETWEEN uuid7_first(lead.started_at) AND uuid7_last(lead.started_at)"},
	Pages: query.Lead{From: "message_addresses", Time: "created_at", Rows: "group_message_id = lead.group_message_id AND id BETWEEN lead.first_id AND lead.last_id"},
}

var errMessage = apierr.NotFound("message")

func messageSpec(tokenKey []byte) (*query.Spec, error) {
	return query.SpecFor((&messagingv1.Message{}).ProtoReflect().Descriptor(), query.Table{
		From: "messages", Where: "direction <> 'none' AND deleted_at IS NULL", Select: []string{messageColumns}, TokenKey: tokenKey, TimeInID: "created_at",
		Stretches: &sends,
		Columns: map[string]query.Column{
			"status":           {Expr: shownStatus, Rough: "messages.status", Lead: someOf},
			"channel_id":       {Lead: "lead.channel_id = ANY ($values)"},
			"template_id":      {Lead: "lead.template_id = ANY ($values)"},
			"direction":        {Lead: "'outbound' = ANY ($values)"},
			"group_message_id": {Implied: sendTime, Stretch: true},
			"contact_id":       {Implied: anySend},
			"delivery_address": {NotNull: true, Page: "position(lower($value) IN lead.addresses) > 0"},
		},
	})
}

// Message returns one message of the scope, with its body and its attempts.
func (s *Store) Message(ctx context.Context, scope []string, id string) (*messaging.Message, error) {
	m, err := pg.Read(ctx, s.db, scope, pg.One[messaging.Message](errMessage), `
		SELECT `+messageColumns+` FROM messages
		WHERE account_id = ANY ($1::uuid[]) AND id = $2 AND created_at = uuid7_time($2) AND deleted_at IS NULL`, scope, id)
	if err != nil {
		return nil, err
	}
	if m.Attempts > 0 {
		m.History, err = pg.Read(ctx, s.db, []string{m.AccountID}, pg.All[messaging.Attempt], `
			SELECT attempt, outcome, class, code, text, created_at FROM message_attempts
			WHERE account_id = $1 AND message_id = $2 ORDER BY created_at, attempt`, m.AccountID, m.ID)
		if err != nil {
			return nil, err
		}
	}
	return m, s.renderBodies(ctx, []*messaging.Message{m})
}

// Messages returns a page of the scope's messages, with their bodies.
func (s *Store) Messages(ctx context.Context, scope []string, r query.Request) (*query.Page[*messaging.Message], error) {
	page, err := list[messaging.Message](ctx, s, s.messages, r, scope)
	if err != nil {
		return nil, err
	}
	return page, s.renderBodies(ctx, page.Data)
}

// Summaries names channels, templates and sends of the accounts, by id, in one query.
// What does not exist any more is left out.
func (s *Store) Summaries(ctx context.Context, accounts, channels, templates, groups []string) (map[string]messaging.Summary, error) {
	list, err := pg.Read(ctx, s.db, accounts, func(rows pgx.Rows) ([]messaging.Summary, error) {
		return pgx.CollectRows(rows, pgx.RowToStructByName[messaging.Summary])
	}, `
		SELECT id, name, channel_type AS detail FROM channels WHERE account_id = ANY ($1::uuid[]) AND id = ANY ($2::uuid[])
		UNION ALL SELECT id, name, '' FROM templates WHERE account_id = ANY ($1::uuid[]) AND id = ANY ($3::uuid[])
		UNION ALL SELECT id, name, status FROM group_messages WHERE account_id = ANY ($1::uuid[]) AND id = ANY ($4::uuid[]) AND deleted_at IS NULL`,
		accounts, texts(channels), texts(templates), texts(groups))
	if err != nil {
		return nil, err
	}
	byID := make(map[string]messaging.Summary, len(list))
	for _, v := range list {
		byID[v.ID] = v
	}
	return byID, nil
}

// renderBodies fills in the bodies that rows do not keep, from the snapshots of
// their sends.
func (s *Store) renderBodies(ctx context.Context, list []*messaging.Message) error {
	var accounts, groups []string
	for _, m := range list {
		if m.Body == nil && m.GroupMessageID != "" && m.BodyErasedAt == nil {
			accounts, groups = append(accounts, m.AccountID), append(groups, m.GroupMessageID)
		}
	}
	if len(groups) == 0 {
		return nil
	}
	type row struct {
		ID       string
		Snapshot messaging.Snapshot
	}
	snapshots, err := pg.Read(ctx, s.db, accounts, func(rows pgx.Rows) ([]row, error) {
		return pgx.CollectRows(rows, pgx.RowToStructByName[row])
	}, "SELECT id, snapshot FROM group_messages WHERE account_id = ANY ($1::uuid[]) AND id = ANY ($2::uuid[]) AND snapshot IS NOT NULL", accounts, groups)
	if err != nil {
		return err
	}
	renderers := make(map[string]*messaging.Renderer, len(snapshots))
	for _, r := range snapshots {
		if renderers[r.ID], err = messaging.NewRenderer(r.Snapshot); err != nil {
			return fmt.Errorf("parse the snapshot of send %s: %w", r.ID, err)
		}
	}
	for _, m := range list {
		if r := renderers[m.GroupMessageID]; m.Body == nil && m.BodyErasedAt == nil && r != nil {
			text := r.Render(m.Values)
			m.Subject, m.Body = text.Subject, &text.Text
		}
	}
	return nil
}
