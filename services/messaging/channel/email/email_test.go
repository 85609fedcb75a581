package email_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/channel/channeltest"
	"github.com/turumba/turumba/services/messaging/channel/email"
	"github.com/turumba/turumba/services/messaging/channel/providers"
)

const (
	messageID = "0190a000-0000-7000-8000-000000000001"
	wireID    = messageID + "@sender.example"
	// loginBlob is base64 of NUL user NUL password.
	loginBlob = "AHVzZXIAY29ycmVjdCBob3JzZQ=="
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func plainSettings() channel.Settings {
	return channel.EmailSettings{
		Host: channeltest.Hostname, Port: 25, TLS: channel.TLSNone, AllowPlaintext: true,
		FromEmail: "news@sender.example", FromName: "Turumba News", HeloName: "client.example",
		Username: "user", Password: config.Secret("correct horse"),
	}
}

func with(change func(*channel.EmailSettings)) func(channel.Settings) channel.Settings {
	return func(s channel.Settings) channel.Settings {
		set := s.(channel.EmailSettings)
		change(&set)
		return set
	}
}

func tlsMode(mode channel.TLSMode) func(channel.Settings) channel.Settings {
	return with(func(s *channel.EmailSettings) { s.TLS, s.AllowPlaintext = mode, false })
}

func message() channel.Message {
	return channel.Message{
		ID: messageID, To: "bob@example.test", ToName: "Bob", Subject: "Hello", Text: "Hi Bob\n",
		CreatedAt: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
	}
}

func newAdapter(env channeltest.Env) channel.Adapter {
	return email.New(email.Config{Dialer: env.Dialer, Clock: env.Clock, RootCAs: env.Roots})
}

// hello is the dialogue up to a usable, logged-in connection.
func hello(more ...string) []string {
	return append([]string{
		"S: 220 ready", "C: EHLO client.example",
		"S: 250-provider", "S: 250-PIPELINING", "S: 250-8BITMIME", "S: 250-SIZE 1000000", "S: 250 AUTH LOGIN PLAIN",
		"C: AUTH PLAIN " + loginBlob, "S: 235 2.7.0 ok",
	}, more...)
}

// transaction is the commands of one message and the replies up to 354.
func transaction(more ...string) []string {
	return hello(append([]string{
		"C: MAIL FROM:<news@sender.example> SIZE=", "C: RCPT TO:<bob@example.test>", "C: DATA",
		"S: 250 2.1.0 ok", "S: 250 2.1.5 ok", "S: 354 go ahead",
	}, more...)...)
}

func dialogue(steps []string) []channeltest.Peer {
	return []channeltest.Peer{channeltest.Dialogue(steps...)}
}

// after is the peer that answers the final dot with the reply.
func after(reply string) []channeltest.Peer { return dialogue(transaction("C...", "S: "+reply)) }

// atRcpt is the peer that refuses the recipient.
func atRcpt(reply string) []channeltest.Peer {
	return dialogue(hello("C: MAIL", "C: RCPT", "C: DATA", "S: 250 ok", "S: "+reply, "S: 503 5.5.1 no recipients"))
}

// atMail is the peer that refuses the sender.
func atMail(reply string) []channeltest.Peer {
	return dialogue(hello("C: MAIL", "C: RCPT", "C: DATA", "S: "+reply, "S: 503 5.5.1 no", "S: 503 5.5.1 no"))
}

// atAuth is the peer that refuses the login.
func atAuth(reply string) []channeltest.Peer {
	steps := hello()
	return dialogue(append(steps[:len(steps)-1], "S: "+reply))
}

func accepted() channeltest.Want {
	return channeltest.Want{
		Outcome: channel.Accepted, Class: channel.ClassOK, Code: "250", SubCode: "2.0.0",
		Text: "queued as 4Qx", ProviderIDs: []string{wireID},
	}
}

func rejected(class channel.Class, code, sub string) channeltest.Want {
	return channeltest.Want{Outcome: channel.Rejected, Class: class, Code: code, SubCode: sub}
}

func notSent(class channel.Class, code, sub string) channeltest.Want {
	return channeltest.Want{Outcome: channel.NotSent, Class: class, Code: code, SubCode: sub}
}

func suite(cases ...channeltest.Case) channeltest.Suite {
	return channeltest.Suite{
		New: newAdapter, Settings: plainSettings, Message: message,
		Secrets:   []string{"correct horse", "Y29ycmVjdCBob3JzZQ==", loginBlob},
		Healthy:   channeltest.Dialogue(transaction("C...", "S: 250 2.0.0 queued as 4Qx")...),
		BreaksOff: channeltest.Dialogue(transaction("C...", "reset")...),
		Cases:     cases,
	}
}

func TestOpenNamesEveryField(t *testing.T) {
	t.Parallel()
	adapter := email.New(email.Config{Clock: clock.System()})
	_, err := adapter.Open(channel.EmailSettings{
		Host: "bad host", TLS: "ssl", Username: "a\r\nb", Password: "c\nd", FromEmail: "nobody", FromName: "a\nb",
		ReplyTo: "x", Connections: -1, MaxPerConnection: -1, HeloName: "a b",
	})
	var known *apierr.Error
	require.ErrorAs(t, err, &known)
	var names []string
	for _, f := range known.Fields {
		names = append(names, f.Field)
	}
	require.Equal(t, []string{
		"host", "port", "tls", "username", "password", "from_email", "from_name", "reply_to",
		"connections", "max_per_connection", "helo_name",
	}, names)
	require.NotContains(t, known.Error(), "c\nd")
}

// TestOpenNeedsWholeLogins: a user name without a password is no login and is not tried.
func TestOpenNeedsWholeLogins(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		username, password string
		missing            bool
	}{
		"no login":         {"", "", false},
		"a login":          {"user", "secret", false},
		"a login of space": {"user", " ", false},
		"no password":      {"user", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dialer := &refusing{}
			set := with(func(s *channel.EmailSettings) { s.Username, s.Password = tt.username, config.Secret(tt.password) })(plainSettings())
			sender, err := email.New(email.Config{Dialer: dialer, Clock: clock.System()}).Open(set)
			if !tt.missing {
				require.NoError(t, err)
				require.NoError(t, sender.Close())
				return
			}
			var known *apierr.Error
			require.ErrorAs(t, err, &known)
			require.Equal(t, []apierr.Field{{Field: "password", Message: "is needed where there is a username"}}, known.Fields)
			require.Zero(t, dialer.calls)
		})
	}
}

// refusing counts the connections that are asked for and opens none.
type refusing struct{ calls int }

func (d *refusing) DialContext(context.Context, string, string) (net.Conn, error) {
	d.calls++
	return nil, net.ErrClosed
}

func (d *refusing) ExemptConn(net.Conn) bool { return false }

func TestProvidersListTheAdapter(t *testing.T) {
	t.Parallel()
	adapter, ok := providers.All(providers.Config{Clock: clock.System()}).For("email", "")
	require.True(t, ok)
	require.Equal(t, "smtp", adapter.Provider())
}
