package security_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/world"
	"github.com/turumba/turumba/worker/relay"
)

// echoes are providers that say back what they were told in confidence.
type echoes struct {
	http *httptest.Server
	smtp net.Listener
	said atomic.Int64
	// told is what they were told in confidence.
	told sink
}

func newEchoes(t *testing.T) *echoes {
	t.Helper()
	e := &echoes{}
	e.http = httptest.NewServer(http.HandlerFunc(e.twilio))
	t.Cleanup(e.http.Close)
	var err error
	e.smtp, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var serving sync.WaitGroup
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	serving.Go(func() {
		for {
			conn, err := e.smtp.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { e.mail(ctx, conn) })
		}
	})
	t.Cleanup(func() {
		cancel()
		require.NoError(t, e.smtp.Close())
		serving.Wait()
	})
	return e
}

// allow is the exception for both in EGRESS_ALLOW.
func (e *echoes) allow() string {
	return fmt.Sprintf("127.0.0.1/32:%d,127.0.0.1/32:%d", port(e.smtp.Addr()), port(e.http.Listener.Addr()))
}

func port(a net.Addr) int {
	tcp, _ := a.(*net.TCPAddr)
	return tcp.Port
}

// settings are credentials of a kind without the secret, and the secret's field.
func (e *echoes) settings(kind string) (settings map[string]any, secret string) {
	twilio := map[string]any{"account_sid": "AC00000000000000000000000000000009", "from_number": "+15550001111", "base_url": e.http.URL}
	switch kind {
	case "twilio":
		return twilio, "auth_token"
	case "twilio by key":
		twilio["api_key_sid"] = "SK00000000000000000000000000000009"
		return twilio, "api_key_secret"
	}
	username := "refused"
	if kind == "smtp that fails later" {
		username = "later"
	}
	return map[string]any{
		"host": "127.0.0.1", "port": port(e.smtp.Addr()), "tls_mode": "none", "allow_plaintext": true, "from_email": "a@golden.example", "username": username,
	}, "password"
}

// spoilt are settings that are refused.
func (e *echoes) spoilt(kind string, settings any) map[string]any {
	with, _ := settings.(map[string]any)
	if kind == "smtp" {
		with["host"] = ""
	} else {
		with["account_sid"] = "no sid"
	}
	return with
}

// recipients ask for each answer that a provider can give; the one that makes the
// channel give up is the last.
func (e *echoes) recipients(kind string) []string {
	if kind == "smtp" {
		return []string{"somebody@golden.example"}
	}
	return []string{"+15550009005", "+15550009002", "+15550009003", "+15550009004", "+15550009001"}
}

// twilio answers by the last digit of the recipient.
func (e *echoes) twilio(w http.ResponseWriter, r *http.Request) {
	e.said.Add(1)
	user, password, _ := r.BasicAuth()
	heard := fmt.Sprintf("you said %s, which is %s:%s", r.Header.Get("Authorization"), user, password)
	_, _ = io.WriteString(&e.told, heard+"\n")
	to := r.PostFormValue("To")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Heard", heard)
	answer := func(status, code int) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"code":%d,"message":%q,"more_info":%q,"status":%d}`, code, heard, heard, status)
	}
	switch {
	case strings.HasSuffix(to, "2"):
		answer(http.StatusBadRequest, 21211)
	case strings.HasSuffix(to, "3"):
		answer(http.StatusInternalServerError, 20500)
	case strings.HasSuffix(to, "4"):
		_, _ = io.WriteString(w, "<html>"+heard)
	case strings.HasSuffix(to, "5"):
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"sid":"SM00000000000000000000000000000009","status":"queued","error_message":%q}`, heard)
	default:
		answer(http.StatusUnauthorized, 20003)
	}
}

// mail refuses the login, or lets "later" in and refuses everything after.
func (e *echoes) mail(ctx context.Context, conn net.Conn) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	say := func(text string) { _, _ = io.WriteString(conn, text+"\r\n") }
	say("220 parrot.example ESMTP")
	heard := ""
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		verb, rest, _ := strings.Cut(lines.Text(), " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-parrot.example\r\n250 AUTH PLAIN")
		case "AUTH":
			e.said.Add(1)
			encoded := strings.TrimPrefix(rest, "PLAIN ")
			decoded, _ := base64.StdEncoding.DecodeString(encoded)
			heard = strings.ReplaceAll(string(decoded), "\x00", " ") + " as " + encoded
			_, _ = io.WriteString(&e.told, heard+"\n")
			if strings.Contains(heard, "later") {
				say("235 hello " + heard)
				continue
			}
			say("535 5.7.8 no " + heard)
		case "QUIT":
			say("221 bye " + heard)
			return
		case "RSET", "NOOP":
			say("250 ok")
		default:
			say("550 5.1.1 no " + heard)
		}
	}
}

// spanSink is a collector that keeps the spans as they came.
type spanSink struct {
	sink
	url string
}

func newSpanSink(t *testing.T) *spanSink {
	t.Helper()
	s := &spanSink{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if unzipped, err := gzip.NewReader(r.Body); r.Header.Get("Content-Encoding") == "gzip" && err == nil {
			body = unzipped
		}
		if _, err := io.Copy(s, body); err != nil {
			t.Errorf("spans: %v", err)
		}
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// queuesOf takes every message out of every queue: what the audit queue saw of all
// events, what still waits, and the dead letters.
func queuesOf(t *testing.T, url string) []byte {
	t.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	ch, err := conn.Channel()
	require.NoError(t, err)
	topology := relay.Topology(true, true)
	names := []string{topology.DeadLetterQueue}
	for _, q := range topology.Queues {
		names = append(names, q.Name)
	}
	all := &sink{}
	for _, name := range names {
		for {
			d, ok, err := ch.Get(name, true)
			require.NoError(t, err)
			if !ok {
				break
			}
			fmt.Fprintf(all, "%s %s %v\n%s\n", d.RoutingKey, d.MessageId, d.Headers, d.Body)
		}
	}
	return all.bytes()
}

// dump is every row of every table of a database.
func dump(t *testing.T, w *world.World, database string) []byte {
	t.Helper()
	all := &sink{}
	w.SQL(t, database, func(ctx context.Context, conn *pgx.Conn) {
		rows, err := conn.Query(ctx, `
			SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema')`)
		require.NoError(t, err)
		tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.NotEmpty(t, tables)
		for _, table := range tables {
			_, err := conn.PgConn().CopyTo(ctx, all, "COPY (SELECT t::text FROM "+table+" AS t) TO STDOUT")
			require.NoError(t, err, table)
		}
	})
	return all.bytes()
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	res, err := client.Do(req)
	require.NoError(t, err)
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return raw
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}
