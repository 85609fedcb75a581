package dispatch

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// TestRoomInMemory: a fan-out waits for room, not for long, and not again until there was
// some.
func TestRoomInMemory(t *testing.T) {
	t.Parallel()
	now := clock.NewFake(clock.System().Now())
	h := &handed{room: make(chan struct{}, 1)}
	h.start()
	asks := func() <-chan bool {
		answer := make(chan bool, 1)
		go func() { answer <- h.hasRoom(t.Context(), now) }()
		return answer
	}
	waits := func() <-chan bool {
		answer := asks()
		require.NoError(t, now.WaitForTimers(t.Context(), 1))
		return answer
	}
	fill := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		c := &postgres.Handed{Chunk: &postgres.Chunk{ChannelID: "channel"}, Messages: make([]postgres.ChunkMessage, maxHanded)}
		h.waiting[c.ChannelID], h.messages = append(h.waiting[c.ChannelID], c), h.messages+maxHanded
	}
	take := func() { require.NotNil(t, h.next(func(*postgres.Chunk) bool { return false })) }

	require.True(t, <-asks())
	fill()
	answer := waits()
	take()
	require.True(t, <-answer, "a runner took a chunk")

	fill()
	answer = waits()
	now.Advance(roomLimit)
	require.False(t, <-answer, "the channel is slow")
	require.False(t, <-asks(), "and still is: nobody waits for it again")

	take()
	require.True(t, <-asks())
	fill()
	answer = waits()
	h.all(true)
	require.False(t, <-answer, "the role has stopped")
}
