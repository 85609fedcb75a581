package channeltest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging/channel"
)

// lawForged: a call that nobody signed says nothing, whatever is in it.
func lawForged(t *testing.T, s Suite) {
	t.Helper()
	b := open(t, s, Case{})
	r, ok := b.sender.(channel.Receiver)
	if !ok {
		return
	}
	for _, body := range []string{"", "{}", "[]", "a=b&a=c", "{\"entry\":[{", "\xff\x00", strings.Repeat("[", 10_000)} {
		got, err := r.Receive(channel.Call{Method: "POST", URL: "https://" + Hostname + "/v1/webhooks/x/y/z", Body: []byte(body)})
		require.ErrorIs(t, err, channel.ErrForged)
		require.Equal(t, channel.Received{}, got)
	}
}

// lawPolls: a cursor never moves past what was not returned.
func lawPolls(t *testing.T, s Suite) {
	t.Helper()
	b := open(t, s, Case{Peers: peersOf(s.Polling)})
	p, ok := b.sender.(channel.Poller)
	require.Equal(t, ok, s.Polling != nil, "Suite.Polling belongs to a Poller")
	if !ok {
		return
	}
	_, next, res := p.Poll(b.ctx, "c0")
	require.Equal(t, channel.ClassOK, res.Class, "%+v", res)
	require.NotEqual(t, "c0", next)
	b.peers.refuseWith(errRefused)
	got, next, res := p.Poll(b.ctx, "c0")
	b.checkText(t, res)
	require.Equal(t, channel.NotSent, res.Outcome)
	require.Equal(t, "c0", next)
	require.Equal(t, channel.Received{}, got)
}

// lawRegisters: the address holds a token, which is nobody's business.
func lawRegisters(t *testing.T, s Suite) {
	t.Helper()
	const url = "https://" + Hostname + "/v1/webhooks/x/y/token-of-the-channel"
	b := open(t, s, Case{Peers: peersOf(s.Registers)})
	r, ok := b.sender.(channel.Registrar)
	require.Equal(t, ok, s.Registers != nil, "Suite.Registers belongs to a Registrar")
	if !ok {
		return
	}
	require.Equal(t, channel.ClassOK, r.Register(b.ctx, url).Class)
	b.peers.refuseWith(errRefused)
	res := r.Register(b.ctx, url)
	b.checkText(t, res)
	require.Equal(t, channel.NotSent, res.Outcome)
	require.NotContains(t, res.Text+res.RawExcerpt+b.log.String(), "token-of-the-channel")
}

func peersOf(p Peer) []Peer {
	if p == nil {
		return nil
	}
	return []Peer{p}
}
