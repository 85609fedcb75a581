package mongodb_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/mongodb/mongotest"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
	documents "github.com/turumba/turumba/services/account/mongodb"
	"github.com/turumba/turumba/services/account/postgres"
	"github.com/turumba/turumba/services/account/storetest"
)

// life is a store whose process dies on request, and its time.
type life struct {
	*documents.Store
	journal *postgres.Store
	clock   *clock.Fake
}

func begin(t *testing.T) *life {
	t.Helper()
	c := clock.NewFake(time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC))
	s, journal := open(t, mongotest.Servers(t)[mongotest.FerretDB], c)
	return &life{s, journal, c}
}

func (l *life) create(ctx context.Context, accountID string, c *account.Contact) error {
	return l.CreateContacts(ctx, accountID, []*account.Contact{c}, func(errs []error) (proto.Message, error) {
		return &accountv1.CreateContactResponse{Contact: &accountv1.Contact{Id: c.ID}}, errs[0]
	})
}

func (l *life) outcomes(t *testing.T, accountID string) map[account.AuditOutcome][]string {
	t.Helper()
	page, err := l.journal.AuditEvents(t.Context(), []string{accountID}, query.Request{Sorts: []string{"created_at:asc"}})
	require.NoError(t, err)
	out := map[account.AuditOutcome][]string{}
	for _, e := range page.Data {
		out[e.Outcome] = append(out[e.Outcome], e.Action)
	}
	return out
}

var errDied = errors.New("the process died")

// TestDeathAfterTheContact: the contact is there, its answer and its event are not.
func TestDeathAfterTheContact(t *testing.T) {
	t.Parallel()
	l, ctx, mine := begin(t), t.Context(), account.NewID()
	c := &account.Contact{Name: "A", Email: "a@x.example"}
	err := l.CreateContacts(ctx, mine, []*account.Contact{c}, func([]error) (proto.Message, error) { return nil, errDied })
	require.ErrorIs(t, err, errDied)
	require.Equal(t, map[account.AuditOutcome][]string{account.AuditPending: {"contact.create"}}, l.outcomes(t, mine))
	require.NoError(t, l.Sweep(ctx))
	require.Equal(t, []string{"contact.create"}, l.outcomes(t, mine)[account.AuditPending], "it may still be going on")
	l.clock.Advance(time.Minute)
	require.NoError(t, l.Sweep(ctx))
	require.Equal(t, map[account.AuditOutcome][]string{account.AuditSucceeded: {"contact.create"}}, l.outcomes(t, mine))
}

// TestDeathBeforeTheContact leaves claims that nobody confirms, and an event of
// something that was never done.
func TestDeathBeforeTheContact(t *testing.T) {
	t.Parallel()
	l, ctx, mine := begin(t), t.Context(), account.NewID()
	require.NoError(t, l.Claim(ctx, mine, &account.Contact{ID: account.NewID(), AccountID: mine, Email: "a@x.example", Phone: "+251911000001"}))
	require.NoError(t, l.journal.Intend(ctx, mine, "contact.create", []postgres.Intent{{EventID: account.NewID(), ResourceID: account.NewID()}}))

	err := l.create(ctx, mine, &account.Contact{Name: "B", Email: "a@x.example"})
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_CONFLICT), "%v: it may still be going on", err)
	l.clock.Advance(time.Minute)
	require.NoError(t, l.create(ctx, mine, &account.Contact{Name: "B", Email: "a@x.example"}), "an old claim is taken over")
	require.NoError(t, l.Sweep(ctx))
	require.Equal(t, []string{"contact.create"}, l.outcomes(t, mine)[account.AuditFailed])
	require.Equal(t, []string{"contact.create"}, l.outcomes(t, mine)[account.AuditSucceeded])
	require.NoError(t, l.create(ctx, mine, &account.Contact{Name: "C", Phone: "+251911000001"}), "what was swept is free")
	err = l.create(ctx, mine, &account.Contact{Name: "D", Email: "a@x.example"})
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_DUPLICATE_EMAIL), "%v", err)
}

// TestDeathInAnUpdate leaves keys in doubt: the sweep confirms what the contact has and
// removes what it has not.
func TestDeathInAnUpdate(t *testing.T) {
	t.Parallel()
	l, ctx, mine := begin(t), t.Context(), account.NewID()
	c := &account.Contact{Name: "A", Email: "a@x.example", Phone: "+251911000001"}
	require.NoError(t, l.create(ctx, mine, c))
	require.NoError(t, l.Doubt(ctx, c))
	event := account.NewID()
	require.NoError(t, l.journal.Intend(ctx, mine, "contact.update", []postgres.Intent{{EventID: event, ResourceID: c.ID}}))
	l.clock.Advance(time.Minute)
	require.NoError(t, l.Sweep(ctx))
	require.Equal(t, []string{"contact.update"}, l.outcomes(t, mine)[account.AuditFailed])
	err := l.create(ctx, mine, &account.Contact{Name: "B", Email: "a@x.example"})
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_DUPLICATE_EMAIL), "%v", err)
	_, err = l.UpdateContact(ctx, []string{mine}, c.ID, func(c *account.Contact) error { c.Email = "b@x.example"; return nil })
	require.NoError(t, err)
	require.NoError(t, l.create(ctx, mine, &account.Contact{Name: "B", Email: "a@x.example"}))
}

// TestDeathInADeletion: the group is gone and its members do not know yet.
func TestDeathInADeletion(t *testing.T) {
	t.Parallel()
	l, ctx, mine := begin(t), t.Context(), account.NewID()
	c := &account.Contact{Name: "A"}
	require.NoError(t, l.create(ctx, mine, c))
	g := &account.Group{AccountID: mine, Name: "G"}
	require.NoError(t, l.CreateGroup(ctx, g, func() proto.Message { return &accountv1.CreateContactGroupResponse{} }))
	_, err := l.AddContacts(ctx, []string{mine}, g.ID, []string{c.ID})
	require.NoError(t, err)
	require.NoError(t, l.DropGroup(ctx, g))
	require.NoError(t, l.journal.Intend(ctx, mine, "contact_group.delete", []postgres.Intent{{EventID: account.NewID(), ResourceID: g.ID}}))
	require.NoError(t, l.journal.Intend(ctx, mine, "contact.delete", []postgres.Intent{{EventID: account.NewID(), ResourceID: c.ID}}))
	require.NoError(t, l.journal.Intend(ctx, mine, "contact_group.add_contacts", []postgres.Intent{{EventID: account.NewID(), ResourceID: g.ID}}))
	l.clock.Advance(time.Minute)
	require.NoError(t, l.Sweep(ctx))
	page, err := l.Contacts(ctx, []string{mine}, query.Request{Filters: []string{"group_id:eq:" + g.ID}})
	require.NoError(t, err)
	require.Empty(t, page.Data)
	got := l.outcomes(t, mine)
	require.Equal(t, []string{"contact.delete"}, got[account.AuditFailed])
	require.Equal(t, []string{"contact_group.add_contacts"}, got[account.AuditUnknown])
	require.Contains(t, got[account.AuditSucceeded], "contact_group.delete")
	require.Empty(t, got[account.AuditPending])
}

// TestDeathInAnImport: whoever takes the import over does the plan again, whatever of
// it was done, and the counts are as if nothing had happened.
func TestDeathInAnImport(t *testing.T) {
	t.Parallel()
	for done, died := range map[string]int{"nothing of it": 0, "half of it": 1, "all of it": 2} {
		t.Run(done, func(t *testing.T) {
			t.Parallel()
			l, ctx, mine := begin(t), t.Context(), account.NewID()
			require.NoError(t, l.create(ctx, mine, &account.Contact{Name: "Old", ExternalID: "old"}))
			im := &account.Import{AccountID: mine, Encoding: "utf-8", Delimiter: ",", Columns: []account.ImportColumn{}, MatchBy: account.DefaultMatchBy(), ContactGroupIDs: []string{}}
			require.NoError(t, l.journal.DB().InTx(ctx, []string{mine}, func(tx *pg.Tx) (err error) {
				if im.CreatedByUserID, err = storetest.Importer(ctx, tx, mine); err != nil {
					return err
				}
				return l.journal.CreateImport(ctx, tx, im)
			}))
			require.NoError(t, l.journal.QueueImport(ctx, im))
			job, err := l.journal.ClaimImport(ctx, time.Second)
			require.NoError(t, err)
			batch := postgres.ImportBatch{Read: 3, Processed: 300, Rows: []account.ImportRow{
				{Line: 2, Read: 1, Contact: &account.Contact{Name: "Old again", ExternalID: "old"}},
				{Line: 3, Read: 2, Contact: &account.Contact{Name: "New", Email: "new@x.example"}},
				{Line: 4, Read: 3, Err: account.InvalidField("name", "is bad")},
			}}
			require.NoError(t, l.PlanAndDie(ctx, job, im, batch, died))

			l.clock.Advance(time.Hour)
			job, err = l.journal.ClaimImport(ctx, time.Second)
			require.NoError(t, err)
			im, err = l.journal.Import(ctx, []string{mine}, im.ID)
			require.NoError(t, err)
			require.Zero(t, im.RowCount, "nothing was counted before the crash")
			require.NoError(t, l.StoreBatch(ctx, job, im, batch, time.Second))
			require.Equal(t, account.ImportProgress{ProcessedBytes: 300, ReadCount: 3, RowCount: 3, CreatedCount: 1, UpdatedCount: 1, RejectedCount: 1}, im.ImportProgress)
			page, err := l.Contacts(ctx, []string{mine}, query.Request{Sorts: []string{"name:asc"}})
			require.NoError(t, err)
			require.Len(t, page.Data, 2)
			require.Equal(t, []string{"New", "Old again"}, []string{page.Data[0].Name, page.Data[1].Name})
			err = l.create(ctx, mine, &account.Contact{Name: "Late", Email: "new@x.example"})
			require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_DUPLICATE_EMAIL), "%v", err)
		})
	}
}
