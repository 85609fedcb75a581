package app_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/services/account/app"
	"github.com/turumba/turumba/services/account/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, pgtest.Goleak()...) }

// mailbox is where the service's mails arrive, in order per address.
type mailbox struct {
	mu    sync.Mutex
	mails map[string]chan string
	fails int
}

// fail refuses the next n mails.
func (m *mailbox) fail(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fails = n
}

func (m *mailbox) of(address string) chan string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mails[address] == nil {
		m.mails[address] = make(chan string, 100)
	}
	return m.mails[address]
}

// Send implements identity.Mailer.
func (m *mailbox) Send(_ context.Context, to, subject, text string) error {
	m.mu.Lock()
	refused := m.fails > 0
	m.fails--
	m.mu.Unlock()
	if refused {
		return errors.New("the mail server is down")
	}
	m.of(to) <- subject + "\n" + text
	return nil
}

// next waits for the next mail to an address.
func (m *mailbox) next(t *testing.T, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	select {
	case mail := <-m.of(address):
		return mail
	case <-ctx.Done():
		require.Fail(t, "no mail came", address)
		return ""
	}
}

// code waits for the next mail with a verification code.
func (m *mailbox) code(t *testing.T, address string) string {
	t.Helper()
	return regexp.MustCompile(`[0-9]{6}`).FindString(m.next(t, address))
}

// world is the account service on a database of its own.
type world struct {
	conn, worker grpc.ClientConnInterface
	server       *grpcserver.Server
	clock        *clock.Fake
	mail         *mailbox
	db           *pgtest.Database
	auth         accountv1.AuthServiceClient
	contacts     accountv1.ContactServiceClient
	groups       accountv1.ContactGroupServiceClient
	registration string // token of the last registration in a user pool
}

// start starts the service; change alters what it stands on.
func start(t *testing.T, change ...func(*app.Config, *app.Deps)) *world {
	t.Helper()
	mail := &mailbox{mails: map[string]chan string{}}
	now := clock.NewFake(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	d := pgtest.New(t, postgres.Migrations()...)
	cfg := app.Config{DatabaseURL: config.Secret(d.URL), Issuer: "http://test", ClientID: "test"}
	deps := app.Deps{Logger: telemetry.Discard(), Clock: now, MasterKey: bytes.Repeat([]byte{7}, 32), Mailer: mail}
	for _, c := range change {
		c(&cfg, &deps)
	}
	a, err := app.New(t.Context(), cfg, deps)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		a.Close()
	})
	conn := a.Server.Conn("")
	return &world{
		conn: conn, worker: a.Server.Conn("worker"), server: a.Server, clock: now, mail: mail, db: d, auth: accountv1.NewAuthServiceClient(conn),
		contacts: accountv1.NewContactServiceClient(conn), groups: accountv1.NewContactGroupServiceClient(conn),
	}
}

const password = "correct horse battery"

// signUp registers a user with an account and returns a context with the token.
func (w *world) signUp(t *testing.T, email string) (ctx context.Context, userID, accountID string) {
	t.Helper()
	r, err := w.auth.Register(t.Context(), &accountv1.RegisterRequest{Email: email, Password: password, FullName: "Ada King Lovelace", AccountName: "School of " + email})
	require.NoError(t, err)
	v, err := w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: email, Code: w.mail.code(t, email), RegistrationToken: r.GetRegistrationToken()})
	require.NoError(t, err)
	l, err := w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: email, Password: password})
	require.NoError(t, err)
	return with(t.Context(), l.GetAccessToken()), v.GetUserId(), v.GetAccountId()
}

func with(ctx context.Context, token string, md ...string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(append(md, "authorization", "Bearer "+token)...))
}

func reason(t *testing.T, want errorv1.Reason, err error) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, want, apierr.From(err).Reason, "%v", err)
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	w := start(t)
	const email = "Ada@Example.org"
	register := func() *accountv1.RegisterResponse {
		r, err := w.auth.Register(t.Context(), &accountv1.RegisterRequest{Email: email, Password: password, FullName: "Ada", AccountName: "A"})
		require.NoError(t, err)
		return r
	}
	first := register()
	_, err := w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: email, Password: password})
	reason(t, errorv1.Reason_REASON_EMAIL_NOT_VERIFIED, err)
	_, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: email, Password: "another password"})
	reason(t, errorv1.Reason_REASON_INVALID_CREDENTIALS, err)

	old := w.mail.code(t, "ada@example.org")
	_, err = w.auth.ResendVerification(t.Context(), &accountv1.ResendVerificationRequest{Email: email, RegistrationToken: first.GetRegistrationToken()})
	require.NoError(t, err)
	code := w.mail.code(t, "ada@example.org")
	if old != code {
		_, err = w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: email, Code: old, RegistrationToken: first.GetRegistrationToken()})
		reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
	}
	_, err = w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: email, Code: code})
	reason(t, errorv1.Reason_REASON_VALIDATION_FAILED, err)
	verify := func() (*accountv1.VerifyEmailResponse, error) {
		return w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: email, Code: code, RegistrationToken: first.GetRegistrationToken()})
	}
	v, err := verify()
	require.NoError(t, err)
	again, err := verify()
	require.NoError(t, err)
	require.Equal(t, v.GetAccountId(), again.GetAccountId(), "verifying again answers the same")

	known := register()
	require.Equal(t, first.GetNext(), known.GetNext(), "the same answer for a known address")
	require.Len(t, known.GetRegistrationToken(), len(first.GetRegistrationToken()))
	require.Contains(t, w.mail.next(t, "ada@example.org"), "have an account already")
	_, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: email, Password: password})
	require.NoError(t, err, "the second registration changed nothing")
	_, err = w.auth.Register(t.Context(), &accountv1.RegisterRequest{Email: "x@y.example", Password: "aaaaaaaaaaaaaa", FullName: "X", AccountName: "A"})
	reason(t, errorv1.Reason_REASON_WEAK_PASSWORD, err)
}

func TestWrongCodesEnd(t *testing.T) {
	t.Parallel()
	w := start(t)
	r, err := w.auth.Register(t.Context(), &accountv1.RegisterRequest{Email: "a@b.example", Password: password, FullName: "A", AccountName: "A"})
	require.NoError(t, err)
	good := w.mail.code(t, "a@b.example")
	wrong := "000000"
	if good == wrong {
		wrong = "000001"
	}
	for range 5 {
		_, err = w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: "a@b.example", Code: wrong, RegistrationToken: r.GetRegistrationToken()})
		reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
	}
	_, err = w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: "a@b.example", Code: good, RegistrationToken: r.GetRegistrationToken()})
	reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
}

func TestContextAndRoles(t *testing.T) {
	t.Parallel()
	w := start(t)
	ctx, userID, accountID := w.signUp(t, "owner@example.org")
	c, err := accountv1.NewContextServiceClient(w.conn).GetContext(ctx, &accountv1.GetContextRequest{})
	require.NoError(t, err)
	require.Equal(t, userID, c.GetUserId())
	require.Equal(t, []string{accountID}, c.GetAccountIds())
	require.Contains(t, c.GetMemberships()[0].GetPermissions(), "accounts.delete")
	roles, err := accountv1.NewRoleServiceClient(w.conn).ListRoles(ctx, &accountv1.ListRolesRequest{Sort: []string{"name:asc"}})
	require.NoError(t, err)
	var names []string
	for _, r := range roles.GetData() {
		names = append(names, r.GetName())
	}
	require.Equal(t, []string{"Admin", "Agent", "Owner", "Viewer"}, names)
	me, err := accountv1.NewUserServiceClient(w.conn).GetMe(ctx, &accountv1.GetMeRequest{})
	require.NoError(t, err)
	require.Equal(t, "Ada King", me.GetUser().GetGivenName())
	require.Equal(t, "Lovelace", me.GetUser().GetFamilyName())
}

func TestMemberships(t *testing.T) {
	t.Parallel()
	p := startPeople(t)
	other, otherID := p.join(t, "agent@example.org", p.role(t, "Admin"))
	_, err := p.invitations.CreateInvitation(p.owner, &accountv1.CreateInvitationRequest{AccountId: p.accountID, Email: "agent@example.org", RoleId: p.role(t, "Viewer")})
	reason(t, errorv1.Reason_REASON_ALREADY_MEMBER, err)
	_, err = p.members.UpdateMembership(other, &accountv1.UpdateMembershipRequest{AccountId: p.accountID, UserId: otherID, RoleId: p.role(t, "Owner")})
	reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, err)
	_, err = p.members.DeleteMembership(p.owner, &accountv1.DeleteMembershipRequest{AccountId: p.accountID, UserId: p.ownerID})
	reason(t, errorv1.Reason_REASON_LAST_OWNER, err)
	_, err = p.members.UpdateMembership(p.owner, &accountv1.UpdateMembershipRequest{AccountId: p.accountID, UserId: p.ownerID, RoleId: p.role(t, "Viewer")})
	reason(t, errorv1.Reason_REASON_LAST_OWNER, err)
	list, err := p.members.ListMemberships(other, &accountv1.ListMembershipsRequest{AccountId: p.accountID})
	require.NoError(t, err)
	require.Len(t, list.GetData(), 2)
	_, err = p.members.DeleteMembership(p.owner, &accountv1.DeleteMembershipRequest{AccountId: p.accountID, UserId: otherID})
	require.NoError(t, err)
	_, err = p.members.ListMemberships(other, &accountv1.ListMembershipsRequest{AccountId: p.accountID})
	reason(t, errorv1.Reason_REASON_NOT_FOUND, err)
}

func TestContacts(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, accountID := w.signUp(t, "owner@example.org")
	stranger, _, _ := w.signUp(t, "stranger@example.org")
	meta, err := structpb.NewStruct(map[string]any{"city": "Adama", "age": 30})
	require.NoError(t, err)
	c, err := w.contacts.CreateContact(owner, &accountv1.CreateContactRequest{FirstName: "Abebe", LastName: "Bekele", Email: "ABEBE@example.org", Phone: "+251911000001", Tags: []string{"b", "a"}, Metadata: meta})
	require.NoError(t, err)
	id := c.GetContact().GetId()
	require.Equal(t, accountID, c.GetContact().GetAccountId())
	require.Equal(t, "ABEBE@example.org", c.GetContact().GetEmail(), "as it was written")
	require.Equal(t, "Abebe Bekele", c.GetContact().GetName())

	_, err = w.contacts.CreateContact(owner, &accountv1.CreateContactRequest{Email: "abebe@example.org"})
	reason(t, errorv1.Reason_REASON_DUPLICATE_EMAIL, err)
	require.Equal(t, id, apierr.From(err).Meta["existing_id"])
	_, err = w.contacts.CreateContact(owner, &accountv1.CreateContactRequest{Phone: "+251911000001"})
	reason(t, errorv1.Reason_REASON_DUPLICATE_PHONE, err)
	_, err = w.contacts.CreateContact(stranger, &accountv1.CreateContactRequest{Email: "abebe@example.org"})
	require.NoError(t, err, "unique in one account, not between them")
	_, err = w.contacts.CreateContact(owner, &accountv1.CreateContactRequest{})
	reason(t, errorv1.Reason_REASON_VALIDATION_FAILED, err)

	for _, foreign := range []string{id, "0190a5c8-1111-7000-8000-00000000dead"} {
		_, err = w.contacts.GetContact(stranger, &accountv1.GetContactRequest{ContactId: foreign})
		reason(t, errorv1.Reason_REASON_NOT_FOUND, err)
		_, err = w.contacts.DeleteContact(stranger, &accountv1.DeleteContactRequest{ContactId: foreign})
		reason(t, errorv1.Reason_REASON_NOT_FOUND, err)
		_, err = w.contacts.UpdateContact(stranger, &accountv1.UpdateContactRequest{ContactId: foreign, Contact: &accountv1.ContactUpdate{Name: "x"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}}})
		reason(t, errorv1.Reason_REASON_NOT_FOUND, err)
	}
	u, err := w.contacts.UpdateContact(owner, &accountv1.UpdateContactRequest{ContactId: id, Contact: &accountv1.ContactUpdate{Language: "am"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"language", "metadata.age"}}})
	require.NoError(t, err)
	require.Equal(t, "am", u.GetContact().GetLanguage())
	require.Equal(t, map[string]any{"city": "Adama"}, u.GetContact().GetMetadata().AsMap())
	require.Equal(t, "ABEBE@example.org", u.GetContact().GetEmail())

	for filter, want := range map[string]int{
		"email:eq:abebe@example.org": 1, "name:icontains:BEKE": 1, "first_name:icontains:ABE": 1, "tags:in:a,z": 1, "tags:eq:z": 0,
		"metadata.city:eq:Adama": 1, "metadata.city:eq:Accra": 0, "phone:is_null": 0, "id:eq:" + id: 1,
	} {
		list, err := w.contacts.ListContacts(owner, &accountv1.ListContactsRequest{Filter: []string{filter}})
		require.NoError(t, err, filter)
		require.Len(t, list.GetData(), want, filter)
	}
	_, err = w.contacts.DeleteContact(owner, &accountv1.DeleteContactRequest{ContactId: id})
	require.NoError(t, err)
}

func TestContactIdentities(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, accountID := w.signUp(t, "owner@example.org")
	create := func(c *accountv1.CreateContactRequest) (*accountv1.Contact, error) {
		resp, err := w.contacts.CreateContact(owner, c)
		return resp.GetContact(), err
	}
	_, err := create(&accountv1.CreateContactRequest{Phone: "0911 22 33 44"})
	reason(t, errorv1.Reason_REASON_VALIDATION_FAILED, err)
	require.Contains(t, apierr.From(err).Fields[0].Message, "default country")
	_, err = accountv1.NewAccountServiceClient(w.conn).UpdateAccount(owner, &accountv1.UpdateAccountRequest{
		AccountId: accountID, Account: &accountv1.AccountUpdate{DefaultCountry: "ET", Name: "x"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"default_country"}},
	})
	require.NoError(t, err)
	for in, want := range map[string]string{"0911 22 33 44": "+251911223344", "+1 (202) 555-0143": "+12025550143", "011-551-2345": "+251115512345"} {
		c, err := create(&accountv1.CreateContactRequest{Phone: in})
		require.NoError(t, err, in)
		require.Equal(t, want, c.GetPhone())
	}
	for _, bad := range []string{"call me", "+999", "12"} {
		_, err = create(&accountv1.CreateContactRequest{Phone: bad})
		reason(t, errorv1.Reason_REASON_VALIDATION_FAILED, err)
		require.Equal(t, "phone", apierr.From(err).Fields[0].Field)
	}
	first, err := create(&accountv1.CreateContactRequest{ExternalId: "crm-1", PreferredChannelType: "telegram", Identifiers: map[string]string{"telegram": "4711", "whatsapp": "251911"}})
	require.NoError(t, err)
	require.Equal(t, "4711", first.GetIdentifiers()["telegram"])
	for _, c := range []*accountv1.CreateContactRequest{
		{ExternalId: "crm-1"},
		{FirstName: "A", Identifiers: map[string]string{"telegram": "4711"}},
		{FirstName: "A", Identifiers: map[string]string{"whatsapp": "251911"}},
	} {
		_, err = create(c)
		reason(t, errorv1.Reason_REASON_DUPLICATE_IDENTIFIER, err)
		require.Equal(t, first.GetId(), apierr.From(err).Meta["existing_id"])
	}
	_, err = create(&accountv1.CreateContactRequest{FirstName: "A", Identifiers: map[string]string{"messenger": "4711"}})
	require.NoError(t, err, "unique for each platform")
	for filter, want := range map[string]int{"external_id:eq:crm-1": 1, "external_id:in:crm-1,crm-2": 1, "phone:endswith:3344": 1} {
		list, err := w.contacts.ListContacts(owner, &accountv1.ListContactsRequest{Filter: []string{filter}})
		require.NoError(t, err, filter)
		require.Len(t, list.GetData(), want, filter)
	}
	u, err := w.contacts.UpdateContact(owner, &accountv1.UpdateContactRequest{ContactId: first.GetId(), Contact: &accountv1.ContactUpdate{Phone: "0911 99 88 77"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"phone"}}})
	require.NoError(t, err)
	require.Equal(t, "+251911998877", u.GetContact().GetPhone())
	require.Equal(t, "crm-1", u.GetContact().GetExternalId())
}

func TestCreateIsIdempotent(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, _ := w.signUp(t, "owner@example.org")
	keyed := metadata.AppendToOutgoingContext(owner, "idempotency-key", "k1")
	req := &accountv1.CreateContactRequest{Email: "abebe@example.org"}
	first, err := w.contacts.CreateContact(keyed, req)
	require.NoError(t, err)
	second, err := w.contacts.CreateContact(keyed, req)
	require.NoError(t, err)
	require.Equal(t, first.GetContact().GetId(), second.GetContact().GetId())
	_, err = w.contacts.CreateContact(keyed, &accountv1.CreateContactRequest{Email: "other@example.org"})
	reason(t, errorv1.Reason_REASON_IDEMPOTENCY_KEY_REUSED, err)
}

func TestGroupsAndRecipients(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, accountID := w.signUp(t, "owner@example.org")
	stranger, _, _ := w.signUp(t, "stranger@example.org")
	var inputs []*accountv1.ContactInput
	for i := range 250 {
		inputs = append(inputs, &accountv1.ContactInput{FirstName: "P", Email: fmt.Sprintf("p%d@example.org", i)})
	}
	inputs = append(inputs, &accountv1.ContactInput{Email: "p7@example.org"}, &accountv1.ContactInput{})
	batch, err := w.contacts.BatchCreateContacts(owner, &accountv1.BatchCreateContactsRequest{Contacts: inputs})
	require.NoError(t, err)
	require.Len(t, batch.GetResults(), 252)
	require.Equal(t, "DUPLICATE_EMAIL", batch.GetResults()[250].GetCode())
	require.Equal(t, batch.GetResults()[7].GetContact().GetId(), batch.GetResults()[250].GetExistingId())
	require.Equal(t, "VALIDATION_FAILED", batch.GetResults()[251].GetCode())
	var ids []string
	for _, r := range batch.GetResults()[:250] {
		ids = append(ids, r.GetContact().GetId())
	}
	group := func(name string, members []string) string {
		g, err := w.groups.CreateContactGroup(owner, &accountv1.CreateContactGroupRequest{Name: name})
		require.NoError(t, err)
		added, err := w.groups.AddContacts(owner, &accountv1.AddContactsRequest{ContactGroupId: g.GetContactGroup().GetId(), ContactIds: members})
		require.NoError(t, err)
		require.EqualValues(t, len(members), added.GetAdded())
		return g.GetContactGroup().GetId()
	}
	one, two := group("one", ids[:200]), group("two", ids[100:])
	_, err = w.groups.CreateContactGroup(owner, &accountv1.CreateContactGroupRequest{Name: "one"})
	reason(t, errorv1.Reason_REASON_DUPLICATE_NAME, err)
	_, err = w.groups.AddContacts(stranger, &accountv1.AddContactsRequest{ContactGroupId: one, ContactIds: ids[:1]})
	reason(t, errorv1.Reason_REASON_NOT_FOUND, err)
	g, err := w.groups.GetContactGroup(owner, &accountv1.GetContactGroupRequest{ContactGroupId: one})
	require.NoError(t, err)
	require.EqualValues(t, 200, g.GetContactGroup().GetContactCount())
	members, err := w.groups.ListGroupContacts(owner, &accountv1.ListGroupContactsRequest{ContactGroupId: one, Limit: 50})
	require.NoError(t, err)
	require.Len(t, members.GetData(), 50)
	if !members.GetMeta().GetTotalIsEstimate() { // the machine may be slow
		require.EqualValues(t, 200, members.GetMeta().GetTotal())
	}

	stream := func(cursor string) []string {
		s, err := accountv1.NewRecipientServiceClient(w.worker).StreamRecipients(t.Context(), &accountv1.StreamRecipientsRequest{
			AccountId: accountID, ContactGroupIds: []string{one, two}, Cursor: cursor, PageSize: 30,
		})
		require.NoError(t, err)
		var got []string
		for {
			resp, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return got
			}
			require.NoError(t, err)
			for _, r := range resp.GetRecipients() {
				got = append(got, r.GetContactId())
			}
		}
	}
	all := stream("")
	require.Len(t, all, 250, "each contact once")
	require.IsIncreasing(t, all)
	require.Equal(t, all[120:], stream(all[119]), "resumable from a cursor")
	_, err = w.groups.RemoveContact(owner, &accountv1.RemoveContactRequest{ContactGroupId: one, ContactId: ids[0]})
	require.NoError(t, err)
	_, err = w.groups.DeleteContactGroup(owner, &accountv1.DeleteContactGroupRequest{ContactGroupId: one})
	require.NoError(t, err)
	gone, err := accountv1.NewRecipientServiceClient(w.worker).StreamRecipients(t.Context(), &accountv1.StreamRecipientsRequest{AccountId: accountID, ContactGroupIds: []string{one, two}})
	require.NoError(t, err)
	_, err = gone.Recv()
	reason(t, errorv1.Reason_REASON_NOT_FOUND, err)
}
