package app_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/inproc"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
	"github.com/turumba/turumba/worker/app"
	"github.com/turumba/turumba/worker/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, pgtest.Goleak()...) }

// patience is how long something may take that must happen.
const patience = 30 * time.Second

var masterKey = bytes.Repeat([]byte{7}, 32)

// provider is an adapter whose answers the test writes. It keeps what it was
// given to send.
type provider struct {
	mu     sync.Mutex
	answer func(channel.Message) channel.Result
	sent   map[string]int // by address
	hold   chan struct{}  // closed: sends go on
	busy   int            // calls at the same time
	most   int            // the most of them
	calls  []time.Time
}

func (p *provider) Type() string     { return messaging.TypeEmail }
func (p *provider) Provider() string { return messaging.ProviderSMTP }

func (p *provider) Capabilities() channel.Capabilities {
	return channel.Capabilities{Subject: true, HTML: true, Unsubscribe: true, MaxAttachments: 10, MaxAttachmentBytes: 1 << 20}
}

func (p *provider) Open(channel.Settings) (channel.Sender, error) { return p, nil }
func (p *provider) Close() error                                  { return nil }

func (p *provider) Send(_ context.Context, m channel.Message) channel.Result {
	p.mu.Lock()
	p.sent[m.To]++
	p.busy++
	p.most, p.calls = max(p.most, p.busy), append(p.calls, clock.System().Now())
	answer, hold := p.answer, p.hold
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.busy--
	}()
	<-hold
	return answer(m)
}

// called are the times of all calls so far, and the most of them at a time.
func (p *provider) called() (at []time.Time, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls), p.most
}

func (p *provider) set(answer func(channel.Message) channel.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// received is how many messages came, and how many addresses more than once.
func (p *provider) received() (distinct, again int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.sent {
		distinct++
		again += n - 1
	}
	return distinct, again
}

func accepted(m channel.Message) channel.Result {
	return channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK, ProviderIDs: []string{"id-" + m.ID}}
}

// directory is the account service as the worker sees it.
type directory struct {
	accountv1.UnimplementedInternalContextServiceServer
	accountv1.UnimplementedRecipientServiceServer

	mu         sync.Mutex
	recipients []*accountv1.Recipient
	failAfter  int // pages; 0 means never
	blocked    []string
	days       map[string]int32 // for which accounts keep texts
	excluded   string           // the contact group whose members are every third recipient
}

func (d *directory) ListBlockedAccounts(context.Context, *accountv1.ListBlockedAccountsRequest) (*accountv1.ListBlockedAccountsResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &accountv1.ListBlockedAccountsResponse{AccountIds: d.blocked}, nil
}

// block makes these the accounts that must not send.
func (d *directory) block(ids ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.blocked = ids
}

func (d *directory) ListMessageRetention(context.Context, *accountv1.ListMessageRetentionRequest) (*accountv1.ListMessageRetentionResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &accountv1.ListMessageRetentionResponse{}
	for id, days := range d.days {
		resp.Accounts = append(resp.Accounts, &accountv1.MessageRetention{AccountId: id, Days: days})
	}
	return resp, nil
}

// keep makes these the days for which accounts keep texts; others keep them for ever.
func (d *directory) keep(days map[string]int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.days = days
}

func (d *directory) GetSender(context.Context, *accountv1.GetSenderRequest) (*accountv1.GetSenderResponse, error) {
	return &accountv1.GetSenderResponse{AccountName: "School", SenderName: "Ada", SenderEmail: "ada@example.org"}, nil
}

func (d *directory) StreamRecipients(req *accountv1.StreamRecipientsRequest, stream grpc.ServerStreamingServer[accountv1.StreamRecipientsResponse]) error {
	d.mu.Lock()
	list, failAfter := d.recipients, d.failAfter
	d.failAfter = 0
	d.mu.Unlock()
	var page []*accountv1.Recipient
	pages := 0
	for i, r := range list {
		if r.GetContactId() <= req.GetCursor() || slices.Contains(req.GetContactGroupIds(), d.excluded) && i%3 != 0 {
			continue
		}
		if page = append(page, r); len(page) < int(req.GetPageSize()) {
			continue
		}
		if err := stream.Send(&accountv1.StreamRecipientsResponse{Recipients: page}); err != nil {
			return err
		}
		page = nil
		if pages++; pages == failAfter {
			return errors.New("the account service went away")
		}
	}
	if len(page) == 0 {
		return nil
	}
	return stream.Send(&accountv1.StreamRecipientsResponse{Recipients: page})
}

func (d *directory) Verify(context.Context, string) (auth.Claims, error) {
	return auth.Claims{}, errors.New("no users here")
}

func (d *directory) Context(context.Context, auth.Claims) (auth.Caller, error) {
	return auth.Caller{}, errors.New("no users here")
}

// world is a worker with a database, a provider and an account service.
type world struct {
	t         *testing.T
	admin     *pgxpool.Pool
	store     *postgres.Store // as the API
	work      *postgres.Store // as a worker
	provider  *provider
	directory *directory
	account   string
	channel   *messaging.Channel
	template  *messaging.Template
	url       string
	publicURL string
	conn      grpc.ClientConnInterface
	answer    func() // ends calls that hang
}

func newWorld(t *testing.T) *world {
	t.Helper()
	d := pgtest.New(t, postgres.Migrations()...)
	w := &world{
		t: t, url: d.URL, account: messaging.NewID(), directory: &directory{},
		provider: &provider{answer: accepted, sent: map[string]int{}, hold: make(chan struct{})},
	}
	close(w.provider.hold)
	var err error
	w.admin, err = pgxpool.New(t.Context(), d.URL)
	require.NoError(t, err)
	t.Cleanup(w.admin.Close)
	w.store, err = postgres.New(d.Open(t, pg.RoleAPI), make([]byte, 32), func() {})
	require.NoError(t, err)
	w.work, err = postgres.New(d.Open(t, pg.RoleWorker), make([]byte, 32), func() {})
	require.NoError(t, err)
	require.NoError(t, w.work.Upkeep(t.Context()))
	server, err := grpcserver.New(grpcserver.Config{Name: "account", Logger: telemetry.Discard(), Clock: clock.System(), Verifier: w.directory, Context: w.directory})
	require.NoError(t, err)
	accountv1.RegisterInternalContextServiceServer(server, w.directory)
	accountv1.RegisterRecipientServiceServer(server, w.directory)
	w.conn = server.Conn("worker")
	w.setUpAccount()
	return w
}

func (w *world) setUpAccount() {
	w.t.Helper()
	w.channel = &messaging.Channel{
		ID: messaging.NewID(), AccountID: w.account, Name: "Office", ChannelType: messaging.TypeEmail, Provider: messaging.ProviderSMTP,
		Status: messaging.ChannelConnected, IsEnabled: true, RetryCount: 2, RetryInterval: 1, Connections: 88, // a window of a send may be out at once
		OnUnknown:   messaging.UnknownHold,
		Credentials: messaging.Credentials{SMTP: &messaging.SMTP{Host: "mail.example.org", Port: 587, FromEmail: "office@example.org"}},
		Secrets:     map[string]messaging.Secret{}, Sealed: map[string][]byte{},
	}
	w.template = &messaging.Template{
		ID: messaging.NewID(), AccountID: w.account, Name: "T", Subject: "Hello {FIRST_NAME}", Body: "Dear {FIRST_NAME}, {CITY}.",
		FallbackStrategy: messaging.FallbackSkip, IsActive: true,
	}
	require.NoError(w.t, w.template.Prepare())
	w.tx(func(ctx context.Context, tx *pg.Tx) error {
		return errors.Join(w.store.CreateChannel(ctx, tx, w.channel, nil), w.store.CreateTemplate(ctx, tx, w.template))
	})
}

func (w *world) tx(fn func(context.Context, *pg.Tx) error) {
	w.t.Helper()
	ctx := w.t.Context()
	require.NoError(w.t, w.store.DB().InTx(ctx, []string{w.account}, func(tx *pg.Tx) error { return fn(ctx, tx) }))
}

// people makes n recipients in order of id; change may alter one.
func (w *world) people(n int, change func(i int, r *accountv1.Recipient)) {
	w.directory.mu.Lock()
	defer w.directory.mu.Unlock()
	for i := range n {
		city, err := structpb.NewStruct(map[string]any{"city": "Adama"})
		require.NoError(w.t, err)
		r := &accountv1.Recipient{
			ContactId: fmt.Sprintf("00000000-0000-7000-8000-%012d", i+1), FirstName: fmt.Sprintf("P%d", i),
			Email: fmt.Sprintf("p%d@example.org", i), Metadata: city,
		}
		if change != nil {
			change(i, r)
		}
		w.directory.recipients = append(w.directory.recipients, r)
	}
}

// queue makes a send that starts at once.
func (w *world) queue(exclude ...string) string {
	w.t.Helper()
	g := &messaging.GroupMessage{
		ID: messaging.NewID(), AccountID: w.account, ChannelID: w.channel.ID, TemplateID: w.template.ID, Status: messaging.GroupQueued,
		ContactGroupIDs: []string{uuid.NewString()}, ExcludeContactIDs: exclude,
	}
	w.tx(func(ctx context.Context, tx *pg.Tx) error {
		return w.store.CreateGroupMessage(ctx, tx, g, nil, messaging.Allowance{})
	})
	return g.ID
}

// start runs a worker until stop is called or the test ends.
func (w *world) start(roles ...string) (stop func()) {
	w.t.Helper()
	b, err := inproc.New(relay.Topology(false, false), inproc.Options{Logger: telemetry.Discard()})
	require.NoError(w.t, err)
	return w.startOn(b, roles...)
}

// startOn is start with a bus of the test's own, which is closed with the worker.
func (w *world) startOn(b bus.Bus, roles ...string) (stop func()) {
	w.t.Helper()
	if len(roles) == 0 {
		roles = app.AllRoles()
	}
	a, err := app.New(w.t.Context(), app.Config{DatabaseURL: config.Secret(w.url), PublicURL: w.publicURL, Roles: roles}, app.Deps{
		Logger: telemetry.Discard(), Clock: clock.System(), MasterKey: masterKey, Account: w.conn, Adapters: channel.Adapters{w.provider}, Bus: b,
	})
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(w.t, <-done)
		a.Close()
		require.NoError(w.t, b.Close())
	})
	w.t.Cleanup(stop)
	return stop
}

func (w *world) group(id string) *messaging.GroupMessage {
	w.t.Helper()
	g, err := w.store.GroupMessage(w.t.Context(), []string{w.account}, id)
	require.NoError(w.t, err)
	return g
}

// until waits for a state of the send and checks the ledger on the way.
func (w *world) until(id string, what string, ok func(*messaging.GroupMessage) bool) *messaging.GroupMessage {
	w.t.Helper()
	var g *messaging.GroupMessage
	require.Eventually(w.t, func() bool {
		w.check()
		g = w.group(id)
		return ok(g)
	}, patience, 20*time.Millisecond, what)
	return g
}

func (w *world) final(id string) *messaging.GroupMessage {
	w.t.Helper()
	return w.until(id, "the send ends", (*messaging.GroupMessage).Final)
}

func (w *world) check() {
	w.t.Helper()
	problems, err := postgres.CheckLedger(w.t.Context(), w.admin)
	require.NoError(w.t, err)
	require.Empty(w.t, problems)
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	_, err := w.admin.Exec(w.t.Context(), sql, args...)
	require.NoError(w.t, err)
}

func (w *world) count(sql string, args ...any) (n int) {
	w.t.Helper()
	require.NoError(w.t, w.admin.QueryRow(w.t.Context(), sql, args...).Scan(&n))
	return n
}
