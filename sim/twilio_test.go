package sim_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/sim"
)

const account = "AC00000000000000000000000000000001"

// text is the form of an ordinary message.
func text(to, body string) url.Values {
	return url.Values{"To": {to}, "From": {"+15550001111"}, "Body": {body}}
}

// answer is what the face said; err is set where it said nothing.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
	err    error
}

// call makes a request as the account, on a connection of its own.
func call(t *testing.T, server *running, method, path string, form url.Values, change ...func(*http.Request)) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, server.APIURL()+path, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(account, "token")
	for _, c := range change {
		c(r)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	got, err := client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = got.Body.Close() }()
	raw, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	a := answer{status: got.StatusCode, header: got.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.body)
	return a
}

func sms(t *testing.T, server *running, form url.Values, change ...func(*http.Request)) answer {
	t.Helper()
	return call(t, server, http.MethodPost, "/2010-04-01/Accounts/"+account+"/Messages.json", form, change...)
}

func records(t *testing.T, server *running) []sim.Record {
	t.Helper()
	file, err := os.Open(server.journal)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	var all []sim.Record
	for record, err := range sim.Records(file) {
		require.NoError(t, err)
		all = append(all, record)
	}
	return all
}

func TestTwilioTakesMessages(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{})
	got := sms(t, server, text("+251911000001", "Grüße"))
	require.Equal(t, http.StatusCreated, got.status)
	require.Regexp(t, "^SM[0-9a-f]{32}$", got.body["sid"])
	require.Equal(t, "queued", got.body["status"])
	form := text("+251911000001", "Grüße")
	form.Del("From")
	form.Set("MessagingServiceSid", "MG00000000000000000000000000000001")
	form.Set("StatusCallback", "https://example.test/hook?m=0190a000")
	require.Equal(t, "accepted", sms(t, server, form).body["status"])
	again := sms(t, server, text("+251911000001", "Grüße"))

	all := records(t, server)
	require.Len(t, all, 3)
	require.Equal(t, "+251911000001", all[0].To)
	require.Equal(t, "twilio", all[0].Provider)
	require.Equal(t, got.body["sid"], all[0].ProviderID)
	require.Equal(t, again.body["sid"], all[2].ProviderID)
	require.Equal(t, []string{"", "0190a000", ""}, []string{all[0].MessageID, all[1].MessageID, all[2].MessageID})
	sum, err := sim.ReadJournal(server.journal)
	require.NoError(t, err)
	require.Equal(t, sim.Summary{Received: 3, Distinct: 2, Duplicates: 1}, sum)
	shown := server.Messages("+251911000001", 1)
	require.Equal(t, "Grüße", strings.TrimSpace(shown[0].Text))
	require.Equal(t, "+251911000001", shown[0].To)
}

func TestTwilioScripts(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{})
	taken := 0
	for _, phone := range sim.Phones() {
		got := sms(t, server, text(phone.Number, "x"))
		script := phone.Script
		switch {
		case script.Reset:
			require.ErrorIs(t, got.err, syscall.ECONNRESET, phone.Number)
		case script.Silent:
			require.ErrorIs(t, got.err, context.DeadlineExceeded, phone.Number)
		case script.Body != "":
			require.Equal(t, script.Body, got.raw)
		default:
			require.Equal(t, script.Status, got.status, phone.Number)
			require.EqualValues(t, script.Code, got.body["code"], phone.Number)
			require.Equal(t, script.RetryAfter, got.header.Get("Retry-After"))
		}
		if script.Accept {
			taken++
		}
	}
	require.Len(t, records(t, server), taken)
	require.Equal(t, http.StatusCreated, sms(t, server, text("+15005557010", "slow")).status)
}

func TestTwilioRefuses(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{})
	without := func(field string) url.Values {
		form := text("+251911000001", "x")
		form.Del(field)
		return form
	}
	for code, form := range map[int]url.Values{
		21604: without("To"), 21603: without("From"), 21602: without("Body"), 21617: text("+251911000001", strings.Repeat("ü", 1601)),
	} {
		got := sms(t, server, form)
		require.Equal(t, http.StatusBadRequest, got.status)
		require.EqualValues(t, code, got.body["code"])
	}
	stranger := func(r *http.Request) { r.SetBasicAuth("AC00000000000000000000000000000002", "token") }
	require.EqualValues(t, 20003, sms(t, server, text("+251911000001", "x"), stranger).body["code"])
	require.EqualValues(t, 20404, call(t, server, http.MethodGet, "/2010-04-01/Nothing.json", nil).body["code"])
	require.NoError(t, server.SetControl(sim.Control{FailRate: 1}))
	require.Equal(t, "1", sms(t, server, text("+251911000001", "x")).header.Get("Retry-After"))
	require.NoError(t, server.SetControl(sim.Control{RefuseLogin: true}))
	require.Equal(t, http.StatusUnauthorized, sms(t, server, text("+251911000001", "x")).status)
	require.Empty(t, records(t, server))
}

func TestTwilioAccount(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{})
	got := call(t, server, http.MethodGet, "/2010-04-01/Accounts/"+account+".json", nil)
	require.Equal(t, []any{account, "active"}, []any{got.body["sid"], got.body["status"]})
	key := func(r *http.Request) { r.SetBasicAuth("SK00000000000000000000000000000001", "secret") }
	require.Equal(t, http.StatusOK, call(t, server, http.MethodGet, "/2010-04-01/Accounts/"+account+"/Messages.json?PageSize=1", nil, key).status)
}

var errAnswered = errors.New("answered")

// TestStopEndsSilence: a request that never gets an answer does not hold the server.
func TestStopEndsSilence(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{})
	done := make(chan error, 1)
	go func() {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, server.APIURL()+"/2010-04-01/Accounts/"+account+"/Messages.json",
			strings.NewReader(text("+15005550041", "x").Encode()))
		if err == nil {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.SetBasicAuth(account, "token")
			var got *http.Response
			if got, err = (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r); err == nil {
				err = errors.Join(errAnswered, got.Body.Close())
			}
		}
		done <- err
	}()
	require.Eventually(t, func() bool {
		sum, err := sim.ReadJournal(server.journal)
		return err == nil && sum.Received == 1
	}, 5*time.Second, time.Millisecond)
	server.stop()
	require.NotErrorIs(t, <-done, errAnswered)
}
