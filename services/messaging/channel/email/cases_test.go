package email_test

import (
	"strings"
	"testing"
	"time"

	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/channel/channeltest"
	"github.com/turumba/turumba/services/messaging/channel/email"
)

func TestSuite(t *testing.T) {
	t.Parallel()
	channeltest.Run(t, suite(append(wireCases(), connectionCases()...)...))
}

// TestRefusals has one row for every reply of the provider contract.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const (
		transient = channel.ClassTransient
		limited   = channel.ClassRateLimited
		deferred  = channel.ClassDeferred
		refused   = channel.ClassRefused
		recipient = channel.ClassPermanentRecipient
		content   = channel.ClassPermanentContent
		settings  = channel.ClassConfig
	)
	row := func(peers []channeltest.Peer, want channeltest.Want) channeltest.Case {
		return channeltest.Case{Name: want.Code + " " + want.SubCode + " " + want.Class.String(), Peers: peers, Want: want}
	}
	hint := func(want channeltest.Want, d time.Duration) channeltest.Want {
		want.RetryAfter = d
		return want
	}
	channeltest.Run(t, suite(
		row(atRcpt("421 4.3.2 try again in 30 seconds"), hint(rejected(limited, "421", "4.3.2"), 30*time.Second)),
		row(atRcpt("450 4.7.1 greylisted, come back in 5 minutes"), hint(rejected(deferred, "450", "4.7.1"), 5*time.Minute)),
		row(after("451 4.3.0 retry in 7 hours"), hint(rejected(limited, "451", "4.3.0"), 15*time.Minute)),
		row(atRcpt("452 4.2.2 full"), rejected(deferred, "452", "4.2.2")),
		row(atAuth("454 4.7.0 temporary"), notSent(limited, "454", "4.7.0")),
		row(atAuth("535 5.7.8 wrong password correct horse"), notSent(settings, "535", "5.7.8")),
		row(atAuth("534 5.7.9 too weak"), notSent(settings, "534", "5.7.9")),
		row(atAuth("538 5.7.11 encrypt"), notSent(settings, "538", "5.7.11")),
		row(atMail("530 5.7.0 login first"), rejected(settings, "530", "5.7.0")),
		row(after("550 5.7.3 login first"), rejected(settings, "550", "5.7.3")),
		row(atRcpt("550 5.1.1 <bob@example.test>: no such user"), rejected(recipient, "550", "5.1.1")),
		row(atRcpt("550 5.1.2 bad domain"), rejected(recipient, "550", "5.1.2")),
		row(atRcpt("550 5.1.3 bad syntax"), rejected(recipient, "550", "5.1.3")),
		row(atRcpt("550 5.1.6 moved"), rejected(recipient, "550", "5.1.6")),
		row(atRcpt("556 5.1.10 null MX"), rejected(recipient, "556", "5.1.10")),
		row(atRcpt("550 5.2.1 disabled"), rejected(recipient, "550", "5.2.1")),
		row(atRcpt("550 no such user here"), rejected(recipient, "550", "")),
		row(atRcpt("550 go away"), rejected(refused, "550", "")),
		row(atRcpt("551 5.1.6 not local"), rejected(recipient, "551", "5.1.6")),
		row(atRcpt("553 mailbox name not allowed"), rejected(recipient, "553", "")),
		row(atRcpt("552 5.2.2 over quota"), rejected(deferred, "552", "5.2.2")),
		row(atRcpt("554 5.7.1 relay denied"), rejected(settings, "554", "5.7.1")),
		row(atRcpt("554 5.7.1 blocked"), rejected(refused, "554", "5.7.1")),
		row(atRcpt("550 5.4.5 Daily user sending limit exceeded"), rejected(settings, "550", "5.4.5")),
		row(after("552 5.3.4 too big"), rejected(content, "552", "5.3.4")),
		row(after("552 5.2.3 too long"), rejected(content, "552", "5.2.3")),
		row(after("554 5.6.0 bad content"), rejected(content, "554", "5.6.0")),
		row(atMail("555 5.5.4 parameter"), rejected(content, "555", "5.5.4")),
		row(after("550 5.7.1 spam"), rejected(content, "550", "5.7.1")),
		row(after("550 5.7.26 DMARC"), rejected(settings, "550", "5.7.26")),
		row(after("550 no"), rejected(refused, "550", "")),
		row(after("571 odd"), rejected(refused, "571", "")),
		row(atMail("550 5.1.7 bad sender"), rejected(settings, "550", "5.1.7")),
		row(atMail("550 5.1.8 sender domain"), rejected(settings, "550", "5.1.8")),
		row(atMail("550 5.7.1 sender not yours"), rejected(settings, "550", "5.7.1")),
		row(atMail("552 5.3.4 too big"), rejected(content, "552", "5.3.4")),
		row(dialogue([]string{"S: 554 5.7.1 go away"}), notSent(settings, "554", "5.7.1")),
		row(dialogue([]string{"S: 421 4.3.2 later"}), notSent(limited, "421", "4.3.2")),
	))
}

func wireCases() []channeltest.Case {
	return []channeltest.Case{
		{
			Name: "pipelined", Peers: after("250 2.0.0 queued as 4Qx"), Want: accepted(),
			Wire: []string{
				"EHLO client.example\r\n", "AUTH PLAIN " + loginBlob, "BODY=8BITMIME\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n",
				"Date: Sun, 01 Mar 2026 12:00:00 +0000\r\n", "Message-ID: <" + wireID + ">\r\n",
				"From: Turumba News <news@sender.example>\r\n", "To: Bob <bob@example.test>\r\n", "Subject: Hello\r\n",
				"MIME-Version: 1.0\r\n", "Content-Transfer-Encoding: 7bit\r\n\r\nHi Bob\r\n.\r\n", "QUIT\r\n",
			},
			NotWire: []string{"RSET"},
		},
		{
			Name: "without extensions", Want: accepted(),
			Settings: with(func(s *channel.EmailSettings) { s.Username = "" }),
			Message:  func(m *channel.Message) { m.Text = "Grüße\n.dot\n" },
			Peers: dialogue([]string{
				"S: 220-hello", "S: 220 there", "C: EHLO", "S: 250 provider", "C: MAIL FROM:<news@sender.example>", "S: 250 ok",
				"C: RCPT", "S: 251 will forward", "C: DATA", "S: 354 go", "C...", "S: 250 2.0.0 queued as 4Qx",
			}),
			Wire:    []string{"quoted-printable", "Gr=C3=BC=C3=9Fe\r\n=2Edot\r\n"},
			NotWire: []string{"SIZE=", "8BITMIME", "AUTH"},
		},
		{
			Name: "dots and line breaks", Peers: after("250 2.0.0 queued as 4Qx"), Want: accepted(),
			Message: func(m *channel.Message) { m.Text = ".\n..\r\na\rb\n\n.c" },
			Wire:    []string{"\r\n\r\n..\r\n...\r\na\r\nb\r\n\r\n..c\r\n.\r\n"},
		},
		{
			Name: "alternatives and headers", Peers: after("250 2.0.0 queued as 4Qx"), Want: accepted(),
			Message: func(m *channel.Message) {
				m.Subject, m.HTML, m.ReplyTo = "Grüße", "<p>Hi Bob ü</p>", "help@sender.example"
				m.Headers = []channel.Header{{Name: "List-Unsubscribe", Value: "<https://example.test/u?t=1>"}}
			},
			Wire: []string{
				"Reply-To: <help@sender.example>\r\n", "Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n",
				"List-Unsubscribe: <https://example.test/u?t=1>\r\n", "multipart/alternative", "Content-Transfer-Encoding: 8bit\r\n\r\n--",
				"text/plain", "Hi Bob", "text/html", "8bit", "<p>Hi Bob ü</p>", "--\r\n.\r\n",
			},
		},
		{
			Name: "RSET between messages", Sends: 2, Want: accepted(),
			Peers: dialogue(append(transaction("C...", "S: 250 2.0.0 queued as 4Qx", "C: RSET"),
				"C: MAIL", "C: RCPT", "C: DATA", "S: 250 ok", "S: 250 ok", "S: 250 ok", "S: 354 go", "C...", "S: 250 2.0.0 queued as 4Qx")),
		},
		{
			Name: "a connection carries so many messages", Sends: 2, Want: accepted(),
			Settings: with(func(s *channel.EmailSettings) { s.MaxPerConnection = 1 }),
			Peers:    append(after("250 2.0.0 queued as 4Qx"), after("250 2.0.0 queued as 4Qx")...),
			NotWire:  []string{"RSET"},
		},
		{
			Name: "after a refusal the connection goes on", Sends: 2, Want: accepted(),
			Peers: dialogue(hello("C: MAIL", "C: RCPT", "C: DATA", "S: 250 ok", "S: 550 5.1.1 no", "S: 503 no",
				"C: RSET", "C: MAIL", "C: RCPT", "C: DATA", "S: 250 ok", "S: 250 ok", "S: 250 ok", "S: 354 go", "C...", "S: 250 2.0.0 queued as 4Qx")),
		},
		{
			Name:    "no recipient but 354",
			Peers:   dialogue(hello("C: MAIL", "C: RCPT", "C: DATA", "S: 250 ok", "S: 550 5.1.1 no", "S: 354 go")),
			Want:    rejected(channel.ClassPermanentRecipient, "550", "5.1.1"),
			NotWire: []string{"Subject:", "\r\n.\r\n"},
		},
		{
			Name: "refusal while the content is on its way", Want: rejected(channel.ClassPermanentContent, "552", "5.3.4"),
			Message: func(m *channel.Message) { m.Text = strings.Repeat("0123456789\n", 80_000) },
			Peers:   dialogue(transaction("C: Date", "S: 552 5.3.4 too much", "C...")),
		},
		{
			Name: "international recipient", Peers: dialogue(hello()),
			Message: func(m *channel.Message) { m.To = "jörg@example.test" },
			Want:    rejected(channel.ClassPermanentRecipient, "smtputf8_missing", ""),
		},
		{
			Name: "international domain", Peers: dialogue(hello("C: MAIL", "C: RCPT TO:<bob@xn--mnchen-3ya.example>", "C: DATA",
				"S: 250 ok", "S: 250 ok", "S: 354 go", "C...", "S: 250 2.0.0 queued as 4Qx")), Want: accepted(),
			Message: func(m *channel.Message) { m.To = "bob@München.example" },
		},
		{
			Name: "larger than the server takes", Want: rejected(channel.ClassPermanentContent, "message_too_big", ""),
			Message: func(m *channel.Message) { m.Text = strings.Repeat("0123456789\n", 100_000) }, Peers: dialogue(hello()),
		},
		invalidCase("line break in the subject", func(m *channel.Message) { m.Subject = "a\r\nBcc: x@y.z" }),
		invalidCase("line break in the name", func(m *channel.Message) { m.ToName = "a\nb" }),
		invalidCase("NUL in the body", func(m *channel.Message) { m.Text = "a\x00b" }),
		invalidCase("reserved header", func(m *channel.Message) { m.Headers = []channel.Header{{Name: "bcc", Value: "x@y.z"}} }),
		invalidCase("bad header name", func(m *channel.Message) { m.Headers = []channel.Header{{Name: "X: y\r\nZ", Value: "1"}} }),
		invalidCase("no body", func(m *channel.Message) { m.Text = "" }),
		{
			Name: "id that would break the header", Want: rejected(channel.ClassPermanentContent, "message_invalid", ""),
			Message: func(m *channel.Message) { m.ID = "a>\r\nX" },
		},
		{
			Name: "injected recipient", Want: rejected(channel.ClassPermanentRecipient, "recipient_invalid", ""),
			Message: func(m *channel.Message) { m.To = "bob@example.test>\r\nRCPT TO:<eve@example.test" },
		},
	}
}

func invalidCase(name string, change func(*channel.Message)) channeltest.Case {
	return channeltest.Case{
		Name: name, Message: change, Peers: dialogue(hello()), NotWire: []string{"MAIL"},
		Want: rejected(channel.ClassPermanentContent, "message_invalid", ""),
	}
}

func connectionCases() []channeltest.Case {
	lost := channeltest.Want{Outcome: channel.Unknown, Class: channel.ClassUnknown, Code: "connection_lost", ProviderIDs: []string{wireID}}
	garbled := lost
	garbled.Code = "protocol_error"
	startTLS := []string{"S: 220 ready", "C: EHLO", "S: 250-provider", "S: 250 STARTTLS", "C: STARTTLS", "S: 220 go", "tls"}
	return []channeltest.Case{
		{Name: "closed after the dot", Peers: dialogue(transaction("C...", "close")), Want: lost},
		{Name: "reset after the dot", Peers: dialogue(transaction("C...", "reset")), Want: lost},
		{Name: "garbage after the dot", Peers: dialogue(transaction("C...", "S: hello")), Want: garbled},
		{Name: "a third kind of reply after the dot", Peers: dialogue(transaction("C...", "S: 354 more")), Want: garbled},
		{Name: "torn reply after the dot", Peers: dialogue(transaction("C...", "S: 250-half", "close")), Want: lost},
		{
			Name: "closed before 354", Peers: dialogue(hello("C: MAIL", "C: RCPT", "C: DATA", "S: 250 ok", "close")),
			Want: notSent(channel.ClassTransient, "connection_lost", ""),
		},
		{
			Name: "garbage before 354", Peers: dialogue(hello("C: MAIL", "C: RCPT", "C: DATA", "S: what")),
			Want: notSent(channel.ClassTransient, "protocol_error", ""),
		},
		{Name: "closed at once", Peers: dialogue([]string{"close"}), Want: notSent(channel.ClassTransient, "connection_lost", "")},
		{
			Name: "a dead idle connection is replaced", Sends: 2, Want: accepted(),
			Peers: append(dialogue(transaction("C...", "S: 250 2.0.0 queued as 4Qx", "C: RSET", "close")), after("250 2.0.0 queued as 4Qx")...),
		},
		{
			Name: "a server that ends the session is asked again", Sends: 2, Want: accepted(),
			Peers: append(dialogue(transaction("C...", "S: 250 2.0.0 queued as 4Qx", "C: RSET", "S: 421 4.4.2 idle too long", "close")),
				after("250 2.0.0 queued as 4Qx")...),
		},
		{
			Name: "STARTTLS", Settings: tlsMode(""), Want: accepted(),
			Peers: dialogue(append(startTLS, transaction("C...", "S: 250 2.0.0 queued as 4Qx")[1:]...)),
		},
		{
			Name: "implicit TLS", Settings: tlsMode(channel.TLSImplicit), Want: accepted(),
			Peers: dialogue(append([]string{"tls"}, transaction("C...", "S: 250 2.0.0 queued as 4Qx")...)),
		},
		{
			Name: "STARTTLS stripped", Settings: tlsMode(channel.TLSStartTLS), NotWire: []string{"AUTH", "MAIL"},
			Peers: dialogue(hello()[:7]), Want: notSent(channel.ClassConfig, "starttls_missing", ""),
		},
		{
			Name: "answers injected before TLS", Settings: tlsMode(channel.TLSStartTLS), NotWire: []string{"AUTH"},
			Peers: dialogue([]string{"S: 220 ready", "C: EHLO", "S: 250-provider", "S: 250 STARTTLS", "C: STARTTLS", "S: 220 go\r\n250 injected"}),
			Want:  notSent(channel.ClassTransient, "protocol_error", ""),
		},
		{
			Name:     "certificate of somebody else",
			Settings: with(func(s *channel.EmailSettings) { s.TLS, s.Host = channel.TLSImplicit, "other.example.test" }),
			Peers:    dialogue([]string{"tls-refused"}), Want: notSent(channel.ClassConfig, "tls_failed", ""),
		},
		{
			Name:     "plaintext not allowed",
			Settings: with(func(s *channel.EmailSettings) { s.AllowPlaintext = false }), NotWire: []string{"EHLO", "AUTH"},
			Peers: dialogue([]string{"S: 220 ready"}), Want: notSent(channel.ClassConfig, "plaintext_refused", ""),
		},
		{
			Name: "no login method", Want: notSent(channel.ClassConfig, "login_unavailable", ""),
			Peers: dialogue([]string{"S: 220 ready", "C: EHLO", "S: 250-provider", "S: 250 AUTH XOAUTH2"}),
		},
		{
			Name: "AUTH LOGIN", Want: accepted(),
			Peers: dialogue(append([]string{
				"S: 220 ready", "C: EHLO", "S: 250-provider", "S: 250-PIPELINING", "S: 250-SIZE", "S: 250 AUTH=LOGIN", "C: AUTH LOGIN",
				"S: 334 VXNlcm5hbWU6", "C: dXNlcg==", "S: 334 UGFzc3dvcmQ6", "C: Y29ycmVjdCBob3JzZQ==", "S: 235 ok",
			}, transaction("C...", "S: 250 2.0.0 queued as 4Qx")[9:]...)),
		},
		{
			Name: "a refused login is not hammered", Sends: 3, Peers: atAuth("535 5.7.8 no"),
			Want: notSent(channel.ClassConfig, "535", "5.7.8"),
		},
	}
}

// TestHelo: a server that does not take EHLO is greeted as before there was one.
func TestHelo(t *testing.T) {
	t.Parallel()
	noLogin := with(func(s *channel.EmailSettings) { s.Username = "" })
	rest := []string{"C: MAIL FROM:<news@sender.example>", "S: 250 ok", "C: RCPT", "S: 250 ok", "C: DATA", "S: 354 go", "C...", "S: 250 2.0.0 queued as 4Qx"}
	greeted := func(reply string) []string {
		return []string{"S: 220 ready", "C: EHLO client.example", "S: " + reply, "C: HELO client.example", "S: 250 provider"}
	}
	var cases []channeltest.Case
	for _, reply := range []string{"500 command unrecognized", "501 5.5.4 not this argument", "502 not implemented", "504 no", "550 not EHLO", "500-two\r\n500 lines"} {
		cases = append(cases, channeltest.Case{
			Name: reply, Settings: noLogin, Peers: dialogue(append(greeted(reply), rest...)), Want: accepted(), NotWire: []string{"SIZE=", "8BITMIME", "AUTH", "STARTTLS"},
		})
	}
	refusedTwice := []string{"S: 220 ready", "C: EHLO", "S: 550 5.7.1 not from there", "C: HELO", "S: 503 5.5.1 bad sequence"}
	afterTLS := []string{"S: 220 ready", "C: EHLO", "S: 250-provider", "S: 250-PIPELINING", "S: 250 STARTTLS", "C: STARTTLS", "S: 220 go", "tls", "C: EHLO", "S: 500 no", "C: HELO", "S: 250 provider"}
	silent := channel.ClassTransient
	channeltest.Run(t, suite(append(cases,
		channeltest.Case{Name: "refused as well", Peers: dialogue(refusedTwice), Want: withText(notSent(channel.ClassConfig, "550", "5.7.1"), "not from there")},
		channeltest.Case{Name: "gone after it", Peers: dialogue([]string{"S: 220 ready", "C: EHLO", "S: 500 what", "close"}), Want: notSent(channel.ClassConfig, "500", "")},
		channeltest.Case{Name: "not now", Peers: dialogue([]string{"S: 220 ready", "C: EHLO", "S: 451 later"}), Want: notSent(silent, "451", ""), NotWire: []string{"HELO"}},
		channeltest.Case{Name: "no login there", Peers: dialogue(greeted("502 no")), Want: notSent(channel.ClassConfig, "login_unavailable", ""), NotWire: []string{"MAIL"}},
		channeltest.Case{Name: "no encryption there", Settings: tlsMode(channel.TLSStartTLS), Peers: dialogue(greeted("502 no")), Want: notSent(channel.ClassConfig, "starttls_missing", ""), NotWire: []string{"MAIL", "AUTH"}},
		channeltest.Case{
			Name: "within TLS", Want: accepted(), Peers: dialogue(append(afterTLS, rest...)), NotWire: []string{"AUTH", "SIZE="},
			Settings: with(func(s *channel.EmailSettings) { s.Username, s.TLS, s.AllowPlaintext = "", channel.TLSStartTLS, false }),
		},
	)...))
}

// TestProvidersSentenceAtLogin: whoever verifies a channel reads what its server says of the
// login beside ours, and nothing that it says before.
func TestProvidersSentenceAtLogin(t *testing.T) {
	t.Parallel()
	verified := func(name string, peers []channeltest.Peer, want channeltest.Want) channeltest.Case {
		return channeltest.Case{Name: name, Verify: true, Peers: peers, Want: want}
	}
	needed := "the mail server refused the login: Application-specific password required. ***"
	channeltest.Run(t, suite(
		verified("one of their own kind", atAuth("534 5.7.9 Application-specific password required. correct horse"),
			withText(notSent(channel.ClassConfig, "534", "5.7.9"), needed)),
		verified("no words", atAuth("535 "), withText(notSent(channel.ClassConfig, "535", ""), "the mail server refused the login")),
		verified("not now", atAuth("454 4.7.0 directory is down"),
			withText(notSent(channel.ClassRateLimited, "454", "4.7.0"), "the mail server cannot log in or encrypt right now: directory is down")),
		verified("something that is no mail server", dialogue([]string{"S: 530 secret of the house"}),
			channeltest.Want{Outcome: channel.NotSent, Class: channel.ClassConfig, Code: "530", NotText: "house"}),
	))
}

func withText(want channeltest.Want, text string) channeltest.Want {
	want.Text = text
	return want
}

// TestTimeouts runs the rows in which the server goes silent.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	s := suite(
		channeltest.Case{Name: "before 354", Peers: dialogue(hello("C: MAIL", "hold")), Want: notSent(channel.ClassTransient, "timeout", "")},
		channeltest.Case{Name: "at the greeting", Peers: dialogue([]string{"hold"}), Want: notSent(channel.ClassTransient, "timeout", "")},
		channeltest.Case{Name: "after the dot", Peers: dialogue(transaction("C...", "hold")), Want: channeltest.Want{
			Outcome: channel.Unknown, Class: channel.ClassUnknown, Code: "timeout", ProviderIDs: []string{wireID},
		}},
	)
	s.New = func(env channeltest.Env) channel.Adapter {
		short := email.Timeouts{Command: 100 * time.Millisecond, DataEnd: 200 * time.Millisecond}
		return email.New(email.Config{Dialer: env.Dialer, Clock: env.Clock, RootCAs: env.Roots, Timeouts: short})
	}
	channeltest.Run(t, s)
}
