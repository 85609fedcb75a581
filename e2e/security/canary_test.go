package security_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/bus/rabbitmq/rabbittest"
)

// TestCanary is S-80: secrets of every kind go through the whole mesh, also to
// providers that say them back, and are looked for in all that comes out of it.
func TestCanary(t *testing.T) {
	t.Parallel()
	s := report.suite("canary")
	logs, spans, admin := &sink{}, newSpanSink(t), freeAddress(t)
	providers := newEchoes(t)
	broker := rabbittest.Start(t)
	w := world.NewLogged(t, logs, "LOG_LEVEL=DEBUG", "AMQP_URL="+broker.URL(), "OTEL_EXPORTER_OTLP_ENDPOINT="+spans.url, "ADMIN_ADDR="+admin, "EGRESS_ALLOW="+providers.allow())
	b := &birds{t: t, w: w, secrets: map[string]string{"the password of everybody": world.Password}, answers: &sink{}}
	for _, over := range wire.All() {
		b.people(over)
		b.channels(over, providers)
	}
	b.covered()
	queues := queuesOf(t, broker.URL())
	places := map[string][]byte{
		"answers": b.answers.bytes(), "logs": logs.bytes(), "metrics": get(t, "http://"+admin+"/metrics"), "queues": queues,
		"turumba_account": dump(t, w, "turumba_account"), "turumba_messaging": dump(t, w, "turumba_messaging"),
	}
	require.Eventually(t, func() bool { return bytes.Contains(spans.bytes(), []byte("send sms twilio")) }, time.Minute, 50*time.Millisecond, "spans arrive")
	places["traces"] = spans.bytes()
	for place, proof := range map[string]string{
		"answers": "fingerprint", "logs": "provider called", "metrics": "turumba_messages_dispatched_total", "queues": "message.dispatch.sms",
		"turumba_account": "canary-grpc@golden.example", "turumba_messaging": "fingerprint",
	} {
		require.Contains(t, string(places[place]), proof, "%s are not what was to be searched", place)
	}
	bytesSeen := 0
	for _, place := range slices.Sorted(maps.Keys(places)) {
		bytesSeen += len(places[place])
		for _, name := range slices.Sorted(maps.Keys(b.secrets)) {
			form := leaks(places[place], b.secrets[name])
			s.check(t, form == "", "%s is in the %s, as %s", name, place, form)
		}
	}
	s.coverage = fmt.Sprintf("S-80; %d secrets, raw, base64, hex and percent-encoded, in %d places of %d KiB; %d answers of providers said one back", len(b.secrets), len(places), bytesSeen>>10, providers.said.Load())
	require.Positive(t, providers.said.Load())
}

// leaks names the form in which a text holds the secret; empty for none.
func leaks(text []byte, secret string) string {
	percent := ""
	for _, c := range []byte(secret) {
		percent += fmt.Sprintf("%%%02X", c)
	}
	forms := map[string]string{
		"it is": secret, "hex": hex.EncodeToString([]byte(secret)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(secret))), "percent-encoded": percent,
	}
	for shift := range 3 {
		// What stands before it shifts it: the characters at both ends also hold others.
		whole := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + secret))
		core := strings.TrimRight(whole[(8*shift+5)/6:], "=")
		core = core[:len(core)-2]
		forms[fmt.Sprintf("base64 at %d", shift)] = core
		forms[fmt.Sprintf("base64url at %d", shift)] = strings.NewReplacer("+", "-", "/", "_").Replace(core)
	}
	for name, form := range forms {
		if bytes.Contains(text, []byte(form)) {
			return name
		}
	}
	return ""
}

// TestLeaksAreFound holds the search itself to what it must find.
func TestLeaksAreFound(t *testing.T) {
	t.Parallel()
	secret := "CANARY-" + uuid.NewString()
	for name, text := range map[string]string{
		"raw": "x" + secret + "y", "json": `{"a":"` + secret + `"}`, "hex": `\x00` + hex.EncodeToString([]byte(secret)),
		"basic": base64.StdEncoding.EncodeToString([]byte("AC1:" + secret)), "plain": base64.StdEncoding.EncodeToString([]byte("\x00user\x00" + secret)),
		"url": base64.RawURLEncoding.EncodeToString([]byte("ab" + secret + "more")),
	} {
		require.NotEmpty(t, leaks([]byte(text), secret), name)
	}
	require.Empty(t, leaks([]byte("CANARY-"+uuid.NewString()), secret))
}

// sink collects what is written to it.
type sink struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *sink) bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.buf.Bytes())
}

// birds are the secrets, and the calls that carry them.
type birds struct {
	t       *testing.T
	w       *world.World
	secrets map[string]string // by what they are
	answers *sink
	set     map[string]bool // fields of credentials
}

// secret makes one and notes what it is.
func (b *birds) secret(name string) string {
	b.secrets[name] = "CANARY-" + uuid.NewString()
	return b.secrets[name]
}

// call makes a call as token and keeps its answer; issued names the fields of the
// answer that are secrets which it is there to tell.
func (b *birds) call(over, rpc, token string, body map[string]any, issued ...string) map[string]any {
	b.t.Helper()
	md, err := wire.FindMethod("turumba." + rpc)
	require.NoError(b.t, err)
	// With a key, so that answers are looked for where they are kept too.
	got, err := b.w.Do(b.t.Context(), over, wire.Call{Method: md, Body: body, Token: token, Key: "canary-" + uuid.NewString()})
	require.NoError(b.t, err)
	fields, _ := got.Body.(map[string]any)
	for _, name := range issued {
		text, ok := fields[name].(string)
		require.True(b.t, ok && text != "", "%s over %s: %s", rpc, over, got.Raw)
		b.secrets[over+": "+rpc+" "+name] = text
		delete(fields, name)
	}
	delete(fields, "otpauth_uri") // holds the secret that it is there to tell
	raw, err := json.Marshal(got)
	require.NoError(b.t, err)
	_, _ = b.answers.Write(raw)
	return fields
}

func (b *birds) issuedBy(over, rpc, name string) string { return b.secrets[over+": "+rpc+" "+name] }

// people carries passwords, codes, tokens and keys of a newcomer.
func (b *birds) people(over string) {
	b.t.Helper()
	const auth = "account.v1.AuthService/"
	email, password := "canary-"+over+"@golden.example", b.secret(over+": a password")
	b.call(over, auth+"Register", "", map[string]any{"email": email, "password": password, "full_name": "Canary", "account_name": "Birds"}, "registration_token")
	b.call(over, auth+"Register", "", map[string]any{"email": "no address", "password": b.secret(over + ": a password of a bad request"), "full_name": "C", "account_name": "B"})
	code, err := b.w.Instance.Simulator.Code(b.t.Context(), email)
	require.NoError(b.t, err)
	b.call(over, auth+"VerifyEmail", "", map[string]any{"email": email, "code": code, "registration_token": b.secret(over + ": a wrong registration token")})
	b.call(over, auth+"ResendVerification", "", map[string]any{"email": email, "registration_token": b.secret(over + ": a registration token of nothing")})
	b.call(over, auth+"VerifyEmail", "", map[string]any{"email": email, "code": code, "registration_token": b.issuedBy(over, auth+"Register", "registration_token")})
	b.call(over, auth+"Login", "", map[string]any{"email": email, "password": b.secret(over + ": a wrong password")})
	b.call(over, auth+"Login", "", map[string]any{"email": email, "password": password}, "access_token", "refresh_token", "device_token")
	b.call(over, auth+"Login", "", map[string]any{"email": email, "password": "wrong", "device_token": b.issuedBy(over, auth+"Login", "device_token")})
	b.call(over, auth+"ForgotPassword", "", map[string]any{"email": email, "device_token": b.secret(over + ": a made-up device")})
	token := b.issuedBy(over, auth+"Login", "access_token")
	b.call(over, auth+"SetupTotp", token, map[string]any{"password": b.secret(over + ": a wrong password for TOTP")})
	b.call(over, auth+"SetupTotp", token, map[string]any{"password": password}, "secret")
	b.call(over, auth+"ChangePassword", token, map[string]any{"current_password": b.secret(over + ": a wrong current password"), "new_password": b.secret(over + ": a new password")})
	b.call(over, "account.v1.ApiKeyService/CreateApiKey", token, map[string]any{"name": "CRM", "permissions": []any{"contacts.read"}}, "secret")
	b.call(over, "account.v1.ApiKeyService/ListApiKeys", token, nil)
	b.call(over, "account.v1.ApiKeyService/ListApiKeys", token+"x", nil) // a token that nearly is one
	b.call(over, auth+"Refresh", "", map[string]any{"refresh_token": b.secret(over + ": a wrong refresh token")})
	b.call(over, auth+"IssueToken", "", map[string]any{"grant_type": "client_credentials", "client_id": uuid.NewString(), "client_secret": b.secret(over + ": a wrong key")})
}

// channels carries credentials of every kind to providers that say them back.
func (b *birds) channels(over string, providers *echoes) {
	b.t.Helper()
	for _, kind := range []string{"smtp", "smtp that fails later", "twilio", "twilio by key"} {
		b.channel(over, kind, providers)
	}
}

func (b *birds) channel(over, kind string, providers *echoes) {
	b.t.Helper()
	const rpc = "messaging.v1.ChannelService/"
	settings, secret := providers.settings(kind)
	name := strings.Fields(kind)[0]
	set := func(what string) map[string]any {
		with := maps.Clone(settings)
		with[secret] = b.secret(over + ": " + kind + " " + secret + what)
		return map[string]any{name: with}
	}
	b.noteField(name, secret)
	owner := b.w.Token("owner")
	bad := set(" of a bad request")
	bad[name] = providers.spoilt(name, bad[name])
	b.call(over, rpc+"CreateChannel", owner, map[string]any{"account_id": b.w.Vars["account_id"], "name": kind, "credentials": bad})
	made := b.call(over, rpc+"CreateChannel", owner, map[string]any{"account_id": b.w.Vars["account_id"], "name": kind, "credentials": set("")})
	id, ok := made["id"].(string)
	require.True(b.t, ok, "%v", made)
	b.call(over, rpc+"UpdateChannel", owner, map[string]any{"channel_id": id, "credentials": map[string]any{name: map[string]any{secret: b.secret(over + ": " + kind + " " + secret + " changed")}}})
	b.call(over, rpc+"VerifyChannel", owner, map[string]any{"channel_id": id})
	for _, to := range providers.recipients(name) {
		b.send(over, owner, id, to)
	}
	b.call(over, rpc+"GetChannel", owner, map[string]any{"channel_id": id})
	b.call(over, rpc+"ListChannels", owner, nil)
}

// send sends one message and follows it until something came of it.
func (b *birds) send(over, token, channelID, to string) {
	b.t.Helper()
	const rpc = "messaging.v1.MessageService/"
	m := b.call(over, rpc+"CreateMessage", token, map[string]any{"account_id": b.w.Vars["account_id"], "channel_id": channelID, "delivery_address": to, "message_body": "tweet"})
	id, ok := m["id"].(string)
	require.True(b.t, ok, "%v", m)
	require.Eventually(b.t, func() bool {
		status := b.call(over, rpc+"GetMessage", token, map[string]any{"message_id": id})["status"]
		c := b.call(over, "messaging.v1.ChannelService/GetChannel", token, map[string]any{"channel_id": channelID})
		return (status != "queued" && status != "sending") || c["status"] == "error"
	}, time.Minute, 20*time.Millisecond)
	// The channel that gave up takes the next message too.
	b.call(over, "messaging.v1.ChannelService/EnableChannel", token, map[string]any{"channel_id": channelID})
}

func (b *birds) noteField(kind, field string) {
	if b.set == nil {
		b.set = map[string]bool{}
	}
	b.set[kind+"."+field] = true
}

// covered asks for a canary in every secret of the contract's credentials.
func (b *birds) covered() {
	b.t.Helper()
	kinds := (&messagingv1.ChannelCredentials{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range kinds.Len() {
		fields := kinds.Get(i).Message().Fields()
		for j := range fields.Len() {
			if f := fields.Get(j); isSecret(f) {
				require.True(b.t, b.set[string(kinds.Get(i).Name())+"."+string(f.Name())], "no canary is set in %s of %s: add it to channels and echoes", f.Name(), kinds.Get(i).Name())
			}
		}
	}
}

func isSecret(f protoreflect.FieldDescriptor) bool {
	secret, _ := proto.GetExtension(f.Options(), optionsv1.E_Secret).(bool)
	return secret
}
