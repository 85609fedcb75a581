package twilio_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/channel/channeltest"
	"github.com/turumba/turumba/services/messaging/channel/twilio"
)

func replies(list ...channeltest.Reply) []channeltest.Peer {
	return []channeltest.Peer{channeltest.HTTP(list...)}
}

func queued() channeltest.Reply { return channeltest.Reply{Status: 201, Body: file("queued.json")} }

func accepted() channeltest.Want {
	return channeltest.Want{Outcome: channel.Accepted, Class: channel.ClassOK, ProviderIDs: []string{sid}}
}

func withText(want channeltest.Want, text string) channeltest.Want {
	want.Text = text
	return want
}

func unknown(code string) channeltest.Want {
	return channeltest.Want{Outcome: channel.Unknown, Class: channel.ClassUnknown, Code: code}
}

func rejected(class channel.Class, code, status string) channeltest.Want {
	return channeltest.Want{Outcome: channel.Rejected, Class: class, Code: code, SubCode: status}
}

func TestSuite(t *testing.T) {
	t.Parallel()
	channeltest.Run(t, suite(append(wireCases(), silentCases()...)...))
}

func wireCases() []channeltest.Case {
	return []channeltest.Case{
		{
			Name: "a message", Peers: replies(queued()), Want: accepted(),
			Wire: []string{
				"POST /2010-04-01/Accounts/" + account + "/Messages.json HTTP/1.1\r\n", "Host: api.twilio.com\r\n", "User-Agent: turumba\r\n",
				"Authorization: Basic " + login + "\r\n", "Content-Type: application/x-www-form-urlencoded\r\n", "\r\n\r\n",
				"Body=Your+code+is+1234.&From=%2B15550001111&To=%2B251911000001",
			},
			NotWire: []string{"not+sent", "StatusCallback", "Idempotency-Key", "MessagingServiceSid"},
		},
		{
			Name: "by a service and a key", Peers: replies(channeltest.Reply{Status: 201, Body: file("accepted.json")}), Want: accepted(),
			Settings: with(func(s *channel.TwilioSettings) {
				s.From, s.MessagingServiceSID, s.APIKeySID, s.APIKeySecret = "", service, key, secret
			}),
			Wire: []string{"/Accounts/" + account + "/", "Basic " + keyLogin, "MessagingServiceSid=" + service}, NotWire: []string{"From="},
		},
		{
			Name: "characters of the world", Peers: replies(queued()), Want: accepted(),
			Message: func(m *channel.Message) { m.Text = "ሰላም & \"€\"\n=1+1" }, Wire: []string{"Body=%E1%88%B0%E1%88%8B%E1%88%9D+%26+%22%E2%82%AC%22%0A%3D1%2B1&"},
		},
		{
			Name: "the longest text", Peers: replies(queued()), Want: accepted(),
			Message: func(m *channel.Message) { m.Text = strings.Repeat("ü", 1600) },
		},
		{
			Name: "a longer text", Want: rejected(channel.ClassPermanentContent, "message_too_big", ""),
			Message: func(m *channel.Message) { m.Text = strings.Repeat("ü", 1601) },
		},
		{
			Name: "no text", Want: rejected(channel.ClassPermanentContent, "message_invalid", ""),
			Message: func(m *channel.Message) { m.Text = " \n" },
		},
		{
			Name: "no phone number", Want: rejected(channel.ClassPermanentRecipient, "recipient_invalid", ""),
			Message: func(m *channel.Message) { m.To = "whatsapp:+251911000001" },
		},
		{Name: "two on one connection", Sends: 2, Peers: replies(queued(), queued()), Want: accepted()},
		{
			Name: "a refusal keeps the connection", Sends: 2, Want: accepted(),
			Peers: replies(channeltest.Reply{Status: 400, Body: refusal(21211, "no", 400)}, queued()),
		},
		{
			Name: "given up at once", Peers: replies(channeltest.Reply{Status: 201, Body: file("failed.json")}),
			Want: channeltest.Want{Outcome: channel.Rejected, Class: channel.ClassOptedOut, Code: "21610", SubCode: "400", Text: "*** sent STOP"},
		},
		{
			Name: "a base URL of one's own reaches only what is exempt", Want: channeltest.Want{Outcome: channel.NotSent, Class: channel.ClassConfig, Code: "connect_failed"},
			Settings: with(func(s *channel.TwilioSettings) { s.BaseURL = "https://" + channeltest.Hostname }),
			Peers:    []channeltest.Peer{func(c *channeltest.Conn) error { return c.Hold() }}, NotWire: []string{"POST", "AC0"},
		},
		{
			Name: "a certificate of somebody else", Want: channeltest.Want{Outcome: channel.NotSent, Class: channel.ClassTransient, Code: "connect_failed"},
			Settings: with(func(s *channel.TwilioSettings) { s.BaseURL = "" }),
			Peers:    []channeltest.Peer{channeltest.Dialogue("S: HTTP/1.1 400 Bad Request", "close")},
		},
	}
}

func silentCases() []channeltest.Case {
	return []channeltest.Case{
		{Name: "reset after the request", Peers: replies(channeltest.Reply{Reset: true}), Want: unknown("connection_lost")},
		{Name: "closed after the request", Peers: replies(channeltest.Reply{Raw: "HTTP/1.1 "}), Want: unknown("connection_lost")},
		{Name: "reset on a connection that was used", Sends: 2, Peers: replies(queued(), channeltest.Reply{Reset: true}), Want: unknown("connection_lost")},
		{Name: "no HTTP", Peers: replies(channeltest.Reply{Raw: "SSH-2.0-x\r\n"}), Want: unknown("connection_lost")},
		{Name: "a torn body", Peers: replies(channeltest.Reply{Raw: "HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n{\"sid\":\"" + sid + "\""}), Want: unknown("protocol_error")},
		{Name: "broken JSON", Peers: replies(channeltest.Reply{Status: 201, Body: `{"sid":"` + sid}), Want: unknown("protocol_error")},
		{Name: "no sid", Peers: replies(channeltest.Reply{Status: 201, Body: `{"status":"queued"}`}), Want: unknown("protocol_error")},
		{Name: "a sid that is none", Peers: replies(channeltest.Reply{Status: 201, Body: `{"sid":"SM1\r\n"}`}), Want: unknown("protocol_error")},
		{Name: "an error in a 200", Peers: replies(channeltest.Reply{Body: refusal(21211, "no", 400)}), Want: unknown("protocol_error")},
		{Name: "an endless body", Peers: replies(channeltest.Reply{Status: 201, Body: strings.Repeat(" ", 300<<10)}), Want: unknown("protocol_error")},
		{
			Name: "a redirect is not followed", Peers: replies(channeltest.Reply{Status: 307, Header: []string{"Location: https://" + channeltest.Hostname + "/x"}}),
			Want: rejected(channel.ClassConfig, "307", ""),
		},
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	s := suite(channeltest.Case{Name: "no answer", Peers: replies(channeltest.Reply{Hold: true}), Want: unknown("timeout")})
	s.New = func(env channeltest.Env) channel.Adapter {
		short := twilio.Timeouts{Call: 200 * time.Millisecond}
		return twilio.New(twilio.Config{Dialer: env.Dialer, Clock: env.Clock, RootCAs: env.Roots, Timeouts: short})
	}
	channeltest.Run(t, s)
}

// refusal is the body of an error.
func refusal(code int, text string, status int) string {
	return fmt.Sprintf(`{"code": %d, "message": %q, "more_info": "https://www.twilio.com/docs/errors/%d", "status": %d}`, code, text, code, status)
}

// TestRefusals has one row for every code of the provider contract.
func TestRefusals(t *testing.T) {
	t.Parallel()
	var cases []channeltest.Case
	add := func(class channel.Class, status int, pause time.Duration, codes ...int) {
		for _, code := range codes {
			want := rejected(class, fmt.Sprint(code), fmt.Sprint(status))
			want.Text, want.RetryAfter = "about *** and ***", pause
			cases = append(cases, channeltest.Case{
				Name: fmt.Sprintf("%d %s", code, class), Want: want,
				Peers: replies(channeltest.Reply{Status: status, Body: refusal(code, "about +251911000001 and "+token, status)}),
			})
		}
	}
	add(channel.ClassRateLimited, 429, 0, 20429, 14107)
	add(channel.ClassRateLimited, 400, time.Minute, 21611)
	add(channel.ClassRateLimited, 400, 15*time.Minute, 30022, 30023, 30027, 63038)
	add(channel.ClassRateLimited, 400, 0, 63017, 63018)
	add(channel.ClassConfig, 401, 0, 20003)
	add(channel.ClassConfig, 403, 0, 20005, 20006, 20151, 20403, 30002)
	add(channel.ClassConfig, 404, 0, 20404)
	add(channel.ClassConfig, 400, 0, 21212, 21603, 21606, 21210, 21701, 21702, 21703, 21704, 21705, 21712, 21408, 21215, 30024, 30032, 30018, 21608, 21219)
	add(channel.ClassPermanentRecipient, 400, 0, 21211, 21214, 21217, 21604, 21612, 21614, 21401, 63003, 63024, 63032, 63033, 63014)
	add(channel.ClassOptedOut, 400, 0, 21610)
	add(channel.ClassPermanentContent, 400, 0, 21602, 21617, 21618, 21620, 21623, 21654, 21655, 21656)
	add(channel.ClassWindowClosed, 400, 0, 63016)
	add(channel.ClassPermanentContent, 400, 0, 99999)
	channeltest.Run(t, suite(cases...))
}

// TestStatuses has the answers in which the HTTP status decides.
func TestStatuses(t *testing.T) {
	t.Parallel()
	const page = "<html>sorry</html>"
	row := func(status int, body, hint string, want channeltest.Want) channeltest.Case {
		reply := channeltest.Reply{Status: status, Body: body}
		if hint != "" {
			reply.Header = []string{"Retry-After: " + hint}
		}
		return channeltest.Case{Name: fmt.Sprint(status, " ", want.Class, " ", hint, len(body)), Peers: replies(reply), Want: want}
	}
	wait := func(want channeltest.Want, d time.Duration) channeltest.Want {
		want.RetryAfter = d
		return want
	}
	channeltest.Run(t, suite(
		row(429, page, "", rejected(channel.ClassRateLimited, "429", "")),
		row(429, page, "7", wait(rejected(channel.ClassRateLimited, "429", ""), 7*time.Second)),
		row(429, refusal(20429, "slow", 429), "0", rejected(channel.ClassRateLimited, "20429", "429")),
		row(429, page, "86400", wait(rejected(channel.ClassRateLimited, "429", ""), 15*time.Minute)),
		row(429, page, "Fri, 31 Dec 2100 23:59:59 GMT", wait(rejected(channel.ClassRateLimited, "429", ""), 15*time.Minute)),
		row(429, page, "Fri, 31 Dec 1999 23:59:59 GMT", rejected(channel.ClassRateLimited, "429", "")),
		row(429, page, "soon", rejected(channel.ClassRateLimited, "429", "")),
		row(503, refusal(20503, "later", 503), "3", wait(rejected(channel.ClassTransient, "20503", "503"), 3*time.Second)),
		row(503, refusal(20503, "later", 503), "", unknown("20503")),
		row(500, refusal(20500, "oops", 500), "3", unknown("20500")),
		row(502, page, "", unknown("502")),
		row(500, refusal(20500, "the ledger of +251911000001 is away", 500), "4", withText(unknown("20500"), "Twilio may or may not have taken the message: the ledger of *** is away")),
		row(504, refusal(30410, "timeout", 504), "", unknown("30410")),
		row(408, page, "", unknown("408")),
		row(425, page, "", rejected(channel.ClassTransient, "425", "")),
		row(402, page, "", rejected(channel.ClassBilling, "402", "")),
		row(401, page, "", rejected(channel.ClassConfig, "401", "")),
		row(403, page, "", rejected(channel.ClassConfig, "403", "")),
		row(404, page, "", rejected(channel.ClassPermanentContent, "404", "")),
		row(415, "", "", rejected(channel.ClassPermanentContent, "415", "")),
	))
}

func TestVerify(t *testing.T) {
	t.Parallel()
	ok := channeltest.Want{Outcome: channel.Accepted, Class: channel.ClassOK}
	not := func(class channel.Class, code string) channeltest.Want {
		return channeltest.Want{Outcome: channel.NotSent, Class: class, Code: code}
	}
	row := func(name string, reply channeltest.Reply, want channeltest.Want, wire ...string) channeltest.Case {
		return channeltest.Case{Name: name, Verify: true, Peers: replies(reply), Want: want, Wire: wire}
	}
	byKey := row("by a key", channeltest.Reply{Body: file("messages.json")}, ok, "GET /2010-04-01/Accounts/"+account+"/Messages.json?PageSize=1 HTTP/1.1\r\n", keyLogin)
	byKey.Settings = with(func(s *channel.TwilioSettings) { s.AuthToken, s.APIKeySID, s.APIKeySecret = "", key, secret })
	channeltest.Run(t, suite(
		row("active", channeltest.Reply{Body: file("account.json")}, ok, "GET /2010-04-01/Accounts/"+account+".json HTTP/1.1\r\n", login),
		byKey,
		row("what it says of the login", channeltest.Reply{Status: 401, Body: refusal(20003, "Authenticate with "+token, 401)},
			withText(not(channel.ClassConfig, "401"), "Twilio refused the credentials: Authenticate with ***")),
		row("words of somebody else", channeltest.Reply{Status: 403, Body: `{"message":"inner page"}`}, channeltest.Want{Outcome: channel.NotSent, Class: channel.ClassConfig, Code: "403", NotText: "inner"}),
		row("suspended", channeltest.Reply{Body: file("suspended.json")}, not(channel.ClassConfig, "account_not_active")),
		row("wrong token", channeltest.Reply{Status: 401, Body: refusal(20003, token, 401)}, not(channel.ClassConfig, "401")),
		row("no such account", channeltest.Reply{Status: 404, Body: refusal(20404, "x", 404)}, not(channel.ClassConfig, "404")),
		row("too fast", channeltest.Reply{Status: 429}, not(channel.ClassTransient, "429")),
		row("something else", channeltest.Reply{Body: "<html>"}, not(channel.ClassTransient, "connect_failed")),
		row("a broken one", channeltest.Reply{Status: 500, Body: "oops"}, not(channel.ClassTransient, "connect_failed")),
		row("no answer", channeltest.Reply{Reset: true}, not(channel.ClassTransient, "connect_failed")),
	))
}
