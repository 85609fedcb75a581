package chaos_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/cmd/turumba/demo"
	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging/postgres"
	"github.com/turumba/turumba/sim"
)

// inFlight is the most messages of one worker and channel whose outcome a kill
// can leave unknown.
const inFlight = 256

// size is how large the run is: CHAOS_RECIPIENTS and CHAOS_KILLS, or a small one.
func size(t *testing.T) (recipients, kills int) {
	t.Helper()
	return setting(t, "CHAOS_RECIPIENTS", 3000), setting(t, "CHAOS_KILLS", 2)
}

// setting is a number of the environment.
func setting(t *testing.T, name string, fallback int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

// book is the ledger under test and the journal that it is held against.
type book struct {
	t         *testing.T
	url       string // of the messaging database, as its administrator
	simulator *single.Simulator
	total     int
}

// send plays the demo in the background: it follows the send through every kill.
func (b *book) send(baseURL string) <-chan error {
	host, port := b.simulator.HostPort()
	done := make(chan error, 1)
	go func() {
		res, err := demo.Run(b.t.Context(), demo.Config{
			BaseURL: baseURL, SMTPHost: host, SMTPPort: port, Contacts: b.total, Connections: 32,
			Code: b.simulator.Code, Clock: clock.System(), Out: io.Discard,
		})
		if err == nil && res.Recipients != b.total {
			err = errors.New("the send has " + strconv.Itoa(res.Recipients) + " recipients")
		}
		done <- err
	}()
	return done
}

// slow makes each message take a while, so that there is time to kill.
func (b *book) slow(latencyMS int) {
	b.t.Helper()
	slow(b.t, b.simulator, latencyMS)
}

// slow lets the provider take its time for every message.
func slow(t *testing.T, simulator *single.Simulator, latencyMS int) {
	t.Helper()
	body := strings.NewReader(`{"latency_ms":` + strconv.Itoa(latencyMS) + `}`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, simulator.Mailbox+"/control", body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Timeout: 5 * time.Second}).Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)
}

// query runs one on a connection of its own: the server is killed too.
func (b *book) query(fn func(ctx context.Context, conn *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is pending on it
	return fn(ctx, conn)
}

// until waits for the send to have n outcomes.
func (b *book) until(n int) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		var have int
		err := b.query(func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT coalesce(sum(sent_count + failed_count), 0)::int FROM group_messages").Scan(&have)
		})
		return err == nil && have >= n
	}, patience, 10*time.Millisecond, "%d outcomes", n)
}

// check looks for what must never be.
func (b *book) check() {
	b.t.Helper()
	require.NoError(b.t, b.query(func(ctx context.Context, conn *pgx.Conn) error {
		problems, err := postgres.CheckLedger(ctx, conn)
		require.Empty(b.t, problems)
		return err
	}))
}

// compare holds the ledger against the journal when the send has ended.
func (b *book) compare(kills int) {
	b.t.Helper()
	b.check()
	received, duplicates := b.journal()
	sent, unknown, lost, strange := 0, 0, 0, len(received)
	require.NoError(b.t, b.query(func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "SELECT id::text, status, coalesce(error_code, '') FROM messages")
		if err != nil {
			return err
		}
		var id, status, code string
		_, err = pgx.ForEachRow(rows, []any{&id, &status, &code}, func() error {
			got := received[id]
			if got {
				strange--
			}
			switch {
			case status == "sent":
				sent++
				if !got {
					lost++
				}
			case code == "outcome_unknown":
				unknown++
			case got:
				return errors.New("message " + id + " was received and is " + status)
			}
			return nil
		})
		return err
	}))
	b.t.Logf("%d kills: %d recipients = %d sent + %d unknown; received %d, lost %d, duplicates %d", kills, b.total, sent, unknown, len(received), lost, duplicates)
	require.Zero(b.t, lost, "sent and not received")
	require.Zero(b.t, duplicates, "received twice")
	require.Zero(b.t, strange, "received and not in the ledger")
	require.Equal(b.t, b.total, sent+unknown)
	require.LessOrEqual(b.t, unknown, kills*inFlight)
}

// journal is what the simulator received, by our message id, without the mail
// with the verification code.
func (b *book) journal() (received map[string]bool, duplicates int) {
	b.t.Helper()
	f, err := os.Open(b.simulator.Journal)
	require.NoError(b.t, err)
	defer func() { _ = f.Close() }() // it was only read
	received = map[string]bool{}
	for r, err := range sim.Records(f) {
		require.NoError(b.t, err)
		id, domain, _ := strings.Cut(r.MessageID, "@")
		if domain != "demo.example" {
			continue
		}
		if received[id] {
			duplicates++
		}
		received[id] = true
	}
	return received, duplicates
}
