// Package world is the whole mesh with two organisations in it, for tests that
// call it from outside.
package world

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/e2e/wire"
	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/mongodb/mongotest"
	"github.com/turumba/turumba/kit/telemetry"
)

// Password is that of everybody in the world.
const Password = "correct horse battery staple"

// builder fills the mesh with what the cases refer to.
type builder struct {
	t         *testing.T
	in        *single.Instance
	conn      *grpcserver.Conn
	vars      map[string]string
	tokens    map[string]string
	auth      accountv1.AuthServiceClient
	contacts  accountv1.ContactServiceClient
	groups    accountv1.ContactGroupServiceClient
	channels  messagingv1.ChannelServiceClient
	templates messagingv1.TemplateServiceClient
	sends     messagingv1.GroupMessageServiceClient
	messages  messagingv1.MessageServiceClient
}

// World is the running mesh and what is in it.
type World struct {
	wire.Target
	// Instance is the mesh itself, DataDir its folder.
	Instance *single.Instance
	DataDir  string
	// Conn is a connection as a client outside the mesh has it.
	Conn *grpcserver.Conn
	// Tokens are the access tokens by caller name.
	Tokens map[string]string
	// Vars are the ids and names that requests use as ${name}.
	Vars map[string]string
}

// Token is the token of a caller: owner when as is empty, none for "none"; any
// other text is the token itself.
func (w *World) Token(as string) string {
	switch as {
	case "none":
		return ""
	case "":
		as = "owner"
	}
	if t, ok := w.Tokens[as]; ok {
		return t
	}
	return as
}

// New starts the whole mesh, on free ports and an own PostgreSQL, with two
// organisations. env are further settings. E2E_STORE=mongodb in the environment puts
// contacts into MongoDB, in every test.
func New(t *testing.T, env ...string) *World {
	t.Helper()
	return NewLogged(t, io.Discard, env...)
}

// NewLogged is New with a place for what the mesh logs.
func NewLogged(t *testing.T, log io.Writer, env ...string) *World {
	t.Helper()
	if os.Getenv("E2E_STORE") == "mongodb" {
		env = append(env, Documents(t))
	}
	in, dir := start(t, log, env...)
	conn, err := grpcserver.Mesh{}.Dial("passthrough:///"+in.GRPC, "", clock.System())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	b := &builder{
		t: t, in: in, conn: conn, vars: map[string]string{"nobody": "0190a5c8-1111-7000-8000-00000000dead"}, tokens: map[string]string{},
		auth: accountv1.NewAuthServiceClient(conn), contacts: accountv1.NewContactServiceClient(conn), groups: accountv1.NewContactGroupServiceClient(conn),
		channels: messagingv1.NewChannelServiceClient(conn), templates: messagingv1.NewTemplateServiceClient(conn),
		sends: messagingv1.NewGroupMessageServiceClient(conn), messages: messagingv1.NewMessageServiceClient(conn),
	}
	b.build()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return &World{
		Target: wire.Target{
			Conns: map[string]grpc.ClientConnInterface{"turumba.account.v1": conn, "turumba.mesh.v1": conn, "turumba.messaging.v1": conn},
			HTTP:  client, BaseURL: in.URL,
		},
		Instance: in, DataDir: dir, Conn: conn, Tokens: b.tokens, Vars: b.vars,
	}
}

// Start starts the whole mesh as `turumba up` does, on free ports and an own
// PostgreSQL, with nobody in it. env are further settings.
func Start(t *testing.T, env ...string) (in *single.Instance, dir string) {
	t.Helper()
	return start(t, io.Discard, env...)
}

func start(t *testing.T, log io.Writer, env ...string) (in *single.Instance, dir string) {
	t.Helper()
	dir = t.TempDir()
	cfg, err := config.Load[single.Config](append([]string{
		"HTTP_ADDR=127.0.0.1:0", "GRPC_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0", "TURUMBA_DATA_DIR=" + dir,
		"TURUMBA_OPERATORS=Operator@golden.example", "PUBLIC_URL=https://mail.golden.example",
	}, env...))
	require.NoError(t, err)
	in, err = single.Start(t.Context(), cfg, telemetry.NewLogger(log, cfg.LogLevel), true)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return in, dir
}

// Documents is the setting that puts contacts into MongoDB.
func Documents(t *testing.T) string {
	t.Helper()
	return "MONGODB_URL=" + mongotest.New(t, mongotest.Servers(t)[mongotest.FerretDB])
}

// databaseURL is where a database of the mesh is reached as its superuser.
func databaseURL(in *single.Instance, name string) string {
	account, messaging := in.DatabaseURLs()
	if name == "turumba_account" {
		return account
	}
	return messaging
}

func (b *builder) build() {
	b.signUp("owner", "owner@golden.example", "account_id")
	b.signUp("outsider", "outsider@golden.example", "foreign_account_id")
	b.signUp("viewer", "viewer@golden.example", "viewer_account_id")
	b.signUp("spare", "spare@golden.example", "spare_account_id")
	b.signUp("operator", "operator@golden.example", "operator_account_id")
	b.secondFactor("operator", "operator@golden.example")
	for _, over := range wire.All() {
		b.vars["code_"+over], b.vars["registration_"+over] = b.register("verify", "verify-"+over+"@golden.example")
		for _, name := range []string{"leaving", "changing", "resetting", "totp1", "totp2", "totp3", "totp4", "invited", "closing", "disabled", "suspended", "limited", "joiner", "leaver", "quitter"} {
			b.signUp(name+"_"+over, name+"-"+over+"@golden.example", name+"_account_id_"+over)
			b.vars[name+"_email_"+over], b.vars[name+"_user_id_"+over] = name+"-"+over+"@golden.example", b.vars[name+"_"+over+"_user_id"]
		}
		b.vars["reset_code_"+over] = b.forgot("resetting-" + over + "@golden.example")
	}
	b.onlyViewer()
	b.memberships()
	for _, over := range wire.All() {
		b.join("leaver_" + over)
		b.join("quitter_" + over)
		b.vars["invitation_token_"+over] = b.invite("invited-" + over + "@golden.example")
		b.vars["newcomer_token_"+over] = b.invite("newcomer-" + over + "@golden.example")
	}
	b.things("owner", "")
	b.things("outsider", "foreign_")
}

// register asks for an account and returns the code that came by mail, and the token of
// the registration.
func (b *builder) register(name, email string) (code, token string) {
	ctx := b.t.Context()
	forgetAttempts(b.t, b.in) // all of them come from one side
	r, err := b.auth.Register(ctx, &accountv1.RegisterRequest{Email: email, Password: Password, FullName: "Golden " + name, AccountName: "Org of " + name})
	require.NoError(b.t, err)
	code, err = b.in.Simulator.Code(ctx, email)
	require.NoError(b.t, err)
	return code, r.GetRegistrationToken()
}

// forgot asks for a new password and returns the code that came by mail.
func (b *builder) forgot(email string) (code string) {
	ctx := b.t.Context()
	_, err := b.auth.ForgotPassword(ctx, &accountv1.ForgotPasswordRequest{Email: email})
	require.NoError(b.t, err)
	return strings.Fields(b.mail(email, "The code to reset"))[7]
}

func (b *builder) mail(email, begins string) string {
	b.t.Helper()
	return mailTo(b.t, b.in, email, begins)
}

// Mail waits for a mail to an address whose text begins so.
func (w *World) Mail(t *testing.T, email, begins string) string {
	t.Helper()
	return mailTo(t, w.Instance, email, begins)
}

func mailTo(t *testing.T, in *single.Instance, email, begins string) (text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		mails, err := in.Simulator.Messages(t.Context(), email, 1)
		require.NoError(t, err)
		if len(mails) == 1 && strings.HasPrefix(mails[0].Text, begins) {
			text = mails[0].Text
		}
		return text != ""
	}, time.Minute, 20*time.Millisecond)
	return text
}

// InvitationToken is the token in the mail of an invitation.
func InvitationToken(mail string) string {
	_, after, _ := strings.Cut(mail, "inv_")
	return "inv_" + strings.Fields(after)[0]
}

// invite invites an address to the owner's account and returns the token that came
// by mail.
func (b *builder) invite(email string) (token string) {
	_, err := accountv1.NewInvitationServiceClient(b.conn).CreateInvitation(b.as("owner"), &accountv1.CreateInvitationRequest{
		AccountId: b.vars["account_id"], Email: email, RoleId: b.vars["role_viewer"],
	})
	require.NoError(b.t, err)
	return InvitationToken(b.mail(email, "You are invited"))
}

// signUp registers a user with an organisation and logs in.
func (b *builder) signUp(name, email, accountVar string) {
	code, registration := b.register(name, email)
	v, err := b.auth.VerifyEmail(b.t.Context(), &accountv1.VerifyEmailRequest{Email: email, Code: code, RegistrationToken: registration})
	require.NoError(b.t, err)
	b.vars[accountVar], b.vars[name+"_user_id"], b.vars[name+"_email"] = v.GetAccountId(), v.GetUserId(), email
	b.login(name, email)
}

func (b *builder) login(name, email string) {
	l, err := b.auth.Login(b.t.Context(), &accountv1.LoginRequest{Email: email, Password: Password})
	require.NoError(b.t, err)
	b.tokens[name] = l.GetAccessToken()
}

// secondFactor turns TOTP on for somebody who is logged in, and logs in by it.
func (b *builder) secondFactor(name, email string) {
	set, err := b.auth.SetupTotp(b.as(name), &accountv1.SetupTotpRequest{Password: Password})
	require.NoError(b.t, err)
	_, err = b.auth.VerifyTotp(b.as(name), &accountv1.VerifyTotpRequest{Code: wire.TotpCode(set.GetSecret(), false)})
	require.NoError(b.t, err)
	l, err := b.auth.Login(b.t.Context(), &accountv1.LoginRequest{Email: email, Password: Password})
	require.NoError(b.t, err)
	in, err := b.auth.AnswerChallenge(b.t.Context(), &accountv1.AnswerChallengeRequest{Session: l.GetSession(), Code: wire.TotpCode(set.GetSecret(), true)})
	require.NoError(b.t, err)
	b.tokens[name] = in.GetAccessToken()
}

func (b *builder) as(name string) context.Context {
	return metadata.AppendToOutgoingContext(b.t.Context(), "authorization", "Bearer "+b.tokens[name])
}

// onlyViewer takes the viewer's own organisation away, of which every user who
// registers is the owner; no RPC can.
func (b *builder) onlyViewer() {
	conn, err := pgx.Connect(b.t.Context(), databaseURL(b.in, "turumba_account"))
	require.NoError(b.t, err)
	_, err = conn.Exec(b.t.Context(), "DELETE FROM account_users WHERE account_id = $1", b.vars["viewer_account_id"])
	require.NoError(b.t, err)
	require.NoError(b.t, conn.Close(b.t.Context()))
}

// join makes somebody a Viewer of the owner's account: they are invited, and accept.
func (b *builder) join(name string) {
	token := b.invite(b.vars[name+"_email"])
	_, err := accountv1.NewInvitationServiceClient(b.conn).AcceptInvitation(b.as(name), &accountv1.AcceptInvitationRequest{Token: token})
	require.NoError(b.t, err)
}

// memberships makes the viewer a Viewer of the owner's account.
func (b *builder) memberships() {
	ctx := b.as("owner")
	roles, err := accountv1.NewRoleServiceClient(b.conn).ListRoles(ctx, &accountv1.ListRolesRequest{})
	require.NoError(b.t, err)
	for _, r := range roles.GetData() {
		b.vars["role_"+r.GetName()] = r.GetId()
	}
	b.vars["role_owner"], b.vars["role_viewer"], b.vars["role_agent"] = b.vars["role_Owner"], b.vars["role_Viewer"], b.vars["role_Agent"]
	foreign, err := accountv1.NewRoleServiceClient(b.conn).ListRoles(b.as("outsider"), &accountv1.ListRolesRequest{})
	require.NoError(b.t, err)
	b.vars["foreign_role_id"] = foreign.GetData()[0].GetId()
	b.join("viewer")
}

// things makes one of each for an organisation: contacts in a group, a channel,
// a template, a draft and a send that has ended.
func (b *builder) things(name, prefix string) {
	ctx := b.as(name)
	account := b.vars[prefix+"account_id"]
	c, err := b.contacts.CreateContact(ctx, &accountv1.CreateContactRequest{AccountId: account, FirstName: "Selam", LastName: "Tesfaye", Email: prefix + "selam@golden.example"})
	require.NoError(b.t, err)
	silent, err := b.contacts.CreateContact(ctx, &accountv1.CreateContactRequest{AccountId: account, FirstName: "Silent", Phone: "+251911000000"})
	require.NoError(b.t, err)
	b.vars[prefix+"silent_id"] = silent.GetContact().GetId()
	g, err := b.groups.CreateContactGroup(ctx, &accountv1.CreateContactGroupRequest{AccountId: account, Name: "Parents"})
	require.NoError(b.t, err)
	_, err = b.groups.AddContacts(ctx, &accountv1.AddContactsRequest{ContactGroupId: g.GetContactGroup().GetId(), ContactIds: []string{c.GetContact().GetId(), silent.GetContact().GetId()}})
	require.NoError(b.t, err)
	b.vars["large_csv"] = "name,external_id\n" + strings.Repeat("Somebody,\n", 50_000)
	b.vars[prefix+"contact_import_id"] = b.imported(ctx, account, "name,email\nSelam Tesfaye,"+prefix+"selam@golden.example\nNobody,not an address\n")
	host, port := b.in.Simulator.HostPort()
	port32, mode, plain, from := uint32(port), messagingv1.TlsMode_TLS_MODE_NONE, true, "office@golden.example"
	ch, err := b.channels.CreateChannel(ctx, &messagingv1.CreateChannelRequest{AccountId: account, Name: "Office", Credentials: &messagingv1.ChannelCredentials{
		Kind: &messagingv1.ChannelCredentials_Smtp{Smtp: &messagingv1.SmtpCredentials{Host: &host, Port: &port32, TlsMode: &mode, AllowPlaintext: &plain, FromEmail: &from}},
	}})
	require.NoError(b.t, err)
	b.vars[prefix+"sms_channel_id"] = b.smsChannel(ctx, account)
	tp, err := b.templates.CreateTemplate(ctx, &messagingv1.CreateTemplateRequest{AccountId: account, Name: "Hello", Subject: "Hello {FIRST_NAME}", Body: "Dear {FIRST_NAME}, from {ACCOUNT_NAME}."})
	require.NoError(b.t, err)
	for key, id := range map[string]string{
		"contact_id": c.GetContact().GetId(), "contact_group_id": g.GetContactGroup().GetId(), "channel_id": ch.GetChannel().GetId(), "template_id": tp.GetTemplate().GetId(),
	} {
		b.vars[prefix+key] = id
	}
	b.vars[prefix+"draft_id"] = b.send(ctx, prefix, messagingv1.GroupMessageStatus_GROUP_MESSAGE_STATUS_DRAFT)
	b.vars[prefix+"done_id"] = b.send(ctx, prefix, messagingv1.GroupMessageStatus_GROUP_MESSAGE_STATUS_QUEUED)
	require.Eventually(b.t, func() bool {
		got, err := b.sends.GetGroupMessage(ctx, &messagingv1.GetGroupMessageRequest{GroupMessageId: b.vars[prefix+"done_id"]})
		require.NoError(b.t, err)
		return got.GetGroupMessage().GetStatus() == messagingv1.GroupMessageStatus_GROUP_MESSAGE_STATUS_COMPLETED
	}, time.Minute, 20*time.Millisecond)
	list, err := b.messages.ListMessages(ctx, &messagingv1.ListMessagesRequest{Filter: []string{"group_message_id:eq:" + b.vars[prefix+"done_id"]}})
	require.NoError(b.t, err)
	b.vars[prefix+"message_id"] = list.GetData()[0].GetId()
	out, err := messagingv1.NewSuppressionServiceClient(b.conn).CreateSuppression(ctx, &messagingv1.CreateSuppressionRequest{
		AccountId: account, ChannelType: messagingv1.ChannelType_CHANNEL_TYPE_EMAIL, Address: prefix + "out@golden.example",
	})
	require.NoError(b.t, err)
	b.vars[prefix+"suppression_id"] = out.GetSuppression().GetId()
	gone, err := messagingv1.NewMessageErasureServiceClient(b.conn).CreateMessageErasure(ctx, &messagingv1.CreateMessageErasureRequest{
		AccountId: account, DeliveryAddress: prefix + "gone@golden.example",
	})
	require.NoError(b.t, err)
	b.vars[prefix+"message_erasure_id"] = gone.GetMessageErasure().GetId()
	for _, suffix := range []string{"", "_" + wire.GRPC, "_" + wire.REST} {
		b.vars[prefix+"failed_message_id"+suffix] = b.failed(ctx, account, b.vars[prefix+"channel_id"])
		b.vars[prefix+"failed_send_id"+suffix] = b.failedSend(ctx, prefix)
	}
}

// smsChannel is a channel by the simulator's Twilio.
func (b *builder) smsChannel(ctx context.Context, accountID string) string {
	sid, token, from, base := "AC00000000000000000000000000000001", "sim-token", "+15550001111", b.in.Simulator.API
	ch, err := b.channels.CreateChannel(ctx, &messagingv1.CreateChannelRequest{AccountId: accountID, Name: "Texts", Credentials: &messagingv1.ChannelCredentials{
		Kind: &messagingv1.ChannelCredentials_Twilio{Twilio: &messagingv1.TwilioCredentials{AccountSid: &sid, AuthToken: &token, FromNumber: &from, BaseUrl: &base}},
	}})
	require.NoError(b.t, err)
	return ch.GetChannel().GetId()
}

// failed sends a message to somebody who does not exist and returns its id once it
// has failed.
func (b *builder) failed(ctx context.Context, accountID, channelID string) string {
	m, err := b.messages.CreateMessage(ctx, &messagingv1.CreateMessageRequest{
		AccountId: accountID, ChannelId: channelID, DeliveryAddress: "nouser-x@golden.example", MessageBody: "x",
	})
	require.NoError(b.t, err)
	require.Eventually(b.t, func() bool {
		got, err := b.messages.GetMessage(ctx, &messagingv1.GetMessageRequest{MessageId: m.GetMessage().GetId()})
		require.NoError(b.t, err)
		return got.GetMessage().GetStatus() == messagingv1.MessageStatus_MESSAGE_STATUS_PERMANENTLY_FAILED
	}, time.Minute, 20*time.Millisecond)
	return m.GetMessage().GetId()
}

// failedSend sends to somebody who does not exist and returns the send's id once it has
// failed.
func (b *builder) failedSend(ctx context.Context, prefix string) string {
	resp, err := b.sends.CreateGroupMessage(ctx, &messagingv1.CreateGroupMessageRequest{
		AccountId: b.vars[prefix+"account_id"], Name: "Failed", ChannelId: b.vars[prefix+"channel_id"], TemplateId: b.vars[prefix+"template_id"],
		Recipients: []*messagingv1.AddressRecipient{{Address: "nouser-y@golden.example", Name: "Y"}},
		Status:     messagingv1.GroupMessageStatus_GROUP_MESSAGE_STATUS_QUEUED,
	})
	require.NoError(b.t, err)
	id := resp.GetGroupMessage().GetId()
	require.Eventually(b.t, func() bool {
		got, err := b.sends.GetGroupMessage(ctx, &messagingv1.GetGroupMessageRequest{GroupMessageId: id})
		require.NoError(b.t, err)
		return got.GetGroupMessage().GetStatus() == messagingv1.GroupMessageStatus_GROUP_MESSAGE_STATUS_FAILED
	}, time.Minute, 20*time.Millisecond)
	return id
}

// imported imports a file to its end and returns the import's id.
func (b *builder) imported(ctx context.Context, accountID, file string) string {
	client := accountv1.NewContactImportServiceClient(b.conn)
	stream, err := client.ImportContacts(ctx)
	require.NoError(b.t, err)
	settings := &accountv1.ContactImportSettings{AccountId: accountID, FileName: "people.csv"}
	require.NoError(b.t, stream.Send(&accountv1.ImportContactsRequest{Part: &accountv1.ImportContactsRequest_Settings{Settings: settings}}))
	require.NoError(b.t, stream.Send(&accountv1.ImportContactsRequest{Part: &accountv1.ImportContactsRequest_Data{Data: []byte(file)}}))
	resp, err := stream.CloseAndRecv()
	require.NoError(b.t, err)
	id := resp.GetContactImport().GetId()
	require.Eventually(b.t, func() bool {
		got, err := client.GetContactImport(ctx, &accountv1.GetContactImportRequest{ContactImportId: id})
		require.NoError(b.t, err)
		return got.GetContactImport().GetStatus() == accountv1.ContactImportStatus_CONTACT_IMPORT_STATUS_COMPLETED
	}, time.Minute, 20*time.Millisecond)
	return id
}

func (b *builder) send(ctx context.Context, prefix string, status messagingv1.GroupMessageStatus) string {
	resp, err := b.sends.CreateGroupMessage(ctx, &messagingv1.CreateGroupMessageRequest{
		AccountId: b.vars[prefix+"account_id"], Name: fmt.Sprint(status), ChannelId: b.vars[prefix+"channel_id"], TemplateId: b.vars[prefix+"template_id"],
		ContactGroupIds: []string{b.vars[prefix+"contact_group_id"]}, Status: status,
	})
	require.NoError(b.t, err)
	return resp.GetGroupMessage().GetId()
}
