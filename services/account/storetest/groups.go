package storetest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

func groups(f *fixture) {
	a, b := f.group(f.mine, "A"), f.group(f.mine, "B")
	f.reason(errorv1.Reason_REASON_DUPLICATE_NAME, f.createGroup(f.ctx, &account.Group{AccountID: f.mine, Name: "A"}))
	_, err := f.Contacts.UpdateGroup(f.ctx, []string{f.mine}, b.ID, func(g *account.Group) { g.Name = "A" })
	f.reason(errorv1.Reason_REASON_DUPLICATE_NAME, err)
	g, err := f.Contacts.UpdateGroup(f.ctx, []string{f.mine}, b.ID, func(g *account.Group) { g.Name, g.Description = "C", "Renamed" })
	require.NoError(f.t, err)
	require.Equal(f.t, "C", g.Name)
	got, err := f.Contacts.Group(f.ctx, []string{f.mine}, b.ID)
	require.NoError(f.t, err)
	require.Equal(f.t, "Renamed", got.Description)
	f.group(f.mine, "B") // free again
	page, err := f.Contacts.Groups(f.ctx, []string{f.mine}, query.Request{Sorts: []string{"name:desc"}})
	require.NoError(f.t, err)
	require.Equal(f.t, []string{"C", "B", "A"}, groupNamesOf(page.Data))
	page, err = f.Contacts.Groups(f.ctx, []string{f.mine}, query.Request{Filters: []string{"name:icontains:a"}})
	require.NoError(f.t, err)
	require.Equal(f.t, []string{"A"}, groupNamesOf(page.Data))
	require.NoError(f.t, f.Contacts.CheckGroups(f.ctx, f.mine, []string{a.ID, b.ID}))
	require.NoError(f.t, f.Contacts.CheckGroups(f.ctx, f.mine, nil))
	require.NoError(f.t, f.Contacts.DeleteGroup(f.ctx, []string{f.mine}, a.ID))
	f.reason(errorv1.Reason_REASON_NOT_FOUND, f.Contacts.DeleteGroup(f.ctx, []string{f.mine}, a.ID))
	f.reason(errorv1.Reason_REASON_NOT_FOUND, f.Contacts.CheckGroups(f.ctx, f.mine, []string{a.ID, b.ID}))
}

func groupNamesOf(list []*account.Group) (names []string) {
	for _, g := range list {
		names = append(names, g.Name)
	}
	return names
}

func groupNames(f *fixture) {
	f.group(f.mine, "Same")
	f.group(f.other, "Same")
}

func members(f *fixture) {
	all := crowd(f)
	g := f.group(f.mine, "G")
	ids := []string{all["Abebe"].ID, all["Bekele"].ID}
	n, err := f.Contacts.AddContacts(f.ctx, []string{f.mine}, g.ID, ids)
	require.NoError(f.t, err)
	require.EqualValues(f.t, 2, n)
	n, err = f.Contacts.AddContacts(f.ctx, []string{f.mine}, g.ID, []string{all["Chala"].ID, ids[0]})
	require.NoError(f.t, err)
	require.EqualValues(f.t, 1, n, "one was a member before")
	_, err = f.Contacts.AddContacts(f.ctx, []string{f.mine}, g.ID, []string{all["ጥሩነሽ"].ID, account.NewID()})
	f.reason(errorv1.Reason_REASON_NOT_FOUND, err)
	f.count(g.ID, 3)
	page, err := f.Contacts.GroupContacts(f.ctx, []string{f.mine}, g.ID, query.Request{Sorts: []string{"name:asc"}, Filters: []string{"tags:eq:runner"}})
	require.NoError(f.t, err)
	require.Len(f.t, page.Data, 2)
	require.Equal(f.t, "Abebe", page.Data[0].Name)
	require.NoError(f.t, f.Contacts.RemoveContact(f.ctx, []string{f.mine}, g.ID, ids[0]))
	f.reason(errorv1.Reason_REASON_NOT_FOUND, f.Contacts.RemoveContact(f.ctx, []string{f.mine}, g.ID, ids[0]))
	f.count(g.ID, 2)
	// A change of a contact does not touch its groups.
	_, err = f.Contacts.UpdateContact(f.ctx, []string{f.mine}, ids[1], func(c *account.Contact) error { c.Name = "Renamed"; return nil })
	require.NoError(f.t, err)
	f.count(g.ID, 2)
}

func (f *fixture) count(groupID string, want int32) {
	f.t.Helper()
	g, err := f.Contacts.Group(f.ctx, []string{f.mine}, groupID)
	require.NoError(f.t, err)
	require.Equal(f.t, want, g.ContactCount)
	page, err := f.Contacts.Groups(f.ctx, []string{f.mine}, query.Request{Filters: []string{"id:eq:" + groupID}})
	if err == nil {
		require.Equal(f.t, want, page.Data[0].ContactCount)
	}
}

func goneFromGroups(f *fixture) {
	all := crowd(f)
	g := f.group(f.mine, "G")
	_, err := f.Contacts.AddContacts(f.ctx, []string{f.mine}, g.ID, []string{all["Abebe"].ID, all["Bekele"].ID})
	require.NoError(f.t, err)
	require.NoError(f.t, f.Contacts.DeleteContact(f.ctx, []string{f.mine}, all["Abebe"].ID))
	f.count(g.ID, 1)
	require.Equal(f.t, []string{"Bekele"}, f.list(f.mine, "group_id:eq:"+g.ID))
}

func groupGone(f *fixture) {
	all := crowd(f)
	g, kept := f.group(f.mine, "G"), f.group(f.mine, "Kept")
	for _, id := range []string{g.ID, kept.ID} {
		_, err := f.Contacts.AddContacts(f.ctx, []string{f.mine}, id, []string{all["Abebe"].ID})
		require.NoError(f.t, err)
	}
	require.NoError(f.t, f.Contacts.DeleteGroup(f.ctx, []string{f.mine}, g.ID))
	require.Empty(f.t, f.list(f.mine, "group_id:eq:"+g.ID))
	require.Len(f.t, f.list(f.mine), 5)
	f.count(kept.ID, 1)
}

func recipients(f *fixture) {
	a, b := f.group(f.mine, "A"), f.group(f.mine, "B")
	list := make([]*account.Contact, 25)
	for i := range list {
		list[i] = &account.Contact{Name: fmt.Sprintf("C%02d", i), Email: fmt.Sprintf("c%02d@x.example", i)}
	}
	f.create(f.mine, list...)
	ids := make([]string, len(list))
	for i, c := range list {
		ids[i] = c.ID
	}
	_, err := f.Contacts.AddContacts(f.ctx, []string{f.mine}, a.ID, ids[:20])
	require.NoError(f.t, err)
	_, err = f.Contacts.AddContacts(f.ctx, []string{f.mine}, b.ID, ids[10:])
	require.NoError(f.t, err)
	slices.Sort(ids)
	var got []string
	for cursor := zeroID; ; cursor = got[len(got)-1] {
		page, err := f.Contacts.Recipients(f.ctx, f.mine, []string{a.ID, b.ID}, cursor, 7)
		require.NoError(f.t, err)
		for _, c := range page {
			got = append(got, c.ID)
		}
		if len(page) < 7 {
			break
		}
	}
	require.Equal(f.t, ids, got)
}

func audited(f *fixture) {
	c := &account.Contact{Name: "A", Email: "a@x.example"}
	require.NoError(f.t, f.createOne(f.ctx, f.mine, c))
	require.Error(f.t, f.createOne(f.ctx, f.mine, &account.Contact{Name: "B", Email: "a@x.example"}))
	_, err := f.Contacts.UpdateContact(f.ctx, []string{f.mine}, c.ID, func(c *account.Contact) error { c.Name = "Z"; return nil })
	require.NoError(f.t, err)
	g := f.group(f.mine, "G")
	_, err = f.Contacts.UpdateGroup(f.ctx, []string{f.mine}, g.ID, func(g *account.Group) { g.Name = "H" })
	require.NoError(f.t, err)
	_, err = f.Contacts.AddContacts(f.ctx, []string{f.mine}, g.ID, []string{c.ID})
	require.NoError(f.t, err)
	require.NoError(f.t, f.Contacts.RemoveContact(f.ctx, []string{f.mine}, g.ID, c.ID))
	require.NoError(f.t, f.Contacts.DeleteGroup(f.ctx, []string{f.mine}, g.ID))
	require.NoError(f.t, f.Contacts.DeleteContact(f.ctx, []string{f.mine}, c.ID))
	page, err := f.Journal.AuditEvents(f.ctx, []string{f.mine}, query.Request{Sorts: []string{"created_at:asc"}})
	require.NoError(f.t, err)
	var actions []string
	for _, e := range page.Data {
		require.Equal(f.t, account.AuditSucceeded, e.Outcome, e.Action)
		actions = append(actions, e.Action)
	}
	require.Equal(f.t, []string{
		"contact.create", "contact.update", "contact_group.create", "contact_group.update", "contact_group.add_contacts",
		"contact_group.remove_contact", "contact_group.delete", "contact.delete",
	}, actions)
	require.JSONEq(f.t, `{"name": {"from": "A", "to": "Z"}}`, string(page.Data[1].Changes))
	require.JSONEq(f.t, `{"contacts": {"to": 1}}`, string(page.Data[4].Changes))
}

// file is an import that is claimed.
func (f *fixture) file(dryRun bool, groupIDs ...string) (*postgres.ImportJob, *account.Import) {
	f.t.Helper()
	im := &account.Import{
		AccountID: f.mine, FileName: "f.csv", Encoding: "utf-8", Delimiter: ",", Columns: []account.ImportColumn{{Header: "a"}}, DryRun: dryRun,
		MatchBy: account.DefaultMatchBy(), ContactGroupIDs: append([]string{}, groupIDs...),
	}
	require.NoError(f.t, f.Journal.DB().InTx(f.ctx, []string{f.mine}, func(tx *pg.Tx) (err error) {
		if im.CreatedByUserID, err = Importer(f.ctx, tx, f.mine); err != nil {
			return err
		}
		return f.Journal.CreateImport(f.ctx, tx, im)
	}))
	require.NoError(f.t, f.Journal.QueueImport(f.ctx, im))
	var job *postgres.ImportJob
	require.Eventually(f.t, func() bool {
		var err error
		job, err = f.Journal.ClaimImport(f.ctx, time.Minute)
		return err == nil && job != nil
	}, 10*time.Second, 10*time.Millisecond)
	return job, im
}

// Importer makes a person who may import contacts into the account, and the account where
// it is missing.
func Importer(ctx context.Context, tx *pg.Tx, accountID string) (userID string, err error) {
	userID = account.NewID()
	role := account.NewID()
	b := &pgx.Batch{}
	b.Queue("INSERT INTO accounts (id, name, created_at, updated_at) VALUES ($1, 'Mine', $2, $2) ON CONFLICT DO NOTHING", accountID, tx.Now)
	b.Queue("INSERT INTO roles (id, account_id, name, permissions, created_at, updated_at) VALUES ($1::uuid, $2, $1::text, ARRAY [$3], $4, $4)", role, accountID, account.PermissionImport, tx.Now)
	b.Queue("INSERT INTO users (id, email, idp_issuer, idp_subject, created_at, updated_at) VALUES ($1::uuid, $1::text, 'test', $1::text, $2, $2)", userID, tx.Now)
	b.Queue("INSERT INTO account_users (id, account_id, user_id, role_id, created_at) VALUES ($1, $2, $3, $4, $5)", account.NewID(), accountID, userID, role, tx.Now)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return "", fmt.Errorf("make an importer: %w", err)
	}
	return userID, nil
}

// importOf: an import acts for who uploaded it, at each of its batches: active, a member,
// and with the permission.
func importOf(f *fixture) {
	person := map[string]string{
		"disabled": "UPDATE users SET is_active = false WHERE id = $1",
		"removed":  "DELETE FROM account_users WHERE user_id = $1",
		"demoted":  "UPDATE roles SET permissions = '{contacts.read}' WHERE id IN (SELECT role_id FROM account_users WHERE user_id = $1)",
	}
	n := 0
	for what, sql := range person {
		job, im := f.file(false)
		f.store(job, im, rows(0, people(100*n, 2)...))
		require.NoError(f.t, f.Journal.DB().InTx(f.ctx, []string{f.mine}, func(tx *pg.Tx) error {
			_, err := tx.Exec(f.ctx, sql, im.CreatedByUserID)
			return err
		}))
		require.ErrorIs(f.t, f.Batches.StoreBatch(f.ctx, job, im, rows(2, people(100*n+50, 2)...), time.Minute), postgres.ErrImportDenied, what)
		require.NoError(f.t, f.Journal.FinishImport(f.ctx, job, im, "denied"))
		n++
		require.Len(f.t, f.list(f.mine), 2*n, what)
	}
}

// rows are those of a file, from a place in it.
func rows(from int, contacts ...*account.Contact) postgres.ImportBatch {
	b := postgres.ImportBatch{Read: int32(from + len(contacts)), Processed: int32(100 * (from + len(contacts)))}
	for i, c := range contacts {
		r := account.ImportRow{Line: from + i + 2, Read: int32(from + i + 1), Cells: []string{c.Name}, Contact: c}
		if c.Name == "bad" {
			r.Contact, r.Err = nil, account.InvalidField("name", "is bad")
		}
		b.Rows = append(b.Rows, r)
	}
	return b
}

func (f *fixture) store(job *postgres.ImportJob, im *account.Import, b postgres.ImportBatch) {
	f.t.Helper()
	require.NoError(f.t, f.Batches.StoreBatch(f.ctx, job, im, b, time.Minute))
	stored, err := f.Journal.Import(f.ctx, []string{f.mine}, im.ID)
	require.NoError(f.t, err)
	require.Equal(f.t, im.ImportProgress, stored.ImportProgress, "the counts are those that are stored")
}

func importBatch(f *fixture) {
	f.create(f.mine, &account.Contact{Name: "Old", Email: "old@x.example", Tags: []string{"kept"}}, &account.Contact{Name: "Other", Phone: "+251911000002"})
	g := f.group(f.mine, "G")
	job, im := f.file(false, g.ID)
	f.store(job, im, rows(0,
		&account.Contact{Name: "New", Phone: "+251911000003", Email: "new@x.example"},
		&account.Contact{Name: "Old again", Email: "old@x.example", Tags: []string{"vip"}},
		&account.Contact{Name: "New again", Email: "new@x.example", Tags: []string{"c"}},
		&account.Contact{Name: "Clash", Phone: "+251911000002", Email: "old@x.example"},
		&account.Contact{Name: "bad"},
		&account.Contact{Name: "Other", Phone: "+251911000002"}, // as it is
	))
	require.Equal(f.t, account.ImportProgress{ProcessedBytes: 600, ReadCount: 6, RowCount: 6, CreatedCount: 1, UpdatedCount: 3, RejectedCount: 2}, im.ImportProgress)
	require.Equal(f.t, []string{"New again", "Old again", "Other"}, f.list(f.mine))
	require.Equal(f.t, []string{"New again", "Old again", "Other"}, f.list(f.mine, "group_id:eq:"+g.ID))
	require.Equal(f.t, []string{"Old again"}, f.list(f.mine, "tags:eq:kept"))
	rejected, err := f.Journal.RejectedRows(f.ctx, im, 0, 10)
	require.NoError(f.t, err)
	require.Len(f.t, rejected, 2)
	require.Equal(f.t, []string{"DUPLICATE_EMAIL", "VALIDATION_FAILED"}, []string{rejected[0].Code, rejected[1].Code})
	f.store(job, im, rows(6, &account.Contact{Name: "More", ExternalID: "E"}))
	require.EqualValues(f.t, 2, im.CreatedCount)
	require.EqualValues(f.t, 7, im.ReadCount)
	require.NoError(f.t, f.Journal.FinishImport(f.ctx, job, im, ""))
	require.ErrorIs(f.t, f.Batches.StoreBatch(f.ctx, job, im, rows(7, &account.Contact{Name: "Late"}), time.Minute), postgres.ErrImportLost)
	require.Empty(f.t, f.list(f.mine, "name:eq:Late"), "an import that has ended stores nothing")
}

func importMovedKeys(f *fixture) {
	f.create(f.mine, &account.Contact{Name: "A", ExternalID: "a", Email: "a@x.example"}, &account.Contact{Name: "B", ExternalID: "b", Email: "b@x.example"})
	job, im := f.file(false)
	f.store(job, im, rows(0,
		&account.Contact{Name: "A", ExternalID: "a", Email: "moved@x.example"},
		&account.Contact{Name: "B", ExternalID: "b", Email: "a@x.example"}, // which A gave away
		&account.Contact{Name: "C", Email: "b@x.example"},                  // which B gave away
	))
	require.Equal(f.t, []int32{1, 2, 0}, []int32{im.CreatedCount, im.UpdatedCount, im.RejectedCount})
	require.Equal(f.t, []string{"A"}, f.list(f.mine, "email:eq:moved@x.example"))
	require.Equal(f.t, []string{"B"}, f.list(f.mine, "email:eq:a@x.example"))
	require.Equal(f.t, []string{"C"}, f.list(f.mine, "email:eq:b@x.example"))
	f.reason(errorv1.Reason_REASON_DUPLICATE_EMAIL, f.createOne(f.ctx, f.mine, &account.Contact{Name: "D", Email: "a@x.example"}))
}

func importDryRun(f *fixture) {
	f.create(f.mine, &account.Contact{Name: "Old", Email: "old@x.example"})
	job, im := f.file(true)
	f.store(job, im, rows(0, &account.Contact{Name: "Old again", Email: "old@x.example"}, &account.Contact{Name: "New", Email: "new@x.example"}))
	f.store(job, im, rows(2, &account.Contact{Name: "New again", Email: "new@x.example"}, &account.Contact{Name: "bad"}))
	require.Equal(f.t, []int32{1, 2, 1}, []int32{im.CreatedCount, im.UpdatedCount, im.RejectedCount})
	require.Equal(f.t, []string{"Old"}, f.list(f.mine), "a dry run stores nothing")
}
