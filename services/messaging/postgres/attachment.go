package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

const attachmentColumns = "id, account_id, template_id, filename, media_type, content_id, size, digest, created_at"

var errAttachment = apierr.NotFound("attachment")

// TemplateAttachments are the files of a template of the scope, oldest first.
func (s *Store) TemplateAttachments(ctx context.Context, scope []string, templateID string) ([]*messaging.Attachment, error) {
	return pg.Read(ctx, s.db, scope, pg.All[messaging.Attachment],
		"SELECT "+attachmentColumns+" FROM template_attachments WHERE account_id = ANY ($1::uuid[]) AND template_id = $2 ORDER BY created_at, id", scope, templateID)
}

// TemplatesWithFiles are those of the account's templates that have files.
func (s *Store) TemplatesWithFiles(ctx context.Context, accountID string, templateIDs []string) (map[string]bool, error) {
	return pg.Read(ctx, s.db, []string{accountID}, collectSet,
		"SELECT DISTINCT template_id::text FROM template_attachments WHERE account_id = $1 AND template_id = ANY ($2::uuid[])", accountID, texts(templateIDs))
}

func attachmentsOf(ctx context.Context, tx *pg.Tx, accountID, templateID string) ([]*messaging.Attachment, error) {
	rows, err := tx.Query(ctx, "SELECT "+attachmentColumns+" FROM template_attachments WHERE account_id = $1 AND template_id = $2 ORDER BY created_at, id", accountID, templateID)
	if err != nil {
		return nil, fmt.Errorf("read the template's files: %w", err)
	}
	return pg.All[messaging.Attachment](rows)
}

// AddAttachment stores a file of a template, unless it is one too many. Files of the
// same bytes are stored once.
func (s *Store) AddAttachment(ctx context.Context, tx *pg.Tx, a *messaging.Attachment, data []byte) error {
	if _, err := lockOne[messaging.Template](ctx, tx, errTemplate, "SELECT "+templateColumns+" FROM templates WHERE account_id = $1 AND id = $2 FOR UPDATE", a.AccountID, a.TemplateID); err != nil {
		return err
	}
	others, err := attachmentsOf(ctx, tx, a.AccountID, a.TemplateID)
	if err != nil {
		return err
	}
	if err := a.Admit(others); err != nil {
		return err
	}
	a.CreatedAt = tx.Now
	if _, err := tx.Exec(ctx, "INSERT INTO attachment_files (account_id, digest, data, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING", a.AccountID, a.Digest, data, tx.Now); err != nil {
		return fmt.Errorf("insert file: %w", err)
	}
	return insertAttachment(ctx, tx, a)
}

func insertAttachment(ctx context.Context, tx *pg.Tx, a *messaging.Attachment) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO template_attachments (id, account_id, template_id, filename, media_type, content_id, size, digest, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		a.ID, a.AccountID, a.TemplateID, a.Filename, a.MediaType, a.ContentID, a.Size, a.Digest, a.CreatedAt)
	if err != nil {
		return fmt.Errorf("insert attachment: %w", err)
	}
	return nil
}

// CopyAttachments gives a copy of a template the files of the original.
func (s *Store) CopyAttachments(ctx context.Context, tx *pg.Tx, from string, to *messaging.Template) error {
	list, err := attachmentsOf(ctx, tx, to.AccountID, from)
	if err != nil {
		return err
	}
	for _, a := range list {
		a.ID, a.TemplateID = messaging.NewID(), to.ID
		if err := insertAttachment(ctx, tx, a); err != nil {
			return err
		}
	}
	to.Attachments = list
	return nil
}

// Attachment returns a file of a template of the scope, with its bytes.
func (s *Store) Attachment(ctx context.Context, scope []string, templateID, id string) (*messaging.Attachment, []byte, error) {
	a, err := pg.Read(ctx, s.db, scope, pg.One[messaging.Attachment](errAttachment),
		"SELECT "+attachmentColumns+" FROM template_attachments WHERE account_id = ANY ($1::uuid[]) AND template_id = $2 AND id = $3", scope, templateID, id)
	if err != nil {
		return nil, nil, err
	}
	files, err := s.Files(ctx, a.AccountID, []string{a.Digest})
	if err != nil {
		return nil, nil, err
	}
	return a, files[a.Digest], nil
}

// Files are the bytes of files of an account, by their digests.
func (s *Store) Files(ctx context.Context, accountID string, digests []string) (map[string][]byte, error) {
	return pg.Read(ctx, s.db, []string{accountID}, func(rows pgx.Rows) (map[string][]byte, error) {
		files := map[string][]byte{}
		var digest string
		var data []byte
		_, err := pgx.ForEachRow(rows, []any{&digest, &data}, func() error {
			files[digest], data = data, nil
			return nil
		})
		return files, err
	}, "SELECT digest, data FROM attachment_files WHERE account_id = $1 AND digest = ANY ($2)", accountID, digests)
}

// DeleteAttachment takes a file away from a template of the scope. Copies of the template
// and sends keep theirs.
func (s *Store) DeleteAttachment(ctx context.Context, scope []string, templateID, id string) error {
	return s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		var accountID, digest string
		err := tx.QueryRow(ctx, "DELETE FROM template_attachments WHERE account_id = ANY ($1::uuid[]) AND template_id = $2 AND id = $3 RETURNING account_id::text, digest",
			scope, templateID, id).Scan(&accountID, &digest)
		if err != nil {
			return pg.NoRows(err, errAttachment)
		}
		return dropFiles(ctx, tx, accountID, []string{digest})
	})
}

// dropFiles removes files that nothing refers to any more. One that somebody starts to
// use meanwhile is held by its foreign key, and stays.
func dropFiles(ctx context.Context, tx *pg.Tx, accountID string, digests []string) error {
	_, err := tx.Exec(ctx, `
		DELETE FROM attachment_files WHERE (account_id, digest) IN (
			SELECT account_id, digest FROM attachment_files f
			WHERE account_id = $1 AND digest = ANY ($2)
				AND NOT EXISTS (SELECT FROM template_attachments a WHERE a.account_id = f.account_id AND a.digest = f.digest)
				AND NOT EXISTS (SELECT FROM group_message_files g WHERE g.account_id = f.account_id AND g.digest = f.digest)
			FOR UPDATE SKIP LOCKED)`, accountID, digests)
	if err != nil {
		return fmt.Errorf("remove unused files: %w", err)
	}
	return nil
}

// keepFiles lets a send refer to the files that it takes with it.
func keepFiles(ctx context.Context, tx *pg.Tx, g *messaging.GroupMessage) error {
	list := g.Snapshot.Attachments
	if len(list) == 0 {
		return nil
	}
	digests := make([]string, len(list))
	for i, a := range list {
		digests[i] = a.Digest
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO group_message_files (account_id, group_message_id, digest)
		SELECT DISTINCT $1::uuid, $2::uuid, digest FROM unnest($3::text[]) AS n (digest) ON CONFLICT DO NOTHING`, g.AccountID, g.ID, digests)
	if err != nil {
		return fmt.Errorf("keep the send's files: %w", err)
	}
	return nil
}
