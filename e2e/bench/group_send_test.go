package bench_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/bus/inproc"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/services/messaging"
	messagingapp "github.com/turumba/turumba/services/messaging/app"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
	worker "github.com/turumba/turumba/worker/app"
	"github.com/turumba/turumba/worker/relay"
)

// sendSize is how many recipients one round has.
const sendSize = 100_000

// sendLimit is how long one send may take: longer means that it hangs.
const sendLimit = 5 * time.Minute

// BenchmarkGroupSend is a group send to an adapter that does nothing, with the
// whole ledger, beside a prototype that writes the same rows of the same table
// without row-level security, lanes, gate or crash safety: the reference of the goal.
func BenchmarkGroupSend(b *testing.B) { besidePrototype(b, ledgerPrototype) }

// BenchmarkGroupSendBesideBare is the same beside a prototype with a table of its own:
// eight columns and one key, with room neither for tenants, channels and errors nor for
// "one message per contact".
func BenchmarkGroupSendBesideBare(b *testing.B) { besidePrototype(b, barePrototype) }

func besidePrototype(b *testing.B, of func(b *testing.B, url string) *prototype) {
	b.Helper()
	s := server(b)
	require.NoError(b, pg.EnsureDatabase(b.Context(), s.URL("ours")))
	require.NoError(b, pg.EnsureDatabase(b.Context(), s.URL("prototype")))
	logStatements(b, s, "ours")
	w := newSender(b, s.URL("ours"), nothing{})
	p := of(b, s.URL("prototype"))
	compare(b, "messages", func() {}, w.send, p.send)
}

// nothing is an adapter that accepts everything at once.
type nothing struct{}

func (nothing) Type() string                                  { return messaging.TypeEmail }
func (nothing) Provider() string                              { return messaging.ProviderSMTP }
func (nothing) Capabilities() channel.Capabilities            { return channel.Capabilities{MaxInFlight: 256} }
func (nothing) Open(channel.Settings) (channel.Sender, error) { return nothing{}, nil }
func (nothing) Close() error                                  { return nil }

func (nothing) Send(_ context.Context, m channel.Message) channel.Result {
	return channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK, ProviderIDs: []string{m.ID}}
}

// people is an account service; a contact group has as many members as its id says.
type people struct {
	accountv1.UnimplementedInternalContextServiceServer
	accountv1.UnimplementedRecipientServiceServer
	// pages are the first contacts, made before they are asked for.
	pages []*accountv1.StreamRecipientsResponse
}

// groupOf is the id of the contact group with n members.
func groupOf(n int) string { return fmt.Sprintf("00000000-0000-7000-9000-%012d", n) }

const peoplePage = 1000

// newPeople has sendSize contacts ready.
func newPeople() *people {
	p := &people{}
	for i := range sendSize / peoplePage {
		p.pages = append(p.pages, p.page(i))
	}
	return p
}

func (p *people) page(n int) *accountv1.StreamRecipientsResponse {
	if n < len(p.pages) {
		return p.pages[n]
	}
	page := &accountv1.StreamRecipientsResponse{}
	for i := n * peoplePage; i < (n+1)*peoplePage; i++ {
		page.Recipients = append(page.Recipients, &accountv1.Recipient{
			ContactId: fmt.Sprintf("00000000-0000-7000-8000-%012d", i+1), FirstName: "Abebe", LastName: "Bikila", Email: fmt.Sprintf("p%d@example.org", i),
		})
	}
	return page
}

func (p *people) GetSender(context.Context, *accountv1.GetSenderRequest) (*accountv1.GetSenderResponse, error) {
	return &accountv1.GetSenderResponse{AccountName: "School"}, nil
}

func (p *people) StreamRecipients(req *accountv1.StreamRecipientsRequest, stream grpc.ServerStreamingServer[accountv1.StreamRecipientsResponse]) error {
	var n int
	if _, err := fmt.Sscanf(req.GetContactGroupIds()[0], "00000000-0000-7000-9000-%d", &n); err != nil {
		return err
	}
	for i := range n / peoplePage {
		if err := stream.Send(p.page(i)); err != nil {
			return err
		}
	}
	rest := n % peoplePage
	if rest == 0 {
		return nil
	}
	return stream.Send(&accountv1.StreamRecipientsResponse{Recipients: p.page(n / peoplePage).Recipients[:rest]})
}

func (p *people) Verify(context.Context, string) (auth.Claims, error) {
	return auth.Claims{}, errors.New("no users here")
}

func (p *people) Context(context.Context, auth.Claims) (auth.Caller, error) {
	return auth.Caller{}, errors.New("no users here")
}

// sender is a worker on the whole schema.
type sender struct {
	b        *testing.B
	store    *postgres.Store
	account  string
	channel  string
	template string
}

func newSender(b *testing.B, url string, adapter channel.Adapter) *sender {
	b.Helper()
	require.NoError(b, messagingapp.Migrate(b.Context(), url))
	w, err := newWorker(b.Context(), url, newPeople(), channel.Adapters{adapter})
	require.NoError(b, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		require.NoError(b, <-done)
	})
	return newAccount(b, openStore(b, url, w.Wake))
}

// newWorker is a worker with an account service in its process.
func newWorker(ctx context.Context, url string, p *people, adapters channel.Adapters) (*worker.App, error) {
	directory, err := grpcserver.New(grpcserver.Config{Name: "account", Logger: telemetry.Discard(), Clock: clock.System(), Verifier: p, Context: p})
	if err != nil {
		return nil, err
	}
	accountv1.RegisterInternalContextServiceServer(directory, p)
	accountv1.RegisterRecipientServiceServer(directory, p)
	bus, err := inproc.New(relay.Topology(false, false), inproc.Options{Logger: telemetry.Discard()})
	if err != nil {
		return nil, err
	}
	return worker.New(ctx, worker.Config{DatabaseURL: config.Secret(url), Roles: worker.AllRoles()}, worker.Deps{
		Logger: telemetry.Discard(), Clock: clock.System(), MasterKey: make([]byte, 32), Account: directory.ReaderConn("worker"), Adapters: adapters, Bus: bus,
	})
}

// openStore is the database as the API has it.
func openStore(b *testing.B, url string, wake func()) *postgres.Store {
	b.Helper()
	db, err := pg.Open(b.Context(), pg.Config{URL: url, Role: pg.RoleAPI})
	require.NoError(b, err)
	b.Cleanup(db.Close)
	store, err := postgres.New(db, make([]byte, 32), wake)
	require.NoError(b, err)
	return store
}

// newAccount is another account with the same worker, and a channel and a template
// that nothing asks much of.
func newAccount(b *testing.B, store *postgres.Store) *sender {
	b.Helper()
	return newAccountWith(b, store, "Dear {FIRST_NAME} {LAST_NAME}, school starts on Monday.", messaging.SMTP{Host: "unused.example"}, 300)
}

// newAccountWith is an account with a text to send and a server to send it to.
func newAccountWith(b *testing.B, store *postgres.Store, body string, to messaging.SMTP, connections int32) *sender {
	b.Helper()
	s := &sender{b: b, store: store, account: messaging.NewID(), channel: messaging.NewID(), template: messaging.NewID()}
	t := &messaging.Template{ID: s.template, AccountID: s.account, Name: "T", Subject: "S {FIRST_NAME}", Body: body, IsActive: true}
	require.NoError(b, t.Prepare())
	s.tx(func(ctx context.Context, tx *pg.Tx) error { return s.store.CreateTemplate(ctx, tx, t) })
	s.connect(to, connections)
	return s
}

// connect makes the sender's channel.
func (s *sender) connect(to messaging.SMTP, connections int32) {
	s.b.Helper()
	s.tx(func(ctx context.Context, tx *pg.Tx) error {
		return s.store.CreateChannel(ctx, tx, &messaging.Channel{
			ID: s.channel, AccountID: s.account, Name: "C", ChannelType: messaging.TypeEmail, Provider: messaging.ProviderSMTP, Status: messaging.ChannelConnected,
			IsEnabled: true, Connections: connections, OnUnknown: messaging.UnknownHold, Credentials: messaging.Credentials{SMTP: &to}, Secrets: map[string]messaging.Secret{}, Sealed: map[string][]byte{},
		}, nil)
	})
}

// another is the same account with a further channel.
func (s *sender) another() *sender {
	s.b.Helper()
	more := *s
	more.channel = messaging.NewID()
	more.connect(messaging.SMTP{Host: "unused.example"}, 300)
	return &more
}

func (s *sender) tx(fn func(ctx context.Context, tx *pg.Tx) error) {
	s.b.Helper()
	ctx := s.b.Context()
	require.NoError(s.b, s.store.DB().InTx(ctx, []string{s.account}, func(tx *pg.Tx) error { return fn(ctx, tx) }))
}

// send runs one group send to its end.
func (s *sender) send() int {
	s.end(s.begin(sendSize), sendSize)
	return sendSize
}

// begin queues a group send to n contacts.
func (s *sender) begin(n int) (id string) {
	g := &messaging.GroupMessage{
		ID: messaging.NewID(), AccountID: s.account, ChannelID: s.channel, TemplateID: s.template, Status: messaging.GroupQueued, ContactGroupIDs: []string{groupOf(n)},
	}
	s.tx(func(ctx context.Context, tx *pg.Tx) error {
		return s.store.CreateGroupMessage(ctx, tx, g, nil, messaging.Allowance{})
	})
	return g.ID
}

// end waits until all n messages of the send are sent.
func (s *sender) end(id string, n int) {
	ctx, cancel := context.WithTimeout(s.b.Context(), sendLimit) // go test has no limit for benchmarks
	defer cancel()
	for {
		now, err := s.store.GroupMessage(ctx, []string{s.account}, id)
		require.NoError(s.b, err)
		if now.Final() {
			require.EqualValues(s.b, n, now.Sent)
			return
		}
		require.NoErrorf(s.b, clock.Sleep(ctx, clock.System(), 20*time.Millisecond), "the send is %s with %d sent", now.Status, now.Sent)
	}
}
