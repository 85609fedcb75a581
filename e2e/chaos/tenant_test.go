package chaos_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
)

// tenant is an account of a row, and the client that keeps a log of what the API
// has accepted.
type tenant struct {
	*trial
	account, channel, template, group, token string
	from                                     string // who the channel's messages come from
	texts                                    bool   // they are text messages
	contacts                                 []string

	mu       sync.Mutex
	accepted []string            // ids of single messages
	sends    map[string][]string // contacts that each send must reach
}

// tenant makes an account with an e-mail channel, of which change may change what it
// likes, and contacts in one group.
func (r *trial) tenant(contacts int, change ...func(*messagingv1.CreateChannelRequest)) *tenant {
	r.t.Helper()
	x := &tenant{trial: r, sends: map[string][]string{}}
	x.signUp("owner" + uuid.NewString() + "@chaos.example")
	x.connect(change)
	x.fill(contacts)
	tp, err := messagingv1.NewTemplateServiceClient(r.messagingConn).CreateTemplate(x.ctx(), &messagingv1.CreateTemplateRequest{Name: "Hello", Subject: "Hello", Body: "Dear {FIRST_NAME}, hello."})
	require.NoError(r.t, err)
	x.template = tp.GetTemplate().GetId()
	r.of = append(r.of, x)
	return x
}

func (x *tenant) signUp(email string) {
	x.t.Helper()
	ctx := x.t.Context()
	_, err := x.people.Exec(ctx, "DELETE FROM attempt_limits")
	require.NoError(x.t, err)
	auth := accountv1.NewAuthServiceClient(x.accountConn)
	const password = "correct horse battery staple"
	r, err := auth.Register(ctx, &accountv1.RegisterRequest{Email: email, Password: password, FullName: "Chaos Owner", AccountName: "Chaos"})
	require.NoError(x.t, err)
	code, err := x.simulator.Code(ctx, email)
	require.NoError(x.t, err)
	v, err := auth.VerifyEmail(ctx, &accountv1.VerifyEmailRequest{Email: email, Code: code, RegistrationToken: r.GetRegistrationToken()})
	require.NoError(x.t, err)
	l, err := auth.Login(ctx, &accountv1.LoginRequest{Email: email, Password: password})
	require.NoError(x.t, err)
	x.account, x.token = v.GetAccountId(), l.GetAccessToken()
}

// ctx is that of the owner, with a new idempotency key.
func (x *tenant) ctx() context.Context { return x.withKey(uuid.NewString()) }

func (x *tenant) withKey(key string) context.Context {
	return metadata.AppendToOutgoingContext(x.t.Context(), "authorization", "Bearer "+x.token, "idempotency-key", key)
}

func (x *tenant) connect(change []func(*messagingv1.CreateChannelRequest)) {
	x.t.Helper()
	host, port, mode, plain, from, connections := "127.0.0.1", uint32(0), messagingv1.TlsMode_TLS_MODE_NONE, true, "office@chaos.example", int32(16)
	_, err := fmt.Sscan(portOf(x.provider.Addr()), &port)
	require.NoError(x.t, err)
	req := &messagingv1.CreateChannelRequest{Name: "Office", Connections: &connections, Credentials: &messagingv1.ChannelCredentials{
		Kind: &messagingv1.ChannelCredentials_Smtp{Smtp: &messagingv1.SmtpCredentials{Host: &host, Port: &port, TlsMode: &mode, AllowPlaintext: &plain, FromEmail: &from}},
	}}
	for _, f := range change {
		f(req)
	}
	client := messagingv1.NewChannelServiceClient(x.messagingConn)
	ch, err := client.CreateChannel(x.ctx(), req)
	require.NoError(x.t, err)
	x.from, x.texts = senderOf(req), req.GetCredentials().GetTwilio() != nil
	x.channel = ch.GetChannel().GetId()
	_, err = client.VerifyChannel(x.ctx(), &messagingv1.VerifyChannelRequest{ChannelId: x.channel})
	require.NoError(x.t, err)
}

// fill makes contacts in a group.
func (x *tenant) fill(n int) {
	x.t.Helper()
	groups := accountv1.NewContactGroupServiceClient(x.accountConn)
	g, err := groups.CreateContactGroup(x.ctx(), &accountv1.CreateContactGroupRequest{Name: "Everybody"})
	require.NoError(x.t, err)
	x.group = g.GetContactGroup().GetId()
	x.members(n, func(int, *accountv1.ContactInput) {})
}

// members makes n contacts in the group, each as change leaves it.
func (x *tenant) members(n int, change func(i int, c *accountv1.ContactInput)) {
	x.t.Helper()
	groups := accountv1.NewContactGroupServiceClient(x.accountConn)
	for len(x.contacts) < n {
		part := make([]*accountv1.ContactInput, min(1000, n-len(x.contacts)))
		for i := range part {
			part[i] = &accountv1.ContactInput{FirstName: "Person", Email: fmt.Sprintf("person%d@%s.example", len(x.contacts)+i, x.account)}
			change(len(x.contacts)+i, part[i])
		}
		made, err := accountv1.NewContactServiceClient(x.accountConn).BatchCreateContacts(x.ctx(), &accountv1.BatchCreateContactsRequest{Contacts: part})
		require.NoError(x.t, err)
		ids := make([]string, len(part))
		for i, res := range made.GetResults() {
			ids[i] = res.GetContact().GetId()
			require.NotEmpty(x.t, ids[i], res.GetCode())
		}
		_, err = groups.AddContacts(x.ctx(), &accountv1.AddContactsRequest{ContactGroupId: x.group, ContactIds: ids})
		require.NoError(x.t, err)
		x.contacts = append(x.contacts, ids...)
	}
}

// request is a single message to a number of one's own.
func (x *tenant) request(to string) *messagingv1.CreateMessageRequest {
	if x.texts {
		return &messagingv1.CreateMessageRequest{ChannelId: x.channel, DeliveryAddress: x.digits("+491", 11), MessageBody: "Hello."}
	}
	return &messagingv1.CreateMessageRequest{ChannelId: x.channel, DeliveryAddress: to + "@" + x.account + ".example", Subject: "Hello", MessageBody: "Hello."}
}

// create makes a single message and notes it when it is accepted.
func (x *tenant) create(ctx context.Context, to string) (id string, err error) {
	res, err := x.call(ctx, to)
	if err != nil {
		return "", err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.accepted = append(x.accepted, res.GetMessage().GetId())
	return res.GetMessage().GetId(), nil
}

// messages makes n single messages, each in a chunk of its own.
func (x *tenant) messages(n int) {
	x.t.Helper()
	for range n {
		_, err := x.create(x.ctx(), "single"+uuid.NewString()[:8])
		require.NoError(x.t, err)
	}
}

// proven lets the channel answer once: a channel that has not is called for one message
// at a time (ADR 0045).
func (x *tenant) proven() {
	x.t.Helper()
	id, err := x.create(x.ctx(), "first")
	require.NoError(x.t, err)
	x.eventually("the channel has answered", "SELECT status = 'sent' FROM messages WHERE id = $1", id)
}

// send starts a send to the whole group.
func (x *tenant) send() (id string) {
	x.t.Helper()
	return x.queue(x.toGroup())
}

// toGroup is a send to the whole group.
func (x *tenant) toGroup() *messagingv1.CreateGroupMessageRequest {
	return &messagingv1.CreateGroupMessageRequest{
		Name: "Everybody", ChannelId: x.channel, TemplateId: x.template, ContactGroupIds: []string{x.group},
		Status: messagingv1.GroupMessageStatus_GROUP_MESSAGE_STATUS_QUEUED,
	}
}

// queue starts a send that all contacts are to get. While a service that it needs is
// not back from the last break, the call is repeated with its key.
func (x *tenant) queue(req *messagingv1.CreateGroupMessageRequest) (id string) {
	x.t.Helper()
	ctx := x.ctx()
	var res *messagingv1.CreateGroupMessageResponse
	var err error
	require.Eventually(x.t, func() bool {
		res, err = messagingv1.NewGroupMessageServiceClient(x.messagingConn).CreateGroupMessage(ctx, req)
		return status.Code(err) != codes.Unavailable
	}, soon, blink, "the send is accepted")
	require.NoError(x.t, err)
	id = res.GetGroupMessage().GetId()
	x.sends[id] = x.contacts
	return id
}

// resend lets the channel send again what may have arrived.
func resend(req *messagingv1.CreateChannelRequest) {
	req.OnUnknown = messagingv1.UnknownOutcome_UNKNOWN_OUTCOME_RESEND
	interval := int32(1)
	req.RetryInterval = &interval
}
