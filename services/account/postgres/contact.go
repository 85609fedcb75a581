package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/bounds"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

const (
	contactColumns    = "id, account_id, doc, created_at, updated_at"
	groupContactsFrom = `(SELECT c.id, c.account_id, c.doc, c.created_at, c.updated_at, m.group_id
		FROM contacts c JOIN contact_group_members m ON m.account_id = c.account_id AND m.contact_id = c.id) contacts`
)

func contactSpec(from string, tokenKey []byte) (*query.Spec, error) {
	cols := map[string]query.Column{
		"tags":     {Expr: "doc -> 'tags'", Kind: query.KindJSONArray},
		"metadata": {Expr: "doc -> 'metadata'", Kind: query.KindJSON},
		"group_id": {
			Expr: "m.group_id", Kind: query.KindUUID, Operators: []optionsv1.Operator{optionsv1.Operator_OPERATOR_EQ, optionsv1.Operator_OPERATOR_IN},
			Within: "EXISTS (SELECT 1 FROM contact_group_members m WHERE m.account_id = contacts.account_id AND m.contact_id = contacts.id AND %s)",
		},
	}
	cols["duplicate_of_id"] = query.Column{Expr: "(doc ->> 'duplicate_of_id')::uuid", Kind: query.KindUUID, Within: "(doc ? 'duplicate_of_id' AND %s)"}
	for name, key := range map[string]string{
		"name": "display", "first_name": "first_name", "last_name": "last_name", "email": "email", "phone": "phone", "external_id": "external_id",
	} {
		cols[name] = query.Column{Expr: "doc ->> '" + key + "'", NotNull: key == "display"}
	}
	if from == groupContactsFrom {
		cols["group_id"] = query.Column{Expr: "group_id", Kind: query.KindUUID, Operators: cols["group_id"].Operators}
	}
	return query.SpecFor((&accountv1.Contact{}).ProtoReflect().Descriptor(), query.Table{
		From: from, Select: []string{contactColumns}, TokenKey: tokenKey, Columns: cols, Search: from == "contacts",
	})
}

// contactRow is a stored contact.
type contactRow struct {
	ID, AccountID        string
	Doc                  []byte
	CreatedAt, UpdatedAt time.Time
}

func (r contactRow) contact() (*account.Contact, error) {
	c, err := account.ReadDocument(r.Doc)
	if err != nil {
		return nil, err
	}
	c.ID, c.AccountID, c.CreatedAt, c.UpdatedAt = r.ID, r.AccountID, r.CreatedAt, r.UpdatedAt
	return c, nil
}

func scanContact(row pgx.CollectableRow) (*account.Contact, error) {
	r, err := pgx.RowToStructByName[contactRow](row)
	if err != nil {
		return nil, err
	}
	return r.contact()
}

func oneContact(rows pgx.Rows) (*account.Contact, error) {
	c, err := pgx.CollectExactlyOneRow(rows, scanContact)
	return c, pg.NoRows(err, account.ErrNoContact)
}

// CreateContacts stores contacts of one account. respond is told one error per contact
// (nil, DUPLICATE_EMAIL, DUPLICATE_PHONE or DUPLICATE_IDENTIFIER) and makes the answer
// that is kept for the idempotency key; its error stores nothing. Good contacts are
// kept when others are not; QUOTA_EXCEEDED keeps none.
func (s *Store) CreateContacts(ctx context.Context, accountID string, list []*account.Contact, respond func(errs []error) (proto.Message, error)) error {
	return s.db.InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, accountID); err != nil {
			return err
		}
		errs, err := s.createContacts(ctx, tx, accountID, list)
		if err != nil {
			return err
		}
		resp, err := respond(errs)
		if err != nil {
			return err
		}
		return tx.Respond(ctx, resp)
	})
}

func (s *Store) createContacts(ctx context.Context, tx *pg.Tx, accountID string, list []*account.Contact) ([]error, error) {
	kept, err := s.insertContacts(ctx, tx, accountID, list)
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(list))
	var created, changes []string
	for i, c := range list {
		if kept[c.ID] {
			created, changes = append(created, c.ID), append(changes, string(account.Changes(nil, c)))
			continue
		}
		if errs[i] = s.conflict(ctx, tx, c); errs[i] == nil {
			return nil, fmt.Errorf("contact was not inserted and has no rival")
		}
	}
	if err := s.auditMany(ctx, tx, accountID, contactCreate, created, changes); err != nil {
		return nil, err
	}
	return errs, s.takeContacts(ctx, tx, accountID, len(created))
}

// insertContacts stores those of the contacts that have no rival, and tells which.
func (s *Store) insertContacts(ctx context.Context, tx *pg.Tx, accountID string, list []*account.Contact) (kept map[string]bool, err error) {
	for _, c := range list {
		if c.ID == "" {
			c.ID = account.NewID()
		}
		c.AccountID, c.CreatedAt, c.UpdatedAt = accountID, tx.Now, tx.Now
	}
	ids, docs, err := documents(list)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO contacts (id, account_id, doc, created_at, updated_at)
		SELECT id, $1, doc, $4, $4 FROM unnest($2::uuid[], $3::jsonb[]) AS n (id, doc)
		ON CONFLICT DO NOTHING RETURNING id::text`, accountID, ids, docs, tx.Now)
	if err != nil {
		return nil, fmt.Errorf("insert contacts: %w", err)
	}
	inserted, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("insert contacts: %w", err)
	}
	kept = make(map[string]bool, len(inserted))
	for _, id := range inserted {
		kept[id] = true
	}
	return kept, nil
}

// documents are the ids and documents of contacts, as arrays for a statement.
func documents(list []*account.Contact) (ids, docs []string, err error) {
	ids, docs = make([]string, len(list)), make([]string, len(list))
	for i, c := range list {
		doc, err := c.Document()
		if err != nil {
			return nil, nil, fmt.Errorf("write contact document: %w", err)
		}
		ids[i], docs[i] = c.ID, string(doc)
	}
	return ids, docs, nil
}

// keyExpr is where a contact's document has the value of a key.
func keyExpr(k account.ContactKey) string {
	if slices.Contains(account.Platforms(), string(k)) {
		return "doc -> 'identifiers' ->> '" + string(k) + "'"
	}
	return "doc ->> '" + string(k) + "'"
}

// conflict finds the contact that has an address or id of c already.
func (s *Store) conflict(ctx context.Context, tx *pg.Tx, c *account.Contact) error {
	for _, k := range account.ContactKeys() {
		value := c.Key(k)
		if value == "" {
			continue
		}
		var id string
		err := tx.QueryRow(ctx, "SELECT id FROM contacts WHERE account_id = $1 AND "+keyExpr(k)+" = $2 AND id <> $3", c.AccountID, value, c.ID).Scan(&id)
		if err == nil {
			return account.DuplicateKey(k, id)
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("find the duplicate: %w", err)
		}
	}
	return nil
}

// Contact returns one contact of the scope.
func (s *Store) Contact(ctx context.Context, scope []string, id string) (*account.Contact, error) {
	return pg.Read(ctx, s.db, scope, oneContact,
		"SELECT "+contactColumns+" FROM contacts WHERE account_id = ANY ($1::uuid[]) AND id = $2", scope, id)
}

// Contacts returns a page of the scope's contacts.
func (s *Store) Contacts(ctx context.Context, scope []string, r query.Request) (*query.Page[*account.Contact], error) {
	c, err := query.Compile(s.contacts, r, scope)
	if err != nil {
		return nil, err
	}
	return query.List(ctx, s.db, c, scanContact)
}

// UpdateContact lets change alter the contact and stores it.
func (s *Store) UpdateContact(ctx context.Context, scope []string, id string, change func(*account.Contact) error) (*account.Contact, error) {
	var c *account.Contact
	err := s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		rows, err := tx.Query(ctx, "SELECT "+contactColumns+" FROM contacts WHERE account_id = ANY ($1::uuid[]) AND id = $2 FOR UPDATE", scope, id)
		if err != nil {
			return fmt.Errorf("read contact: %w", err)
		}
		if c, err = oneContact(rows); err != nil {
			return err
		}
		before := *c
		if err := change(c); err != nil {
			return err
		}
		c.UpdatedAt = tx.Now
		if err := s.conflict(ctx, tx, c); err != nil {
			return err
		}
		doc, err := c.Document()
		if err != nil {
			return fmt.Errorf("write contact document: %w", err)
		}
		_, err = tx.Exec(ctx, "UPDATE contacts SET doc = $3, updated_at = $4 WHERE account_id = $1 AND id = $2", c.AccountID, c.ID, doc, c.UpdatedAt)
		if pg.IsUnique(err, "") { // a rival between the look and the write
			return account.ErrKeyRival
		}
		if err != nil {
			return fmt.Errorf("update contact: %w", err)
		}
		return s.audit(ctx, tx, c.AccountID, "contact.update", c.ID, account.Changes(&before, c))
	})
	return c, err
}

// DeleteContact removes a contact of the scope.
func (s *Store) DeleteContact(ctx context.Context, scope []string, id string) error {
	return s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		accountID, err := s.deleteIn(ctx, tx, contactDelete, id, account.ErrNoContact,
			"DELETE FROM contacts WHERE account_id = ANY ($1::uuid[]) AND id = $2 RETURNING account_id::text", scope, id)
		if err != nil {
			return err
		}
		return s.giveContacts(ctx, tx, accountID, 1)
	})
}

// deleteOne runs a DELETE that must hit a row.
func (s *Store) deleteOne(ctx context.Context, scope []string, action, id string, notFound error, sql string, args ...any) error {
	return s.db.InTx(ctx, scope, func(tx *pg.Tx) error {
		_, err := s.deleteIn(ctx, tx, action, id, notFound, sql, args...)
		return err
	})
}

// deleteIn runs a DELETE that must hit a row and returns its account.
func (s *Store) deleteIn(ctx context.Context, tx *pg.Tx, action, id string, notFound error, sql string, args ...any) (accountID string, err error) {
	if err := tx.QueryRow(ctx, sql, args...).Scan(&accountID); err != nil {
		return "", pg.NoRows(err, notFound)
	}
	return accountID, s.audit(ctx, tx, accountID, action, id, nil)
}

// CountMembers counts the members of the groups, each once, up to most.
func (s *Store) CountMembers(ctx context.Context, accountID string, groupIDs []string, most int) (int64, error) {
	return pg.Read(ctx, s.db, []string{accountID}, func(rows pgx.Rows) (int64, error) { return pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64]) },
		"SELECT count(*) FROM (SELECT DISTINCT contact_id FROM contact_group_members WHERE account_id = $1 AND group_id = ANY ($2::uuid[]) LIMIT $3) m",
		accountID, groupIDs, most)
}

// Recipients returns up to limit members of the groups, each once, in order of
// id, after the cursor.
func (s *Store) Recipients(ctx context.Context, accountID string, groupIDs []string, cursor string, limit int) ([]*account.Contact, error) {
	page := bounds.NewPage(ctx, bounds.MaxPage)
	return pg.Read(ctx, s.db, []string{accountID}, query.Upto(page, scanContact), `
		WITH members AS (
			SELECT DISTINCT m.contact_id FROM unnest($2::uuid[]) AS g (id)
			CROSS JOIN LATERAL (
				SELECT contact_id FROM contact_group_members
				WHERE account_id = $1 AND group_id = g.id AND contact_id > $3
				ORDER BY contact_id LIMIT $4) m
			ORDER BY m.contact_id LIMIT $4)
		SELECT c.id, c.account_id, c.doc, c.created_at, c.updated_at
		FROM members m JOIN contacts c ON c.account_id = $1 AND c.id = m.contact_id
		ORDER BY c.id`, accountID, groupIDs, cursor, limit)
}
