package channeltest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/services/messaging/channel"
)

// errRefused is a port that is closed.
var errRefused = errors.New("connection refused by 10.9.8.7")

// laws are true of every adapter.
func laws(t *testing.T, s Suite) {
	t.Helper()
	for name, law := range map[string]func(*testing.T, Suite){
		"accepts":                  lawAccepts,
		"broken off":               lawBrokenOff,
		"same bytes every attempt": lawStable,
		"cancelled before sending": lawCancelled,
		"closed":                   lawClosed,
		"unreachable":              lawUnreachable,
		"forbidden":                lawForbidden,
		"foreign settings":         lawForeign,
		"adapter is listed":        lawListed,
		"capabilities":             lawCapabilities,
		"forged calls":             lawForged,
		"polls":                    lawPolls,
		"registers":                lawRegisters,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			law(t, s)
		})
	}
}

func lawAccepts(t *testing.T, s Suite) {
	t.Helper()
	b := open(t, s, Case{Peers: []Peer{s.Healthy}})
	res := b.sender.Send(b.ctx, b.message)
	b.checkResult(t, res)
	require.Equal(t, channel.Accepted, res.Outcome, "%+v", res)
	require.NoError(t, b.sender.Close())
	require.NotEmpty(t, b.peers.wait(t))
	b.checkLog(t)
}

// lawBrokenOff: what was handed over without an answer is not known, and not tried
// again by the adapter.
func lawBrokenOff(t *testing.T, s Suite) {
	t.Helper()
	b := open(t, s, Case{Peers: []Peer{s.BreaksOff}})
	res := b.sender.Send(b.ctx, b.message)
	b.checkResult(t, res)
	require.Equal(t, channel.Unknown, res.Outcome, "%+v", res)
	require.NoError(t, b.sender.Close())
	require.NotEmpty(t, b.peers.wait(t))
	b.checkLog(t)
}

// lawStable: a provider that folds duplicates must be able to see them.
func lawStable(t *testing.T, s Suite) {
	t.Helper()
	var seen [2]string
	for i := range seen {
		b := open(t, s, Case{Peers: []Peer{s.Healthy}})
		require.Equal(t, channel.Accepted, b.sender.Send(b.ctx, b.message).Outcome)
		require.NoError(t, b.sender.Close())
		seen[i] = b.peers.wait(t)
	}
	require.Equal(t, seen[0], seen[1])
}

func lawCancelled(t *testing.T, s Suite) {
	t.Helper()
	b := open(t, s, Case{})
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	res := b.sender.Send(ctx, b.message)
	b.checkResult(t, res)
	require.Equal(t, channel.NotSent, res.Outcome)
	require.Equal(t, channel.ClassTransient, res.Class)
	require.Empty(t, b.peers.dialedAddresses())
}

func lawClosed(t *testing.T, s Suite) {
	t.Helper()
	b := open(t, s, Case{})
	require.NoError(t, b.sender.Close())
	require.NoError(t, b.sender.Close())
	res := b.sender.Send(b.ctx, b.message)
	b.checkResult(t, res)
	require.Equal(t, channel.NotSent, res.Outcome)
}

func lawUnreachable(t *testing.T, s Suite) {
	t.Helper()
	b := open(t, s, Case{})
	b.peers.refuseWith(errRefused)
	res := b.sender.Send(b.ctx, b.message)
	b.checkResult(t, res)
	require.Equal(t, channel.NotSent, res.Outcome)
	require.Equal(t, channel.ClassTransient, res.Class)
	require.NotContains(t, res.Text+res.RawExcerpt, "10.9.8.7")
}

// lawForbidden: the owner of the channel must not learn more from a forbidden
// destination than from a closed one.
func lawForbidden(t *testing.T, s Suite) {
	t.Helper()
	b := open(t, s, Case{})
	b.peers.refuseWith(errors.New("refused"))
	closed := b.sender.Send(b.ctx, b.message)
	b.peers.refuseWith(egress.ErrForbidden)
	forbidden := b.sender.Send(b.ctx, b.message)
	b.checkResult(t, forbidden)
	require.Equal(t, channel.NotSent, forbidden.Outcome)
	require.Equal(t, channel.ClassConfig, forbidden.Class)
	require.Equal(t, closed.Text, forbidden.Text)
	require.Equal(t, closed.Code, forbidden.Code)
}

func lawForeign(t *testing.T, s Suite) {
	t.Helper()
	adapter := s.New(Env{})
	_, err := adapter.Open(nil)
	require.Error(t, err)
}

func lawListed(t *testing.T, s Suite) {
	t.Helper()
	adapter := s.New(Env{})
	list := channel.Adapters{adapter}
	found, ok := list.For(adapter.Type(), adapter.Provider())
	require.True(t, ok)
	require.Equal(t, adapter, found)
	_, ok = list.For(adapter.Type(), "no-such-provider")
	require.False(t, ok)
}

// lawCapabilities: what is promised is checked before work is accepted, so it must hold.
func lawCapabilities(t *testing.T, s Suite) {
	t.Helper()
	adapter := s.New(Env{})
	caps := adapter.Capabilities()
	require.Equal(t, caps, adapter.Capabilities())
	require.Positive(t, caps.MaxInFlight)
	require.Equal(t, caps.MaxAttachments > 0, caps.MaxAttachmentBytes > 0)
	require.True(t, caps.MaxBytes == 0 || caps.MaxAttachmentBytes < caps.MaxBytes)
	b := open(t, s, Case{})
	_, receives := b.sender.(channel.Receiver)
	_, polls := b.sender.(channel.Poller)
	require.Equal(t, receives || polls, caps.Receipts || caps.Inbound)
	if caps.MaxText == 0 {
		return
	}
	b.message.Text = strings.Repeat("x", caps.MaxText+1)
	res := b.sender.Send(b.ctx, b.message)
	b.checkResult(t, res)
	require.Equal(t, channel.ClassPermanentContent, res.Class, "%+v", res)
	require.Empty(t, b.peers.dialedAddresses(), "it was known beforehand")
	healthy := open(t, s, Case{Peers: []Peer{s.Healthy}})
	healthy.message.Text = strings.Repeat("x", caps.MaxText)
	require.Equal(t, channel.Accepted, healthy.sender.Send(healthy.ctx, healthy.message).Outcome)
	require.NoError(t, healthy.sender.Close())
	healthy.peers.wait(t)
}
