package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/telemetry"
	messagingapp "github.com/turumba/turumba/services/messaging/app"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

const (
	// createCalls is how many messages one run creates.
	createCalls = 3000
	createText  = "Dear Abebe Bikila, school starts on Monday at eight. Please bring everything that is on the list, and be there a quarter of an hour earlier. Thanks."
)

// BenchmarkCreateMessage is one message per call by several clients at once, each
// call with a token, over the network and with the whole messaging service on
// PostgreSQL with fsync on.
func BenchmarkCreateMessage(b *testing.B) {
	s := newMessaging(b)
	b.Run("grpc", func(b *testing.B) { s.run(b, s.overGRPC) })
	b.Run("rest", func(b *testing.B) { s.run(b, s.overREST) })
}

// messagingService is the messaging service with one account that has a channel.
type messagingService struct {
	server  *grpcserver.Server
	token   string
	account *sender
}

func newMessaging(b *testing.B) *messagingService {
	b.Helper()
	url := server(b)
	require.NoError(b, pg.EnsureDatabase(b.Context(), url.URL("ours")))
	logStatements(b, url, "ours")
	owner := &owner{}
	directory, err := grpcserver.New(grpcserver.Config{Name: "account", Logger: telemetry.Discard(), Clock: clock.System()})
	require.NoError(b, err)
	accountv1.RegisterInternalContextServiceServer(directory, owner)
	v, token := verifier(b)
	a, err := messagingapp.New(b.Context(), messagingapp.Config{DatabaseURL: config.Secret(url.URL("ours"))}, messagingapp.Deps{
		Logger: telemetry.Discard(), Clock: clock.System(), Registry: telemetry.NewRegistry(), Tracing: tracing("messaging"), MasterKey: make([]byte, 32),
		Verifier: v, Account: directory.Conn("messaging"), Adapters: channel.Adapters{nothing{}}, Wake: func() {},
	})
	require.NoError(b, err)
	b.Cleanup(a.Close)
	db, err := pg.Open(b.Context(), pg.Config{URL: url.URL("ours"), Role: pg.RoleAPI})
	require.NoError(b, err)
	b.Cleanup(db.Close)
	store, err := postgres.New(db, make([]byte, 32), func() {})
	require.NoError(b, err)
	s := &messagingService{server: a.Server, token: token, account: newAccount(b, store)}
	owner.account = s.account.account
	return s
}

// owner is an account service that knows the owner of one account.
type owner struct {
	accountv1.UnimplementedInternalContextServiceServer
	account string
}

// ResolveContext implements accountv1.InternalContextServiceServer.
func (o *owner) ResolveContext(context.Context, *accountv1.ResolveContextRequest) (*accountv1.ResolveContextResponse, error) {
	return &accountv1.ResolveContextResponse{UserId: contactID, Memberships: []*accountv1.ContextMembership{
		{AccountId: o.account, AccountStatus: "active", Permissions: []string{"messages.send"}},
	}}, nil
}

// run measures the calls of all clients; connect makes one client's call.
func (s *messagingService) run(b *testing.B, connect func(*testing.B) func() error) {
	b.Helper()
	calls := make([]func() error, clients)
	for i := range calls {
		calls[i] = connect(b)
		require.NoError(b, calls[i]()) // statements are prepared, caches are warm
	}
	for b.Loop() {
		c := clock.System()
		took := make([][]time.Duration, clients)
		used, began := processor(b), c.Now()
		var calling sync.WaitGroup
		for i, call := range calls {
			calling.Go(func() {
				for range createCalls / clients {
					at := c.Now()
					if err := call(); err != nil {
						b.Error(err)
						return
					}
					took[i] = append(took[i], c.Now().Sub(at))
				}
			})
		}
		calling.Wait()
		all := slices.Concat(took...)
		b.ReportMetric(float64(len(all))/c.Now().Sub(began).Seconds(), "messages/s")
		b.ReportMetric(float64((processor(b)-used).Microseconds())/float64(len(all)), "cpu_us/message")
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2].Seconds()*1000, "p50_ms")
		b.ReportMetric(all[len(all)*99/100].Seconds()*1000, "p99_ms")
	}
	b.ReportMetric(0, "ns/op")
}

// overGRPC is a client with a connection of its own.
func (s *messagingService) overGRPC(b *testing.B) func() error {
	b.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(b.Context(), "tcp", "127.0.0.1:0")
	require.NoError(b, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	done := make(chan error, 1)
	go func() { done <- grpcserver.Serve(ctx, l, s.server) }()
	conn, err := grpcserver.Mesh{}.Dial("passthrough:///"+l.Addr().String(), "", clock.System())
	require.NoError(b, err)
	b.Cleanup(func() {
		require.NoError(b, conn.Close())
		stop()
		require.NoError(b, <-done)
	})
	return s.create(b, conn)
}

func (s *messagingService) create(b *testing.B, conn grpc.ClientConnInterface) func() error {
	b.Helper()
	client := messagingv1.NewMessageServiceClient(conn)
	call := metadata.AppendToOutgoingContext(b.Context(), "authorization", "Bearer "+s.token)
	return func() error {
		_, err := client.CreateMessage(call, &messagingv1.CreateMessageRequest{ChannelId: s.account.channel, DeliveryAddress: "abebe@example.org", MessageBody: createText})
		return err
	}
}

// overREST is a client with a connection of its own.
func (s *messagingService) overREST(b *testing.B) func() error {
	b.Helper()
	body, err := json.Marshal(map[string]string{"channel_id": s.account.channel, "delivery_address": "abebe@example.org", "message_body": createText})
	require.NoError(b, err)
	request := fmt.Appendf(nil, "POST /v1/messages HTTP/1.1\r\nHost: bench.example\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", s.token, len(body), body)
	c := dial(b, gateway(b, s.server))
	return func() error { return c.call(request, http.StatusCreated, nil) }
}
