package email_test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/jhillyerd/enmime/v2"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/channel/email"
)

// reference is a server that shares no code with ours, so that adapter and
// simulator cannot agree on a mistake.
type reference struct {
	mu       sync.Mutex
	messages [][]byte
	keep     bool
}

func startReference(t testing.TB, keep bool) (*reference, string) {
	t.Helper()
	backend := &reference{keep: keep}
	server := smtp.NewServer(backend)
	server.AllowInsecureAuth = true
	server.ErrorLog = log.New(io.Discard, "", 0)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		require.NoError(t, <-done)
	})
	return backend, listener.Addr().String()
}

// NewSession begins a connection.
func (r *reference) NewSession(*smtp.Conn) (smtp.Session, error) { return &referenceSession{r}, nil }

type referenceSession struct{ server *reference }

// AuthMechanisms offers PLAIN.
func (s *referenceSession) AuthMechanisms() []string { return []string{sasl.Plain} }

// Auth accepts the user of settingsFor.
func (s *referenceSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "user" || password != "correct horse" {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

// Mail accepts every sender.
func (s *referenceSession) Mail(string, *smtp.MailOptions) error { return nil }

// Rcpt accepts every recipient.
func (s *referenceSession) Rcpt(string, *smtp.RcptOptions) error { return nil }

// Data keeps the message.
func (s *referenceSession) Data(r io.Reader) error {
	content, err := io.ReadAll(r)
	if err == nil && s.server.keep {
		s.server.mu.Lock()
		s.server.messages = append(s.server.messages, content)
		s.server.mu.Unlock()
	}
	return err
}

// Reset has nothing to forget.
func (s *referenceSession) Reset() {}

// Logout ends the connection.
func (s *referenceSession) Logout() error { return nil }

func TestAgainstAnotherServer(t *testing.T) {
	t.Parallel()
	server, addr := startReference(t, true)
	adapter := email.New(email.Config{Dialer: loopback(t), Clock: clock.System()})
	sender, err := adapter.Open(settingsFor(t, addr))
	require.NoError(t, err)
	defer sender.Close()
	for i := range 20 {
		m := to("bob@example.test", i)
		m.Subject, m.Text, m.HTML = fmt.Sprintf("Grüße Nr. %d", i), ".Hallo Köln\n", "<p>Hallo Köln</p>\n"
		require.Equal(t, channel.Accepted, sender.Send(t.Context(), m).Outcome)
	}
	require.Len(t, server.messages, 20)
	for i, content := range server.messages {
		parsed, err := enmime.ReadEnvelope(bytes.NewReader(content))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("Grüße Nr. %d", i), parsed.GetHeader("Subject"))
		require.Contains(t, parsed.Text, ".Hallo Köln")
		require.Contains(t, parsed.HTML, "<p>Hallo Köln</p>")
	}
}
