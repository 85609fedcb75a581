package bench_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/services/account/app"
	"github.com/turumba/turumba/services/account/postgres"
)

// recipientCount is how many members the groups of the stream have, each in one of
// two overlapping groups or in both.
const recipientCount = 200_000

// BenchmarkRecipients streams the members of two groups, each contact once, from
// the PostgreSQL store through the chain, as the fan-out does.
func BenchmarkRecipients(b *testing.B) {
	s := server(b)
	url := s.URL("recipients")
	require.NoError(b, pg.EnsureDatabase(b.Context(), url))
	require.NoError(b, pg.Migrate(b.Context(), url, postgres.Migrations()...))
	fillContacts(b, url, recipientCount, listAccounts()...)
	groups := fillGroups(b, url)
	a, err := app.New(b.Context(), app.Config{DatabaseURL: config.Secret(url), Issuer: "http://bench", ClientID: "bench"}, app.Deps{
		Logger: telemetry.Discard(), Clock: clock.System(), MasterKey: make([]byte, 32),
	})
	require.NoError(b, err)
	b.Cleanup(a.Close)
	client := accountv1.NewRecipientServiceClient(a.Server.Conn("worker"))
	for b.Loop() {
		c := clock.System()
		began := c.Now()
		require.Equal(b, recipientCount, streamAll(b, client, groups))
		b.ReportMetric(recipientCount/c.Now().Sub(began).Seconds(), "contacts/s")
	}
	b.ReportMetric(0, "ns/op")
}

// fillGroups puts the contacts of the first tenant into two groups that overlap.
func fillGroups(b *testing.B, url string) (groups []string) {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), url)
	require.NoError(b, err)
	defer func() { require.NoError(b, conn.Close(context.WithoutCancel(b.Context()))) }()
	for i, part := range []string{"ordinal % 3 > 0", "ordinal % 3 < 2"} {
		id := fmt.Sprintf("0190a5c8-0000-7000-8000-0000000000a%d", i)
		_, err := conn.Exec(b.Context(), "INSERT INTO contact_groups (id, account_id, name, created_at, updated_at) VALUES ($1, $2, $3, now(), now())", id, tenantPrefix+"1", id)
		require.NoError(b, err)
		_, err = conn.Exec(b.Context(), `
			INSERT INTO contact_group_members (account_id, group_id, contact_id)
			SELECT account_id, $2, id FROM (SELECT account_id, id, row_number() OVER (ORDER BY id) AS ordinal FROM contact_documents WHERE account_id = $1) c
			WHERE `+part, tenantPrefix+"1", id)
		require.NoError(b, err)
		groups = append(groups, id)
	}
	_, err = conn.Exec(b.Context(), "VACUUM ANALYZE contact_group_members")
	require.NoError(b, err)
	return groups
}

func streamAll(b *testing.B, client accountv1.RecipientServiceClient, groups []string) (n int) {
	b.Helper()
	stream, err := client.StreamRecipients(b.Context(), &accountv1.StreamRecipientsRequest{AccountId: tenantPrefix + "1", ContactGroupIds: groups, PageSize: 1000})
	require.NoError(b, err)
	return countAll(b, stream)
}

func countAll(b *testing.B, stream grpc.ServerStreamingClient[accountv1.StreamRecipientsResponse]) (n int) {
	b.Helper()
	last := ""
	for {
		resp, err := stream.Recv()
		if err != nil {
			require.ErrorContains(b, err, "EOF")
			return n
		}
		for _, r := range resp.GetRecipients() {
			require.Less(b, last, r.GetContactId(), "each once, in order")
			last = r.GetContactId()
			n++
		}
	}
}
