package golden_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
	"github.com/turumba/turumba/sim"
)

// walk is one organisation's way through signing up, over one wire.
type walk struct {
	t    *testing.T
	w    *world.World
	over string
	vars map[string]string
}

// do makes a call, as who has the token in ${as}, and returns the answer.
func (k *walk) do(rpc, as string, body map[string]any) wire.Answer {
	k.t.Helper()
	md, err := wire.FindMethod("turumba." + rpc)
	require.NoError(k.t, err)
	request, _ := wire.Expand(any(body), k.vars).(map[string]any)
	got, err := k.w.Do(k.t.Context(), k.over, wire.Call{Method: md, Token: k.vars[as], Body: request})
	require.NoError(k.t, err)
	return got
}

// good makes a call that must be good and keeps parts of its answer.
func (k *walk) good(rpc, as string, body map[string]any, save map[string]string) wire.Answer {
	k.t.Helper()
	got := k.do(rpc, as, body)
	require.Empty(k.t, got.Reason, "%s over %s: %s %v", rpc, k.over, got.Detail, got.Fields)
	for name, path := range save {
		v, ok := wire.Lookup(got.Body, path)
		require.True(k.t, ok, "%s over %s has no %s", rpc, k.over, path)
		k.vars[name] = fmt.Sprint(v)
	}
	return got
}

var sixDigits = regexp.MustCompile(`[0-9]{6}`)

// signUp registers, verifies and logs in; the token is kept under the name.
func (k *walk) signUp(name string, with map[string]any) {
	k.t.Helper()
	email := fmt.Sprintf("%s-%s@walk.example", name, k.over)
	k.vars[name+"_email"] = email
	body := map[string]any{"email": email, "password": world.Password, "full_name": "Walker " + name}
	for field, v := range with {
		body[field] = v
	}
	k.good("account.v1.AuthService/Register", "", body, map[string]string{"registration": "registration_token"})
	code := sixDigits.FindString(k.w.Mail(k.t, email, "Your verification code"))
	k.good("account.v1.AuthService/VerifyEmail", "", map[string]any{"email": email, "code": code, "registration_token": "${registration}"}, map[string]string{name + "_id": "user_id", "account_of_" + name: "account_id"})
	k.good("account.v1.AuthService/Login", "", map[string]any{"email": email, "password": world.Password}, map[string]string{name: "access_token"})
}

// TestWalk is an organisation's first day: register, verify, log in, second factor,
// invite a colleague, who accepts; the colleague's role changes and ends, both seen
// within five seconds; an API key does the work of the user it was limited to; a
// code for a customer arrives; and texts reach a phone.
func TestWalk(t *testing.T) {
	t.Parallel()
	w := world.New(t)
	for _, over := range wire.All() {
		t.Run(over, func(t *testing.T) {
			t.Parallel()
			k := &walk{t: t, w: w, over: over, vars: map[string]string{}}
			k.signUp("owner", map[string]any{"account_name": "Walkers"})
			k.secondFactor()
			k.colleague()
			k.machine()
			k.code()
			k.texts()
		})
	}
}

func (k *walk) secondFactor() {
	k.t.Helper()
	k.good("account.v1.AuthService/SetupTotp", "owner", map[string]any{"password": world.Password}, map[string]string{"secret": "secret"})
	k.good("account.v1.AuthService/VerifyTotp", "owner", map[string]any{"code": "${totp:secret}"}, nil)
	k.good("account.v1.AuthService/Login", "", map[string]any{"email": "${owner_email}", "password": world.Password}, map[string]string{"session": "session"})
	k.good("account.v1.AuthService/AnswerChallenge", "", map[string]any{"session": "${session}", "code": "${totp+1:secret}"}, map[string]string{"owner": "access_token"})
	k.good("account.v1.ContextService/GetContext", "owner", nil, map[string]string{"account": "account_ids.0"})
}

// colleague joins with a role of the account's own, which then changes and ends.
func (k *walk) colleague() {
	k.t.Helper()
	k.good("account.v1.RoleService/CreateRole", "owner", map[string]any{"name": "Front desk", "permissions": []any{"contacts.read", "contacts.write"}}, map[string]string{"desk": "id"})
	k.good("account.v1.RoleService/CreateRole", "owner", map[string]any{"name": "Reader", "permissions": []any{"contacts.read"}}, map[string]string{"reader": "id"})
	email := fmt.Sprintf("colleague-%s@walk.example", k.over)
	k.good("account.v1.InvitationService/CreateInvitation", "owner", map[string]any{"email": email, "role_id": "${desk}"}, nil)
	token := world.InvitationToken(k.w.Mail(k.t, email, "You are invited"))
	k.signUp("colleague", map[string]any{"invitation_token": token})
	require.Equal(k.t, k.vars["account"], k.vars["account_of_colleague"])
	write := func() wire.Answer {
		return k.do("account.v1.ContactService/CreateContact", "colleague", map[string]any{"first_name": "Guest"})
	}
	read := func() wire.Answer { return k.do("account.v1.ContactService/ListContacts", "colleague", nil) }
	require.Empty(k.t, write().Reason)
	k.good("account.v1.MembershipService/UpdateMembership", "owner", map[string]any{"account_id": "${account}", "user_id": "${colleague_id}", "role_id": "${reader}"}, nil)
	k.soon("PERMISSION_DENIED", write)
	require.Empty(k.t, read().Reason)
	k.good("account.v1.MembershipService/DeleteMembership", "owner", map[string]any{"account_id": "${account}", "user_id": "${colleague_id}"}, nil)
	k.soon("PERMISSION_DENIED", read)
}

// soon waits for a reason, at most the five seconds that are promised.
func (k *walk) soon(reason string, call func() wire.Answer) {
	k.t.Helper()
	begin := k.w.Instance.Now()
	for got := call(); got.Reason != reason; got = call() {
		took := k.w.Instance.Now().Sub(begin)
		require.Less(k.t, took, 5*time.Second, "still %q (%s) over %s", got.Reason, got.Detail, k.over)
	}
}

// code sends one message to a contact and finds it in the mailbox.
func (k *walk) code() {
	k.t.Helper()
	host, port := k.w.Instance.Simulator.HostPort()
	smtp := map[string]any{"host": host, "port": port, "tls_mode": "none", "allow_plaintext": true, "from_email": "shop@walk.example"}
	k.good("messaging.v1.ChannelService/CreateChannel", "owner", map[string]any{"name": "Shop", "credentials": map[string]any{"smtp": smtp}}, nil)
	email := fmt.Sprintf("customer-%s@walk.example", k.over)
	k.good("account.v1.ContactService/CreateContact", "owner", map[string]any{"first_name": "Customer", "email": email}, map[string]string{"customer": "id"})
	k.good("messaging.v1.MessageService/CreateMessage", "owner", map[string]any{
		"channel_type": "email", "contact_id": "${customer}", "subject": "Code", "message_body": "Your code is 4711.",
	}, map[string]string{"message": "id"})
	require.Equal(k.t, "Your code is 4711.", strings.TrimSpace(k.w.Mail(k.t, email, "Your code")))
	k.becomes("message", "sent")
}

// texts sends by SMS: one message and a group send, each of which the provider took
// exactly once, and learns what a text costs before.
func (k *walk) texts() {
	k.t.Helper()
	provider := k.w.Instance.Simulator
	twilio := map[string]any{"account_sid": "AC00000000000000000000000000000001", "auth_token": "walk-token", "from_number": "+15550001111", "base_url": provider.API}
	k.good("messaging.v1.ChannelService/CreateChannel", "owner", map[string]any{"name": "Texts", "credentials": map[string]any{"twilio": twilio}}, map[string]string{"texts": "id"})
	k.good("messaging.v1.ChannelService/VerifyChannel", "owner", map[string]any{"channel_id": "${texts}"}, nil)
	phone := map[string]string{"grpc": "+251911000101", "rest": "+251911000102"}[k.over]
	k.good("account.v1.ContactService/CreateContact", "owner", map[string]any{"first_name": "Selam", "phone": phone}, map[string]string{"mobile": "id"})
	cost := k.good("messaging.v1.MessageService/EstimateMessage", "owner", map[string]any{"channel_type": "sms", "contact_ids": []any{"${mobile}"}, "message_body": strings.Repeat("ሰ", 71)}, nil)
	segments, _ := wire.Lookup(cost.Body, "segments")
	require.EqualValues(k.t, 2, segments, "%v", cost.Body)
	k.good("messaging.v1.MessageService/CreateMessage", "owner", map[string]any{
		"channel_type": "sms", "contact_id": "${mobile}", "message_body": "One text.",
	}, map[string]string{"text": "id"})
	k.becomes("text", "sent")
	k.good("account.v1.ContactGroupService/CreateContactGroup", "owner", map[string]any{"name": "Mobiles"}, map[string]string{"mobiles": "id"})
	k.good("account.v1.ContactGroupService/AddContacts", "owner", map[string]any{"contact_group_id": "${mobiles}", "contact_ids": []any{"${mobile}"}}, nil)
	k.good("messaging.v1.GroupMessageService/CreateGroupMessage", "owner", map[string]any{
		"channel_id": "${texts}", "message_body": "Dear {FIRST_NAME}, texts for all.", "contact_group_ids": []any{"${mobiles}"}, "status": "queued",
	}, map[string]string{"campaign": "id"})
	require.Eventually(k.t, func() bool {
		got := k.good("messaging.v1.GroupMessageService/GetGroupMessage", "owner", map[string]any{"group_message_id": "${campaign}"}, nil)
		status, _ := wire.Lookup(got.Body, "status")
		return status == "completed"
	}, time.Minute, 20*time.Millisecond)
	got, err := provider.Messages(k.t.Context(), phone, 10)
	require.NoError(k.t, err)
	require.Len(k.t, got, 2)
	require.Equal(k.t, []string{"Dear Selam, texts for all.", "One text."}, []string{strings.TrimSpace(got[0].Text), strings.TrimSpace(got[1].Text)})
	require.Equal(k.t, 2, k.journalled(phone))
	k.refusedText()
}

// refusedText: who sent STOP to the provider is suppressed and not written to again.
func (k *walk) refusedText() {
	k.t.Helper()
	create := func(save string) {
		k.good("messaging.v1.MessageService/CreateMessage", "owner", map[string]any{
			"channel_id": "${texts}", "delivery_address": "+15005550004", "message_body": "Never read.",
		}, map[string]string{save: "id"})
		got := k.becomes(save, "permanently_failed")
		code, _ := wire.Lookup(got.Body, "error.code")
		require.Equal(k.t, "opted_out", code)
	}
	create("stopped")
	create("stopped_again")
	list := k.good("messaging.v1.SuppressionService/ListSuppressions", "owner", map[string]any{"filter": []any{"channel_type:eq:sms"}}, nil)
	address, _ := wire.Lookup(list.Body, "data.0.address")
	require.Equal(k.t, "+15005550004", address)
	require.Zero(k.t, k.journalled("+15005550004"))
}

// becomes waits for the status of a message.
func (k *walk) becomes(name, status string) (got wire.Answer) {
	k.t.Helper()
	require.Eventually(k.t, func() bool {
		got = k.good("messaging.v1.MessageService/GetMessage", "owner", map[string]any{"message_id": "${" + name + "}"}, nil)
		now, _ := wire.Lookup(got.Body, "status")
		return now == status
	}, time.Minute, 20*time.Millisecond)
	return got
}

// journalled is how many messages to a number the provider took.
func (k *walk) journalled(number string) (n int) {
	k.t.Helper()
	file, err := os.Open(k.w.Instance.Simulator.Journal)
	require.NoError(k.t, err)
	defer func() { _ = file.Close() }() // it was only read
	for record, err := range sim.Records(file) {
		if errors.Is(err, sim.ErrTorn) {
			break // somebody else's, in the making
		}
		require.NoError(k.t, err)
		if record.To == number {
			n++
		}
	}
	return n
}

// machine does what a user with the same permissions does, and nothing else.
func (k *walk) machine() {
	k.t.Helper()
	k.good("account.v1.ApiKeyService/CreateApiKey", "owner", map[string]any{"name": "CRM", "permissions": []any{"contacts.read", "contacts.write", "channels.read"}},
		map[string]string{"key": "api_key.id", "key_secret": "secret"})
	k.good("account.v1.AuthService/IssueToken", "", map[string]any{"grant_type": "client_credentials", "client_id": "${key}", "client_secret": "${key_secret}"},
		map[string]string{"machine": "access_token"})
	k.good("account.v1.ContactService/CreateContact", "machine", map[string]any{"first_name": "By machine"}, map[string]string{"contact": "id"})
	k.good("account.v1.ContactService/GetContact", "machine", map[string]any{"contact_id": "${contact}"}, nil)
	k.good("messaging.v1.ChannelService/ListChannels", "machine", nil, nil)
	for rpc, body := range map[string]map[string]any{
		"account.v1.ContactService/DeleteContact":    {"contact_id": "${contact}"},
		"account.v1.RoleService/ListRoles":           nil,
		"messaging.v1.TemplateService/ListTemplates": nil,
		"account.v1.ApiKeyService/ListApiKeys":       nil,
	} {
		require.Equal(k.t, "PERMISSION_DENIED", k.do(rpc, "machine", body).Reason, rpc)
	}
	k.good("account.v1.ApiKeyService/RevokeApiKey", "owner", map[string]any{"api_key_id": "${key}"}, nil)
	k.soon("UNAUTHENTICATED", func() wire.Answer { return k.do("account.v1.ContactService/ListContacts", "machine", nil) })
	k.soon("UNAUTHENTICATED", func() wire.Answer { return k.do("messaging.v1.ChannelService/ListChannels", "machine", nil) })
}
