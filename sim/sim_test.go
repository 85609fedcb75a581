package sim_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type running struct {
	*sim.Server
	journal string
	stop    func()
}

func start(t *testing.T, cfg sim.Config) *running {
	t.Helper()
	if cfg.Journal == "" {
		cfg.Journal = filepath.Join(t.TempDir(), "journal.jsonl")
	}
	server, err := sim.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return &running{Server: server, journal: cfg.Journal, stop: stop}
}

func mailTo(id, text string) string {
	return "From: Sender <news@sender.example>\r\nTo: bob@example.test\r\nMessage-ID: <" + id + ">\r\n" +
		"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n" + text
}

// send uses a client that shares no code with the server.
func send(t *testing.T, server *running, to, content string) error {
	t.Helper()
	client, err := smtp.Dial(server.SMTPAddr())
	require.NoError(t, err)
	defer client.Close()
	return client.SendMail("news@sender.example", []string{to}, strings.NewReader(content))
}

func code(err error) int {
	var reply *smtp.SMTPError
	if errors.As(err, &reply) {
		return reply.Code
	}
	return 0
}

func TestScripts(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{})
	for to, want := range map[string]int{
		"nouser-a@x.test": 550, "full-a@x.test": 452, "quota-a@x.test": 552, "grey-a@x.test": 451, "busy-a@x.test": 421,
		"nodata-a@x.test": 451, "tempfail-a@x.test": 451, "toobig-a@x.test": 552, "spam-a@x.test": 554, "slow-1-spam-a@x.test": 554,
	} {
		require.Equal(t, want, code(send(t, server, to, mailTo("1@x", "hi"))), to)
	}
	err := send(t, server, "rset-before-a@x.test", mailTo("1@x", "hi"))
	require.Error(t, err)
	require.Zero(t, code(err))
	sum, err := sim.ReadJournal(server.journal)
	require.NoError(t, err)
	require.Zero(t, sum.Received)
	require.Error(t, send(t, server, "reset-a@x.test", mailTo("1@x", "hi")))
	for _, to := range []string{"a@x.test", "slow-5-a@x.test", "slow-x-a@x.test", "any-thing@x.test"} {
		require.NoError(t, send(t, server, to, mailTo("1@x", "hi")))
	}
	sum, err = sim.ReadJournal(server.journal)
	require.NoError(t, err)
	require.Equal(t, sim.Summary{Received: 5, Distinct: 5}, sum)
}

func TestLoginAndTLS(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{TLS: sim.TLSStartTLS, Username: "user", Password: "secret"})
	require.Equal(t, 530, code(send(t, server, "a@x.test", mailTo("1@x", "hi"))))
	login := func(password string) error {
		client, err := smtp.DialStartTLS(server.SMTPAddr(), &tls.Config{RootCAs: server.Roots(), ServerName: "localhost"})
		require.NoError(t, err)
		defer client.Close()
		if err := client.Auth(sasl.NewPlainClient("", "user", password)); err != nil {
			return err
		}
		return client.SendMail("news@sender.example", []string{"a@x.test"}, strings.NewReader(mailTo("1@x", "hi")))
	}
	require.NoError(t, login("secret"))
	require.Equal(t, 535, code(login("wrong")))
	require.NoError(t, server.SetControl(sim.Control{RefuseLogin: true}))
	require.Equal(t, 535, code(login("secret")))

	implicit := start(t, sim.Config{TLS: sim.TLSImplicit, Username: "user", Password: "secret"})
	client, err := smtp.DialTLS(implicit.SMTPAddr(), &tls.Config{RootCAs: implicit.Roots(), ServerName: "localhost"})
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.Auth(sasl.NewLoginClient("user", "secret")))
}

// TestDialogue speaks by hand what no client library would say.
func TestDialogue(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{MaxMessageBytes: 2000})
	conn, err := textproto.Dial("tcp", server.SMTPAddr())
	require.NoError(t, err)
	defer conn.Close()
	step := func(want int, lines string) {
		t.Helper()
		_, err := conn.W.WriteString(lines)
		require.NoError(t, err)
		require.NoError(t, conn.W.Flush())
		_, text, err := conn.ReadResponse(want)
		require.NoError(t, err, text)
	}
	content := func(want int, text string) {
		t.Helper()
		step(250, "RSET\r\n")
		step(250, "MAIL FROM:<>\r\n")
		step(250, "RCPT TO:<a@x.test>\r\n")
		step(354, "DATA\r\n")
		step(want, text+"\r\n.\r\n")
	}
	step(220, "")
	step(503, "MAIL FROM:<a@x.test>\r\n")
	step(250, "HELO me\r\n")
	step(500, "WHAT\r\n")
	step(502, "STARTTLS\r\n")
	step(503, "AUTH PLAIN\r\n")
	step(503, "RCPT TO:<a@x.test>\r\n")
	step(503, "DATA\r\n")
	step(501, "MAIL TO:<a@x.test>\r\n")
	step(250, "MAIL FROM:<a@x.test> SIZE=1\r\n")
	step(503, "MAIL FROM:<a@x.test>\r\n")
	step(501, "RCPT TO:a@x.test\r\n")
	step(501, "RCPT TO:<>\r\n")
	content(250, "..dot\r\n...\r\nfine")
	content(554, "bare\nLF")
	content(554, "NUL\x00")
	content(554, strings.Repeat("x", 999))
	content(552, strings.Repeat("0123456789\r\n", 400))
	content(250, strings.Repeat("x", 998))
	step(550, "RSET\r\nMAIL FROM:<badfrom-a@x.test>\r\n"[6:])
	step(250, "NOOP\r\n")
	step(221, "QUIT\r\n")
	sum, err := sim.ReadJournal(server.journal)
	require.NoError(t, err)
	require.EqualValues(t, 2, sum.Received)
	require.Contains(t, body(t, server.URL()+"/messages/1/raw"), ".dot\r\n..\r\nfine\r\n")
}

func TestLongCommandEndsTheSession(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{})
	conn, err := textproto.Dial("tcp", server.SMTPAddr())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Cmd("NOOP %s", strings.Repeat("x", 20_000))
	require.NoError(t, err)
	_, _, err = conn.ReadResponse(220)
	require.NoError(t, err)
	_, _, err = conn.ReadResponse(500)
	require.NoError(t, err)
	_, err = conn.ReadLine()
	require.Error(t, err)
}

func TestJournalContinues(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	first := start(t, sim.Config{Journal: path})
	require.NoError(t, send(t, first, "a@x.test", mailTo("1@x", "hi")))
	require.NoError(t, send(t, first, `o'"neil\@x.test`, mailTo("", "hi")))
	first.stop()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = file.WriteString(`{"t":"2026-01-01T00:00:00.000Z","n":3,"to":"to`)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	sum, err := sim.ReadJournal(path)
	require.NoError(t, err, "a torn last line is tolerated")
	require.EqualValues(t, 2, sum.Received)

	second := start(t, sim.Config{Journal: path})
	require.NoError(t, send(t, second, "a@x.test", mailTo("1@x", "hi")))
	second.stop()
	file, err = os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	var numbers []int64
	var to []string
	for record, err := range sim.Records(file) {
		require.NoError(t, err)
		numbers, to = append(numbers, record.N), append(to, record.To)
		require.Len(t, record.CRC32C, 8)
		require.NotZero(t, record.Bytes)
	}
	require.Equal(t, []int64{1, 2, 3}, numbers)
	require.Equal(t, []string{"a@x.test", `o'"neil\@x.test`, "a@x.test"}, to)
	sum, err = sim.ReadJournal(path)
	require.NoError(t, err)
	require.Equal(t, sim.Summary{Received: 3, Distinct: 2, Duplicates: 1}, sum)
}

func body(t *testing.T, url string) string {
	t.Helper()
	_, text := get(t, url)
	return text
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	return do(t, req)
}

func do(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NotEmpty(t, res.Header.Get("Content-Security-Policy"))
	return res.StatusCode, string(text)
}

func TestMailbox(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{KeepFirst: 2, KeepRecent: 3})
	for i := range 8 {
		require.NoError(t, send(t, server, fmt.Sprintf("c%d@x.test", i), mailTo(fmt.Sprintf("%d@x", i), fmt.Sprintf("Your code is %06d", i))))
	}
	html := "Content-Type: text/html\r\n\r\n<p>Hi <script>alert(1)</script></p>"
	require.NoError(t, send(t, server, "html@x.test", "Subject: <b>x</b>\r\n"+html))

	var kept []int64
	for _, m := range server.Messages("", 100) {
		kept = append(kept, m.N)
	}
	require.Equal(t, []int64{9, 8, 7, 2, 1}, kept)
	got := server.Messages("C1@x.test", 10)
	require.Len(t, got, 1)
	require.Equal(t, "Grüße", got[0].Subject)
	require.Equal(t, "1@x", got[0].MessageID)
	require.Contains(t, got[0].Text, "Your code is 000001")

	var one sim.Message
	require.NoError(t, json.Unmarshal([]byte(body(t, server.URL()+"/api/messages/2")), &one))
	require.Equal(t, got[0], one)
	var list struct{ Messages []sim.Message }
	require.NoError(t, json.Unmarshal([]byte(body(t, server.URL()+"/api/messages?limit=2")), &list))
	require.Len(t, list.Messages, 2)
	require.Empty(t, list.Messages[0].Text)

	page := body(t, server.URL()+"/")
	require.Contains(t, page, "&lt;b&gt;x&lt;/b&gt;")
	require.Contains(t, page, "nouser-")
	require.NotContains(t, body(t, server.URL()+"/messages/9"), "alert")
	require.Contains(t, body(t, server.URL()+"/messages/9/html"), "<p>Hi")
	require.Contains(t, body(t, server.URL()+"/style.css"), "body")
	for path, want := range map[string]int{
		"/messages/3": 404, "/messages/x": 404, "/nothing": 404, "/api/messages?limit=0": 400, "/?limit=x": 400, "/healthz": 200,
	} {
		status, _ := get(t, server.URL()+path)
		require.Equal(t, want, status, path)
	}
}

func TestControl(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{})
	post := func(media, text string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL()+"/control", strings.NewReader(text))
		require.NoError(t, err)
		req.Header.Set("Content-Type", media)
		status, _ := do(t, req)
		return status
	}
	require.Equal(t, 415, post("text/plain", `{"fail_rate":1}`))
	require.Equal(t, 400, post("application/json", `{"nonsense":1}`))
	require.Equal(t, 422, post("application/json", `{"fail_rate":2}`))
	require.Equal(t, 422, post("application/json", `{"latency_ms":-1}`))
	require.Equal(t, 200, post("application/json", `{"fail_rate":1}`))
	require.Equal(t, 200, post("application/json", `{"latency_ms":1}`))
	require.Equal(t, sim.Control{LatencyMS: 1, FailRate: 1}, server.Control())
	require.Equal(t, 451, code(send(t, server, "a@x.test", mailTo("1@x", "hi"))))
	require.Contains(t, body(t, server.URL()+"/control"), `"fail_rate": 1`)
	var status sim.Status
	require.NoError(t, json.Unmarshal([]byte(body(t, server.URL()+"/api/status")), &status))
	require.Equal(t, server.SMTPAddr(), status.SMTP)
}

func TestNewFailsPlainly(t *testing.T) {
	t.Parallel()
	_, err := sim.New(sim.Config{Journal: filepath.Join(t.TempDir(), "no", "such", "folder")})
	require.ErrorContains(t, err, "open journal")
	server := start(t, sim.Config{})
	_, err = sim.New(sim.Config{Journal: filepath.Join(t.TempDir(), "j"), SMTPAddr: server.SMTPAddr()})
	require.ErrorContains(t, err, "listen for SMTP")
	unused, err := sim.New(sim.Config{Journal: filepath.Join(t.TempDir(), "j")})
	require.NoError(t, err)
	require.NoError(t, unused.Close())
}
