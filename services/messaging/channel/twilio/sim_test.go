package twilio_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/channel/twilio"
	"github.com/turumba/turumba/sim"
)

// openTo starts a simulator and opens a channel to it, as an operator's EGRESS_ALLOW
// lets one.
func openTo(t *testing.T, allow string, timeouts twilio.Timeouts) (server *sim.Server, journal string, sender channel.Sender) {
	t.Helper()
	journal = filepath.Join(t.TempDir(), "journal")
	server, err := sim.New(sim.Config{Journal: journal})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	rules, err := egress.ParseAllow(allow)
	require.NoError(t, err)
	adapter := twilio.New(twilio.Config{Dialer: egress.NewDialer(egress.Options{Allow: rules}), Clock: clock.System(), Timeouts: timeouts})
	sender, err = adapter.Open(with(func(s *channel.TwilioSettings) { s.BaseURL, s.Connections = server.APIURL(), 4 })(settings()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sender.Close()) })
	return server, journal, sender
}

func to(number string) channel.Message {
	m := message()
	m.To = number
	return m
}

// TestEveryScript holds the adapter against what the simulator really did: a message
// that is in the journal is never refused, and one that is not is never accepted.
func TestEveryScript(t *testing.T) {
	t.Parallel()
	_, journal, sender := openTo(t, "127.0.0.1/32:*", twilio.Timeouts{Call: 300 * time.Millisecond})
	want := map[string]channel.Class{
		"+15005550001": channel.ClassPermanentRecipient, "+15005550002": channel.ClassPermanentRecipient, "+15005550003": channel.ClassConfig,
		"+15005550004": channel.ClassOptedOut, "+15005550009": channel.ClassPermanentRecipient, "+15005550010": channel.ClassRateLimited,
		"+15005550011": channel.ClassRateLimited, "+15005550012": channel.ClassRateLimited, "+15005550020": channel.ClassUnknown,
		"+15005550021": channel.ClassTransient, "+15005550022": channel.ClassUnknown, "+15005550030": channel.ClassConfig,
		"+15005550031": channel.ClassConfig, "+15005550032": channel.ClassBilling, "+15005550033": channel.ClassPermanentContent,
		"+15005550034": channel.ClassPermanentContent, "+15005550040": channel.ClassUnknown, "+15005550041": channel.ClassUnknown,
		"+15005550042": channel.ClassUnknown, "+15005550043": channel.ClassUnknown, "+15005550044": channel.ClassUnknown, "+15005550045": channel.ClassUnknown,
	}
	require.Len(t, want, len(sim.Phones()))
	taken := int64(0)
	for _, p := range sim.Phones() {
		res := sender.Send(t.Context(), to(p.Number))
		require.Equal(t, want[p.Number].String(), res.Class.String(), "%s (%s): %+v", p.Number, p.Meaning, res)
		if p.Script.Accept {
			taken++
			require.Equal(t, channel.Unknown, res.Outcome, p.Number)
		}
	}
	for _, number := range []string{"+251911000001", "+15005557020"} {
		require.Equal(t, channel.Accepted, sender.Send(t.Context(), to(number)).Outcome)
	}
	sum, err := sim.ReadJournal(journal)
	require.NoError(t, err)
	require.Equal(t, taken+2, sum.Received)
}

func TestManySendersLoseNothing(t *testing.T) {
	t.Parallel()
	_, journal, sender := openTo(t, "127.0.0.1/32:*", twilio.Timeouts{})
	var group sync.WaitGroup
	for worker := range 16 {
		group.Go(func() {
			for i := range 10 {
				if res := sender.Send(t.Context(), to(fmt.Sprintf("+2519110%02d%02d0", worker, i))); res.Outcome != channel.Accepted {
					t.Errorf("%+v", res)
				}
			}
		})
	}
	group.Wait()
	sum, err := sim.ReadJournal(journal)
	require.NoError(t, err)
	require.Equal(t, sim.Summary{Received: 160, Distinct: 160}, sum)
}

func TestLoginIsRefused(t *testing.T) {
	t.Parallel()
	server, _, sender := openTo(t, "127.0.0.1/32:*", twilio.Timeouts{})
	verifier := sender.(channel.Verifier)
	require.Equal(t, channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK}, verifier.Verify(t.Context()))
	require.NoError(t, server.SetControl(sim.Control{RefuseLogin: true}))
	require.Equal(t, "401", verifier.Verify(t.Context()).Code)
	require.Equal(t, channel.ClassConfig, sender.Send(t.Context(), to("+251911000001")).Class)
}

// TestBaseURLNeedsTheOperator: without a rule of EGRESS_ALLOW a base URL leads
// nowhere, and looks as a closed port does.
func TestBaseURLNeedsTheOperator(t *testing.T) {
	t.Parallel()
	_, journal, sender := openTo(t, "", twilio.Timeouts{})
	res := sender.Send(t.Context(), to("+251911000001"))
	require.Equal(t, channel.Fail(channel.ClassConfig, "connect_failed", "could not connect to Twilio"), res)
	require.Equal(t, channel.Fail(channel.ClassTransient, "connect_failed", res.Text), sender.(channel.Verifier).Verify(t.Context()))
	sum, err := sim.ReadJournal(journal)
	require.NoError(t, err)
	require.Zero(t, sum.Received)
}

func TestSendStopsWithContext(t *testing.T) {
	t.Parallel()
	_, _, sender := openTo(t, "127.0.0.1/32:*", twilio.Timeouts{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	res := sender.Send(ctx, to("+15005550041"))
	require.Equal(t, channel.Unknown, res.Outcome)
	require.Equal(t, "cancelled", res.Code)
	require.Equal(t, channel.Accepted, sender.Send(t.Context(), to("+251911000001")).Outcome)
}
