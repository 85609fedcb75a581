// Package channeltest is the suite that every adapter passes: tables of one
// message, the provider's canned answers (a dialogue of lines, or replies to HTTP
// requests), what the provider must have seen, and the Result; and the laws that
// hold for all adapters. It never leaves the loopback interface, and it fails when a
// secret or the recipient's address shows up in a Result or in a log line.
package channeltest

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/services/messaging/channel"
)

// limit ends a test whose peer or adapter hangs.
const limit = 20 * time.Second

// Env is what the suite gives an adapter.
type Env struct {
	// Dialer leads every host to the case's peers.
	Dialer channel.Dialer
	// Roots trusts the certificate of peers that speak TLS.
	Roots *x509.CertPool
	// Clock is the machine's clock.
	Clock clock.Clock
	// Logger is watched for secrets.
	Logger *slog.Logger
}

// Suite describes one adapter.
type Suite struct {
	// New makes the adapter.
	New func(Env) channel.Adapter
	// Settings returns the settings of a healthy channel whose host is Hostname, or
	// Host.
	Settings func() channel.Settings
	// Host is the provider's own name, where the adapter knows it by itself; peers
	// that speak TLS prove it beside Hostname.
	Host string
	// Message returns a message that a healthy provider accepts.
	Message func() channel.Message
	// Secrets must show up nowhere.
	Secrets []string
	// Healthy is a peer that accepts the message, BreaksOff one that reads all of it and
	// ends the connection without an answer.
	Healthy, BreaksOff Peer
	// Polling answers a poll with the cursor "c0", where the sender is a Poller, and
	// Registers a registration, where it is a Registrar; nil otherwise.
	Polling, Registers Peer
	// Cases are the adapter's own table.
	Cases []Case
}

// Case is one row of the table.
type Case struct {
	// Name is the subtest.
	Name string
	// Settings changes the settings of the suite; may be nil.
	Settings func(channel.Settings) channel.Settings
	// Message changes the message of the suite; may be nil.
	Message func(*channel.Message)
	// Peers answer the connections in order; a further connection is refused.
	Peers []Peer
	// Sends is how many times the message is sent; 0 means once. Want is for the last.
	Sends int
	// Verify asks for the channel's settings instead of sending.
	Verify bool
	// Want is the expected Result.
	Want Want
	// Wire are texts that the provider must have seen, in this order.
	Wire []string
	// NotWire are texts that it must not have seen.
	NotWire []string
	// Check, if not nil, looks at everything the provider saw.
	Check func(t *testing.T, seen string)
}

// Want is what a Result must be.
type Want struct {
	Outcome       channel.Outcome
	Class         channel.Class
	Code, SubCode string
	// Text must be contained in Result.Text, and NotText, where there is one, must not.
	Text, NotText string
	RetryAfter    time.Duration
	ProviderIDs   []string
}

// Run runs the laws and the table.
func Run(t *testing.T, s Suite) {
	t.Helper()
	t.Run("laws", func(t *testing.T) {
		t.Parallel()
		laws(t, s)
	})
	for _, c := range s.Cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			runCase(t, s, c)
		})
	}
}

func runCase(t *testing.T, s Suite, c Case) {
	t.Helper()
	b := open(t, s, c)
	var res channel.Result
	for range max(c.Sends, 1) {
		if c.Verify {
			res = b.verify(t)
			continue
		}
		res = b.sender.Send(b.ctx, b.message)
		b.checkResult(t, res)
	}
	require.NoError(t, b.sender.Close())
	seen := b.peers.wait(t)
	checkWant(t, c.Want, res)
	rest := seen
	for _, text := range c.Wire {
		_, after, found := strings.Cut(rest, text)
		require.Truef(t, found, "the provider did not see %q (in this order) in:\n%s", text, seen)
		rest = after
	}
	for _, text := range c.NotWire {
		require.NotContains(t, seen, text)
	}
	if c.Check != nil {
		c.Check(t, seen)
	}
	b.checkLog(t)
}

func checkWant(t *testing.T, want Want, res channel.Result) {
	t.Helper()
	require.Equal(t, want.Outcome.String(), res.Outcome.String(), "outcome of %+v", res)
	require.Equal(t, want.Class.String(), res.Class.String(), "class of %+v", res)
	require.Equal(t, want.Code, res.Code, "code of %+v", res)
	require.Equal(t, want.SubCode, res.SubCode)
	require.Contains(t, res.Text, want.Text)
	if want.NotText != "" {
		require.NotContains(t, res.Text, want.NotText)
	}
	require.Equal(t, want.RetryAfter, res.RetryAfter)
	require.Equal(t, want.ProviderIDs, res.ProviderIDs)
}

// bench is one case at work.
type bench struct {
	ctx     context.Context
	secrets []string
	sender  channel.Sender
	message channel.Message
	peers   *peers
	log     *logBuffer
}

func open(t *testing.T, s Suite, c Case) *bench {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	b := &bench{ctx: ctx, secrets: s.Secrets, message: s.Message(), peers: listen(t, c.Peers, Hostname, s.Host), log: &logBuffer{}}
	if c.Message != nil {
		c.Message(&b.message)
	}
	settings := s.Settings()
	if c.Settings != nil {
		settings = c.Settings(settings)
	}
	adapter := s.New(Env{
		Dialer: b.peers, Roots: b.peers.roots, Clock: clock.System(),
		Logger: telemetry.NewLogger(b.log, slog.LevelDebug),
	})
	var err error
	b.sender, err = adapter.Open(settings)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.sender.Close() })
	return b
}

// verify also holds what is true of every answer of Verify.
func (b *bench) verify(t *testing.T) channel.Result {
	t.Helper()
	v, ok := b.sender.(channel.Verifier)
	require.True(t, ok, "the sender is no Verifier")
	res := v.Verify(b.ctx)
	require.Equal(t, res.Class == channel.ClassOK, res.Outcome == channel.Accepted, "%+v", res)
	require.Contains(t, []channel.Outcome{channel.Accepted, channel.NotSent}, res.Outcome)
	require.Empty(t, res.RawExcerpt)
	b.checkText(t, res)
	return res
}

// checkResult holds what is true of every Result.
func (b *bench) checkResult(t *testing.T, res channel.Result) {
	t.Helper()
	require.NotEqual(t, "invalid", res.Outcome.String())
	require.NotEqual(t, "invalid", res.Class.String())
	require.Equal(t, res.Outcome == channel.Accepted, res.Class == channel.ClassOK, "%+v", res)
	require.Equal(t, res.Outcome == channel.Unknown, res.Class == channel.ClassUnknown, "%+v", res)
	if res.Outcome == channel.Accepted {
		require.NotEmpty(t, res.ProviderIDs)
	}
	b.checkText(t, res)
}

// checkText holds what is true of every text in a Result.
func (b *bench) checkText(t *testing.T, res channel.Result) {
	t.Helper()
	require.LessOrEqual(t, len(res.Text), channel.MaxText)
	require.LessOrEqual(t, len(res.RawExcerpt), channel.MaxExcerpt)
	require.LessOrEqual(t, res.RetryAfter, channel.MaxRetryAfter)
	for _, text := range []string{res.Text, res.RawExcerpt, res.Code, res.SubCode} {
		require.True(t, utf8.ValidString(text))
		require.False(t, strings.ContainsAny(text, "\r\n\x00"), "%q is not one line", text)
		b.checkSecrets(t, text)
	}
}

func (b *bench) checkSecrets(t *testing.T, text string) {
	t.Helper()
	for _, secret := range append([]string{b.message.To}, b.secrets...) {
		if secret != "" {
			require.NotContains(t, text, secret)
		}
	}
}

func (b *bench) checkLog(t *testing.T) {
	t.Helper()
	b.checkSecrets(t, b.log.String())
}

// logBuffer is a bytes.Buffer for concurrent writers.
type logBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write appends to the buffer.
func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

// String returns what was written.
func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

var _ channel.Dialer = (*peers)(nil)

// DialContext leads every address to the peers.
func (p *peers) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	p.mu.Lock()
	p.dialed = append(p.dialed, address)
	refusal := p.refuse
	p.mu.Unlock()
	if refusal != nil {
		return nil, refusal
	}
	return new(net.Dialer).DialContext(ctx, "tcp", p.listener.Addr().String())
}

// ExemptConn reports false: a test that needs plaintext says so in the settings.
func (p *peers) ExemptConn(net.Conn) bool { return false }
