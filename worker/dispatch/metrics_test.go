package dispatch

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging"
)

func TestOutcomeMetrics(t *testing.T) {
	t.Parallel()
	registry, c := prometheus.NewRegistry(), clock.NewFake(time.Unix(1_770_000_000, 0))
	m, err := NewMetrics(registry, c)
	require.NoError(t, err)
	email := &messaging.Channel{ChannelType: "email", Provider: "smtp"}
	m.outcomes(email, []messaging.Outcome{
		{Status: messaging.MessageSent, Class: "ok"},
		{Status: messaging.MessageSent, Class: "ok"},
		{Status: messaging.MessageFailed, Class: "transient"},
		{Status: messaging.MessagePermanentlyFailed, Code: messaging.CodeOptedOut},
	})
	rate := func(want string) {
		t.Helper()
		require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP turumba_dispatch_failure_rate Share of provider calls of the last five minutes that did not succeed, 0 to 1.
# TYPE turumba_dispatch_failure_rate gauge
turumba_dispatch_failure_rate{channel_type="email"} `+want+"\n"), "turumba_dispatch_failure_rate"))
	}
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP turumba_messages_dispatched_total Messages that got an outcome: the state it brought them to and the adapter's class, refused for those that were not sent.
# TYPE turumba_messages_dispatched_total counter
turumba_messages_dispatched_total{channel_type="email",class="ok",provider="smtp",status="sent"} 2
turumba_messages_dispatched_total{channel_type="email",class="refused",provider="smtp",status="permanently_failed"} 1
turumba_messages_dispatched_total{channel_type="email",class="transient",provider="smtp",status="failed"} 1
`), "turumba_messages_dispatched_total"))
	rate("0.25")
	c.Advance(4 * time.Minute)
	m.outcomes(email, []messaging.Outcome{{Status: messaging.MessageSent, Class: "ok"}})
	rate("0.2")
	c.Advance(2 * time.Minute)
	rate("0")
}
