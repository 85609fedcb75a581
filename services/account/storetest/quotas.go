package storetest

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
)

// limit gives an account a quota of contacts.
func (f *fixture) limit(accountID string, most int32) {
	f.t.Helper()
	err := f.Journal.DB().InTx(f.ctx, []string{accountID}, func(tx *pg.Tx) error {
		_, err := tx.Exec(f.ctx, `
			INSERT INTO accounts (id, name, quotas, created_at, updated_at) VALUES ($1, 'Limited', $2, $3, $3)
			ON CONFLICT (id) DO UPDATE SET quotas = excluded.quotas`, accountID, account.Quotas{Contacts: &most}, tx.Now)
		return err
	})
	require.NoError(f.t, err)
}

// counted holds the count of an account's contacts against the contacts.
func (f *fixture) counted(accountID string, want int) {
	f.t.Helper()
	require.Len(f.t, f.list(accountID), want)
	n, err := f.Journal.ContactCount(f.ctx, accountID)
	require.NoError(f.t, err)
	require.EqualValues(f.t, want, n)
}

// people are contacts with addresses of their own.
func people(from, n int) []*account.Contact {
	out := make([]*account.Contact, n)
	for i := range out {
		out[i] = &account.Contact{Name: "P", Email: fmt.Sprintf("p%d@x.example", from+i)}
	}
	return out
}

func (f *fixture) createAll(accountID string, list []*account.Contact) error {
	return f.Contacts.CreateContacts(f.ctx, accountID, list, func([]error) (proto.Message, error) { return &accountv1.BatchCreateContactsResponse{}, nil })
}

func quotas(f *fixture) {
	first := people(0, 2)
	f.create(f.mine, first...)
	f.limit(f.mine, 5)
	err := f.createAll(f.mine, people(10, 4))
	f.reason(errorv1.Reason_REASON_QUOTA_EXCEEDED, err)
	require.Equal(f.t, map[string]string{"quota": "contacts", "limit": "5", "used": "2", "requested": "4"}, apierr.From(err).Meta)
	f.counted(f.mine, 2)
	require.NoError(f.t, f.createAll(f.mine, people(0, 5)), "two are there already, and three are new")
	f.counted(f.mine, 5)
	f.reason(errorv1.Reason_REASON_QUOTA_EXCEEDED, f.createOne(f.ctx, f.mine, people(20, 1)[0]))
	f.create(f.other, people(0, 6)...)

	require.NoError(f.t, f.Contacts.DeleteContact(f.ctx, []string{f.mine}, first[0].ID))
	f.counted(f.mine, 4)
	f.create(f.mine, people(20, 1)...)
	f.counted(f.mine, 5)
	f.limit(f.mine, 0)
	f.create(f.mine, people(30, 3)...)
	f.counted(f.mine, 8)
}

// quotaRivals: the limit is exact, and so is the count, whoever is faster.
func quotaRivals(f *fixture) {
	const most, rivals = 10, 20
	f.limit(f.mine, most)
	var accepted atomic.Int32
	var wg sync.WaitGroup
	for i := range rivals {
		wg.Go(func() {
			switch err := f.createOne(f.ctx, f.mine, people(i, 1)[0]); {
			case err == nil:
				accepted.Add(1)
			case !apierr.HasReason(err, errorv1.Reason_REASON_QUOTA_EXCEEDED):
				f.t.Errorf("create a contact: %v", err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(f.t, most, accepted.Load())
	f.counted(f.mine, most)
}

func quotaOfImports(f *fixture) {
	f.create(f.mine, &account.Contact{Name: "Old", Email: "old@x.example"})
	f.limit(f.mine, 3)
	list := append(people(0, 4), &account.Contact{Name: "Old again", Email: "old@x.example"})
	for _, dry := range []bool{true, false} {
		job, im := f.file(dry)
		f.store(job, im, rows(0, list[:3]...))
		f.store(job, im, rows(3, list[3:]...))
		require.Equal(f.t, []int32{2, 1, 2}, []int32{im.CreatedCount, im.UpdatedCount, im.RejectedCount}, "dry run: %v", dry)
		rejected, err := f.Journal.RejectedRows(f.ctx, im, 0, 10)
		require.NoError(f.t, err)
		require.Len(f.t, rejected, 2)
		require.Equal(f.t, "QUOTA_EXCEEDED", rejected[0].Code)
		require.NoError(f.t, f.Journal.FinishImport(f.ctx, job, im, ""))
	}
	f.counted(f.mine, 3)
	require.Len(f.t, f.list(f.mine, "name:eq:Old again"), 1, "contacts that are there still change")
}
