package email_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/channel/email"
	"github.com/turumba/turumba/sim"
)

// openTo opens a channel to the simulator.
func openTo(t *testing.T, server *sim.Server, change func(*channel.EmailSettings), timeouts email.Timeouts) channel.Sender {
	t.Helper()
	set := settingsFor(t, server.SMTPAddr())
	if change != nil {
		change(&set)
	}
	adapter := email.New(email.Config{Dialer: loopback(t), Clock: clock.System(), RootCAs: server.Roots(), Timeouts: timeouts})
	sender, err := adapter.Open(set)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sender.Close()) })
	return sender
}

func to(address string, n int) channel.Message {
	m := message()
	m.To, m.ID = address, fmt.Sprintf("0190a000-0000-7000-8000-%012d", n)
	return m
}

// TestEveryScript holds the adapter against what the simulator really did: a
// message is in the journal exactly when the outcome says so, or is unknown.
func TestEveryScript(t *testing.T) {
	t.Parallel()
	journal := filepath.Join(t.TempDir(), "journal")
	server := startSim(t, sim.Config{Journal: journal, Username: "user", Password: "correct horse"})
	sender := openTo(t, server, nil, email.Timeouts{DataEnd: 300 * time.Millisecond})
	for i, row := range []struct {
		to      string
		outcome channel.Outcome
		class   channel.Class
		taken   bool
	}{
		{"bob@example.test", channel.Accepted, channel.ClassOK, true},
		{"mary-ann@example.test", channel.Accepted, channel.ClassOK, true},
		{"slow-20-bob@example.test", channel.Accepted, channel.ClassOK, true},
		{"nouser-bob@example.test", channel.Rejected, channel.ClassPermanentRecipient, false},
		{"full-bob@example.test", channel.Rejected, channel.ClassDeferred, false},
		{"quota-bob@example.test", channel.Rejected, channel.ClassDeferred, false},
		{"grey-bob@example.test", channel.Rejected, channel.ClassDeferred, false},
		{"busy-bob@example.test", channel.Rejected, channel.ClassRateLimited, false},
		{"rset-before-bob@example.test", channel.NotSent, channel.ClassTransient, false},
		{"nodata-bob@example.test", channel.Rejected, channel.ClassRateLimited, false},
		{"tempfail-bob@example.test", channel.Rejected, channel.ClassTransient, false},
		{"slow-20-tempfail-bob@example.test", channel.Rejected, channel.ClassTransient, false},
		{"toobig-bob@example.test", channel.Rejected, channel.ClassPermanentContent, false},
		{"spam-bob@example.test", channel.Rejected, channel.ClassPermanentContent, false},
		{"reset-bob@example.test", channel.Unknown, channel.ClassUnknown, true},
		{"silent-bob@example.test", channel.Unknown, channel.ClassUnknown, true},
		{"last@example.test", channel.Accepted, channel.ClassOK, true},
	} {
		before, err := sim.ReadJournal(journal)
		require.NoError(t, err)
		res := sender.Send(t.Context(), to(row.to, i))
		require.Equal(t, row.outcome.String(), res.Outcome.String(), "%s: %+v", row.to, res)
		require.Equal(t, row.class.String(), res.Class.String(), "%s: %+v", row.to, res)
		after, err := sim.ReadJournal(journal)
		require.NoError(t, err)
		require.Equal(t, row.taken, after.Received == before.Received+1, row.to)
	}
}

// TestManySendersLoseNothing sends concurrently over few connections through TLS.
func TestManySendersLoseNothing(t *testing.T) {
	t.Parallel()
	for _, mode := range []channel.TLSMode{channel.TLSStartTLS, channel.TLSImplicit} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			journal := filepath.Join(t.TempDir(), "journal")
			server := startSim(t, sim.Config{Journal: journal, TLS: sim.TLSMode(mode), Username: "user", Password: "correct horse"})
			sender := openTo(t, server, func(s *channel.EmailSettings) {
				s.TLS, s.AllowPlaintext, s.Connections, s.MaxPerConnection = mode, false, 4, 10
			}, email.Timeouts{})
			var group sync.WaitGroup
			for worker := range 16 {
				group.Go(func() {
					for i := range 10 {
						res := sender.Send(t.Context(), to(fmt.Sprintf("c%d@example.test", i), worker*10+i))
						if res.Outcome != channel.Accepted {
							t.Errorf("%+v", res)
						}
					}
				})
			}
			group.Wait()
			sum, err := sim.ReadJournal(journal)
			require.NoError(t, err)
			require.Equal(t, sim.Summary{Received: 160, Distinct: 160}, sum)
		})
	}
}

func TestRefusedLoginMends(t *testing.T) {
	t.Parallel()
	server := startSim(t, sim.Config{Username: "user", Password: "correct horse"})
	require.NoError(t, server.SetControl(sim.Control{RefuseLogin: true}))
	sender := openTo(t, server, nil, email.Timeouts{Refused: time.Nanosecond})
	res := sender.Send(t.Context(), to("bob@example.test", 1))
	require.Equal(t, channel.ClassConfig, res.Class)
	require.Equal(t, "5.7.8", res.SubCode)
	require.NoError(t, server.SetControl(sim.Control{}))
	require.Equal(t, channel.Accepted, sender.Send(t.Context(), to("bob@example.test", 1)).Outcome)
}

func TestVerify(t *testing.T) {
	t.Parallel()
	server := startSim(t, sim.Config{TLS: sim.TLSStartTLS, Username: "user", Password: "correct horse"})
	implicit := startSim(t, sim.Config{TLS: sim.TLSImplicit})
	verify := func(server *sim.Server, change func(*channel.EmailSettings)) channel.Result {
		sender := openTo(t, server, func(s *channel.EmailSettings) {
			s.TLS, s.AllowPlaintext = channel.TLSStartTLS, false
			if change != nil {
				change(s)
			}
		}, email.Timeouts{Verify: 2 * time.Second})
		return sender.(channel.Verifier).Verify(t.Context())
	}
	require.Equal(t, channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK}, verify(server, nil))
	require.Equal(t, "535", verify(server, func(s *channel.EmailSettings) { s.Password = config.Secret("wrong") }).Code)
	unreachable := verify(server, func(s *channel.EmailSettings) { s.Port = 1 })
	require.Equal(t, "connect_failed", unreachable.Code)
	require.Equal(t, unreachable, verify(server, func(s *channel.EmailSettings) { s.Host = "10.1.2.3" }), "a forbidden address looks like a closed port")
	require.Equal(t, unreachable, verify(server, func(s *channel.EmailSettings) { s.TLS = channel.TLSImplicit }), "no TLS there")
	require.Equal(t, unreachable, verify(implicit, func(s *channel.EmailSettings) { s.TLS = channel.TLSStartTLS }), "a server that says nothing")
}

func TestSendStopsWithContext(t *testing.T) {
	t.Parallel()
	journal := filepath.Join(t.TempDir(), "journal")
	server := startSim(t, sim.Config{Journal: journal, Username: "user", Password: "correct horse"})
	sender := openTo(t, server, nil, email.Timeouts{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	waiting := make(chan channel.Result, 1)
	go func() { waiting <- sender.Send(ctx, to("silent-bob@example.test", 1)) }()
	res := <-waiting
	require.Equal(t, channel.Unknown, res.Outcome)
	require.Equal(t, "cancelled", res.Code)
	require.Equal(t, channel.Accepted, sender.Send(t.Context(), to("bob@example.test", 2)).Outcome, "the next send gets a new connection")
}
