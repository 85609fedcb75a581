package bench_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
	messagingapp "github.com/turumba/turumba/services/messaging/app"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// messagesDefault is how many messages there are of all tenants; LIST_MESSAGES asks for
// others.
const messagesDefault = 100_000

// BenchmarkMessageLists measures lists of 50 messages of one of ten tenants: the RPC
// with its owner's token, over the network, with totals, texts, and the names of what
// messages refer to.
func BenchmarkMessageLists(b *testing.B) {
	all := sizeOf(b, "LIST_MESSAGES", messagesDefault)
	n := all / seedTenants
	m := newMesh(b)
	const email = "owner@bench.example"
	account := m.signUp(b, email)
	accounts := []string{account}
	for len(accounts) < seedTenants {
		accounts = append(accounts, messaging.NewID())
	}
	accountURL, messagingURL := m.DatabaseURLs()
	fillContacts(b, accountURL, n*3/5, account)
	fillMessages(b, messagingURL, n, accounts)
	walk := m.messageWalk(b, account)
	for b.Loop() {
		t := newListTable(b, fmt.Sprintf("lists of %d of %d messages of one tenant among %d", listPage, n, all), n/2)
		for _, l := range messageLists(n) {
			t.measure(l.name, query.Request{Filters: l.filters}, m.messageRPC(m.login(b, email)), walk)
		}
		t.end()
	}
	b.ReportMetric(0, "ns/op")
}

// messageRPC reads pages as a caller does.
func (m *mesh) messageRPC(as context.Context) lister {
	client := messagingv1.NewMessageServiceClient(m.conn)
	return func(r query.Request) (int, *optionsv1.ListMeta, error) {
		page, err := client.ListMessages(as, &messagingv1.ListMessagesRequest{Filter: r.Filters, Sort: r.Sorts, Limit: r.Limit, PageToken: r.PageToken})
		return len(page.GetData()), page.GetMeta(), err
	}
}

// messageWalk reads pages of the account without totals, to find a depth soon.
func (m *mesh) messageWalk(b *testing.B, account string) lister {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(m.dir, "master.key"))
	require.NoError(b, err)
	master, err := vault.ParseKey(string(text))
	require.NoError(b, err)
	key, err := messagingapp.TokenKey(master)
	require.NoError(b, err)
	_, url := m.DatabaseURLs()
	db, err := pg.Open(b.Context(), pg.Config{URL: url, Role: pg.RoleAPI, Clock: clock.System(), Name: "bench"})
	require.NoError(b, err)
	b.Cleanup(db.Close)
	store, err := postgres.New(db, key, func() {})
	require.NoError(b, err)
	return func(r query.Request) (int, *optionsv1.ListMeta, error) {
		r.NoTotal = true
		page, err := store.Messages(context.WithoutCancel(b.Context()), []string{account}, r)
		if err != nil {
			return 0, nil, err
		}
		return len(page.Data), page.Meta, nil
	}
}

// messageList is a list that is measured.
type messageList struct {
	name    string
	filters []string
}

// messageLists are the filters of the contract over a month in which the large campaign
// was, over the day of it and over another.
func messageLists(n int) []messageList {
	now := clock.System().Now().UTC()
	between := func(from, to time.Duration) string {
		return "created_at:range:" + now.Add(-from).Format(time.RFC3339) + "," + now.Add(-to).Format(time.RFC3339)
	}
	const day = 24 * time.Hour
	month := between(31*day, 0)
	id := func(kind, i int) string { return fmt.Sprintf("0190a5c8-0001-7000-8%03d-%012d", kind, i) }
	contact := fmt.Sprintf("0190a5c8-0001-7000-8000-%012x", n/3)
	address := fmt.Sprintf("c%d@tenant1.example", n/3)
	return []messageList{
		{"no filter", nil},
		{"status:in most, a month", []string{"status:in:sent,delivered", month}},
		{"status:in few, a month", []string{"status:in:failed,permanently_failed", month}},
		{"status:in rare, a month", []string{"status:in:cancelled,scheduled", month}},
		{"status:in none, a month", []string{"status:in:queued,sending", month}},
		{"channel_id:eq of the campaign", []string{"channel_id:eq:" + id(1, 1), month}},
		{"channel_id:eq with few", []string{"channel_id:eq:" + id(1, seedChannels), month}},
		{"contact_id:eq", []string{"contact_id:eq:" + contact, month}},
		{"delivery_address:eq", []string{"delivery_address:eq:" + address, month}},
		{"delivery_address:icontains, a day", []string{"delivery_address:icontains:" + address[:len(address)-16], between(9*day, 8*day)}},
		{"delivery_address:icontains many, the campaign's day", []string{"delivery_address:icontains:TENANT1", between(20*day+12*time.Hour, 19*day+12*time.Hour)}},
		{"delivery_address:icontains one, the campaign's day", []string{"delivery_address:icontains:" + address, between(20*day+12*time.Hour, 19*day+12*time.Hour)}},
		{"group_message_id:eq, the campaign", []string{"group_message_id:eq:" + id(3, 0)}},
		{"group_message_id:eq, an old one", []string{"group_message_id:eq:" + id(3, seedCampaigns)}},
	}
}
