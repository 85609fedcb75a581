package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
)

const templateColumns = `id, account_id, name, body, html_body, subject, category, channel_type, language, variables, default_values,
	fallback_strategy, approval_status, external_template_id, is_active, coalesce(created_by_user_id::text, '') AS created_by_user_id,
	created_at, updated_at`

var (
	errTemplate     = apierr.NotFound("template")
	errTemplateName = apierr.New(errorv1.Reason_REASON_DUPLICATE_NAME, "a template with this name exists already")
	errTemplateUsed = apierr.New(errorv1.Reason_REASON_IN_USE, "a group message that has not ended uses this template")
)

func templateSpec(tokenKey []byte) (*query.Spec, error) {
	return query.SpecFor((&messagingv1.Template{}).ProtoReflect().Descriptor(), query.Table{
		From: "templates", Select: []string{templateColumns}, TokenKey: tokenKey,
		Columns: map[string]query.Column{"name": {NotNull: true}},
	})
}

// CreateTemplate stores a template.
func (s *Store) CreateTemplate(ctx context.Context, tx *pg.Tx, t *messaging.Template) error {
	t.CreatedAt, t.UpdatedAt = tx.Now, tx.Now
	_, err := tx.Exec(ctx, `
		INSERT INTO templates (id, account_id, name, body, html_body, subject, category, channel_type, language, variables, default_values,
			fallback_strategy, approval_status, external_template_id, is_active, created_by_user_id, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, nullif($16, '')::uuid, $17, $17)`,
		t.ID, t.AccountID, t.Name, t.Body, t.HTMLBody, t.Subject, t.Category, t.ChannelType, t.Language, texts(t.Variables), values(t.DefaultValues),
		t.FallbackStrategy, t.ApprovalStatus, t.ExternalTemplateID, t.IsActive, t.CreatedByUserID, tx.Now)
	if pg.IsUnique(err, "templates_name_key") {
		return errTemplateName
	}
	if err != nil {
		return fmt.Errorf("insert template: %w", err)
	}
	return nil
}

// FreeTemplateName is the first of the names that no template of the account has.
func (s *Store) FreeTemplateName(ctx context.Context, tx *pg.Tx, accountID string, names []string) (name string, err error) {
	err = tx.QueryRow(ctx, `
		SELECT name FROM unnest($2::text[]) WITH ORDINALITY AS wanted (name, place)
		WHERE NOT EXISTS (SELECT FROM templates t WHERE t.account_id = $1 AND lower(t.name) = lower(wanted.name) AND t.category <> 'auto-generated')
		ORDER BY place LIMIT 1`, accountID, names).Scan(&name)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", errTemplateName
	}
	if err != nil {
		return "", fmt.Errorf("find a free name: %w", err)
	}
	return name, nil
}

// texts and values store what is empty as empty, not as NULL.
func texts(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func values(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// Template returns one template of the scope.
func (s *Store) Template(ctx context.Context, scope []string, id string) (*messaging.Template, error) {
	return pg.Read(ctx, s.db, scope, pg.One[messaging.Template](errTemplate),
		"SELECT "+templateColumns+" FROM templates WHERE account_id = ANY ($1::uuid[]) AND id = $2", scope, id)
}

// Templates returns a page of the scope's templates.
func (s *Store) Templates(ctx context.Context, scope []string, r query.Request) (*query.Page[*messaging.Template], error) {
	return list[messaging.Template](ctx, s, s.templates, r, scope)
}

// UpdateTemplate lets change alter the template and stores it. Sends that have
// started keep the text they started with.
func (s *Store) UpdateTemplate(ctx context.Context, scope []string, id string, change func(*messaging.Template) error) (*messaging.Template, error) {
	var t *messaging.Template
	err := s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		var err error
		t, err = lockOne[messaging.Template](ctx, tx, errTemplate, "SELECT "+templateColumns+" FROM templates WHERE account_id = ANY ($1::uuid[]) AND id = $2 FOR UPDATE", scope, id)
		if err != nil {
			return err
		}
		if err := change(t); err != nil {
			return err
		}
		t.UpdatedAt = tx.Now
		_, err = tx.Exec(ctx, `
			UPDATE templates SET name = $3, body = $4, html_body = $5, subject = $6, category = $7, channel_type = $8, language = $9,
				variables = $10, default_values = $11, fallback_strategy = $12, approval_status = $13, external_template_id = $14,
				is_active = $15, updated_at = $16
			WHERE account_id = $1 AND id = $2`,
			t.AccountID, t.ID, t.Name, t.Body, t.HTMLBody, t.Subject, t.Category, t.ChannelType, t.Language,
			texts(t.Variables), values(t.DefaultValues), t.FallbackStrategy, t.ApprovalStatus, t.ExternalTemplateID, t.IsActive, t.UpdatedAt)
		if pg.IsUnique(err, "templates_name_key") {
			return errTemplateName
		}
		if err != nil {
			return fmt.Errorf("update template: %w", err)
		}
		return nil
	})
	return t, err
}

// holdTemplate keeps the template from being deleted until the transaction ends: who
// deletes it waits, and then finds what uses it.
func holdTemplate(ctx context.Context, tx *pg.Tx, accountID, id string) error {
	tag, err := tx.Exec(ctx, "SELECT FROM templates WHERE account_id = $1 AND id = $2 FOR KEY SHARE", accountID, id)
	if err != nil {
		return fmt.Errorf("hold template: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errTemplate
	}
	return nil
}

// DeleteTemplate removes a template of the scope; IN_USE while a send that has
// not ended uses it.
func (s *Store) DeleteTemplate(ctx context.Context, scope []string, id string) error {
	return s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		t, err := lockOne[messaging.Template](ctx, tx, errTemplate, "SELECT "+templateColumns+" FROM templates WHERE account_id = ANY ($1::uuid[]) AND id = $2 FOR UPDATE", scope, id)
		if err != nil {
			return err
		}
		files, err := attachmentsOf(ctx, tx, t.AccountID, t.ID)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "DELETE FROM templates WHERE account_id = $1 AND id = $2", t.AccountID, t.ID); err != nil {
			return fmt.Errorf("delete template: %w", err)
		}
		digests := make([]string, len(files))
		for i, a := range files {
			digests[i] = a.Digest
		}
		if err := dropFiles(ctx, tx, t.AccountID, digests); err != nil {
			return err
		}
		var used bool
		err = tx.QueryRow(ctx, `
			SELECT EXISTS (SELECT 1 FROM group_messages WHERE account_id = ANY ($1::uuid[]) AND template_id = $2 AND deleted_at IS NULL
				AND status IN ('draft', 'scheduled', 'queued', 'processing'))`, scope, id).Scan(&used)
		if err != nil {
			return fmt.Errorf("find sends of the template: %w", err)
		}
		if used {
			return errTemplateUsed
		}
		return nil
	})
}
