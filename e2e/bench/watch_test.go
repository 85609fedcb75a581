package bench_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/streams"
)

const (
	watchedAccounts = 5
	watchReads      = 2000
	watchFor        = 5 * time.Second
)

// BenchmarkWatch is what 1000 watches of five sends cost: looks at sends per second, and
// the p99 of other reads over that without watches.
func BenchmarkWatch(b *testing.B) {
	m := newMesh(b)
	m.signUp(b, "watch@bench.example")
	owner := m.login(b, "watch@bench.example")
	_, url := m.DatabaseURLs()
	sql := pool(b, url)
	w := &watchBench{mesh: m, owner: owner, sql: sql, sends: messagingv1.NewGroupMessageServiceClient(m.conn)}
	for i := range watchedAccounts {
		w.addAccount(b, i)
	}
	for b.Loop() {
		var ratios []float64
		for range 3 {
			alone := w.p99(b)
			leave := w.watch(b)
			ratios = append(ratios, w.p99(b)/alone)
			leave()
		}
		idle, leave := w.looks(b), w.watch(b)
		looks := w.looks(b) - idle
		leave()
		b.ReportMetric(float64(len(w.tokens)*streams.PerCaller), "watches")
		b.ReportMetric(looks, "looks/s")
		b.ReportMetric(median(ratios), "p99_ratio")
	}
	b.ReportMetric(0, "ns/op")
}

type watchBench struct {
	mesh   *mesh
	owner  context.Context
	sql    *pgxpool.Pool
	sends  messagingv1.GroupMessageServiceClient
	tokens []string // of the API keys
	ids    []string // of the send that each of them watches
}

// addAccount makes an account with a draft and ten keys.
func (w *watchBench) addAccount(b *testing.B, i int) {
	b.Helper()
	made, err := accountv1.NewAccountServiceClient(w.mesh.conn).CreateAccount(w.owner, &accountv1.CreateAccountRequest{Name: fmt.Sprint("Watched ", i)})
	require.NoError(b, err)
	id := uuid.NewString()
	_, err = w.sql.Exec(b.Context(), `
		INSERT INTO group_messages (id, account_id, channel_id, template_id, status, contact_group_ids, created_at, updated_at)
		VALUES ($1, $2, gen_random_uuid(), gen_random_uuid(), 'draft', '{}', now(), now())`, id, made.GetAccount().GetId())
	require.NoError(b, err)
	for k := range streams.PerAccount / streams.PerCaller {
		key, err := accountv1.NewApiKeyServiceClient(w.mesh.conn).CreateApiKey(w.owner, &accountv1.CreateApiKeyRequest{
			AccountId: made.GetAccount().GetId(), Name: fmt.Sprint("key ", k), Permissions: []string{"group_messages.read"},
		})
		require.NoError(b, err)
		issued, err := accountv1.NewAuthServiceClient(w.mesh.conn).IssueToken(b.Context(), &accountv1.IssueTokenRequest{
			GrantType: "client_credentials", ClientId: key.GetApiKey().GetId(), ClientSecret: key.GetSecret(),
		})
		require.NoError(b, err)
		w.tokens, w.ids = append(w.tokens, issued.GetAccessToken()), append(w.ids, id)
	}
}

// watch opens as many watches as may be. A place that a stream had is free some time after
// its end (ADR 0051).
func (w *watchBench) watch(b *testing.B) (leave func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var opening, watching errgroup.Group
	for i, token := range w.tokens {
		opening.Go(func() error {
			as := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
			for range streams.PerCaller {
				stream, err := w.open(as, w.ids[i])
				if err != nil {
					return err
				}
				watching.Go(func() error {
					for {
						if _, err := stream.Recv(); err != nil {
							return err
						}
					}
				})
			}
			return nil
		})
	}
	require.NoError(b, opening.Wait())
	return func() {
		cancel()
		_ = watching.Wait() // they were cancelled
	}
}

// open opens a watch as soon as there is a place for it.
func (w *watchBench) open(as context.Context, id string) (grpc.ServerStreamingClient[messagingv1.WatchGroupMessageResponse], error) {
	for {
		stream, err := w.sends.WatchGroupMessage(as, &messagingv1.WatchGroupMessageRequest{GroupMessageId: id})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.ResourceExhausted {
			return stream, err
		}
		if err := clock.Sleep(as, clock.System(), 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// looks is how many sends were looked up in a second; one statement looks up several.
func (w *watchBench) looks(b *testing.B) float64 {
	b.Helper()
	scans := func() (n float64) {
		require.NoError(b, w.sql.QueryRow(b.Context(), "SELECT coalesce(idx_scan, 0) + seq_scan FROM pg_stat_user_tables WHERE relname = 'group_messages'").Scan(&n))
		return n
	}
	// Connections that rest tell what they counted within 10 s.
	require.NoError(b, clock.Sleep(b.Context(), clock.System(), 11*time.Second))
	before := scans()
	require.NoError(b, clock.Sleep(b.Context(), clock.System(), watchFor))
	return (scans() - before) / watchFor.Seconds()
}

// p99 is that of reads of a send, in seconds.
func (w *watchBench) p99(b *testing.B) float64 {
	b.Helper()
	c := clock.System()
	took := make([]float64, watchReads)
	for i := range took {
		began := c.Now()
		_, err := w.sends.GetGroupMessage(w.owner, &messagingv1.GetGroupMessageRequest{GroupMessageId: w.ids[0]})
		require.NoError(b, err)
		took[i] = c.Now().Sub(began).Seconds()
	}
	slices.Sort(took)
	return took[watchReads*99/100]
}
