package dispatch

import (
	"context"
	"time"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

const (
	// askLimit is how long one statement may take, or one transaction of the ledger. A
	// connection that carries nothing any more costs one of them, and is closed with it.
	askLimit = 5 * time.Second
	// readLimit is the same for what may be large: the messages of a chunk, a send's files.
	readLimit = 10 * time.Second
)

// ledger is the store as this package has it: each call has a limit of its own, so that
// nothing here can wait for a database for ever.
type ledger struct{ store *postgres.Store }

// asking bounds what returns nothing but an error.
func asking(ctx context.Context, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	return do(ctx)
}

// reading bounds what returns a value.
func reading[T any](ctx context.Context, limit time.Duration, do func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return do(ctx)
}

func (l ledger) ClaimChunk(ctx context.Context, lane string, types []string, skip postgres.Skip) (*postgres.Chunk, error) {
	return reading(ctx, askLimit, func(ctx context.Context) (*postgres.Chunk, error) {
		return l.store.ClaimChunk(ctx, lane, types, skip, lease)
	})
}

func (l ledger) ExtendChunks(ctx context.Context, list []*postgres.Chunk) error {
	ctx, cancel := context.WithTimeout(ctx, extendLimit)
	defer cancel()
	return l.store.ExtendChunks(ctx, list, lease)
}

func (l ledger) ChunkWork(ctx context.Context, c *postgres.Chunk) (postgres.Work, error) {
	return reading(ctx, askLimit, func(ctx context.Context) (postgres.Work, error) { return l.store.ChunkWork(ctx, c) })
}

func (l ledger) ChunkMessages(ctx context.Context, c *postgres.Chunk) ([]postgres.ChunkMessage, error) {
	return reading(ctx, readLimit, func(ctx context.Context) ([]postgres.ChunkMessage, error) {
		return l.store.ChunkMessages(ctx, c, c.CallingUpto)
	})
}

func (l ledger) Files(ctx context.Context, accountID string, digests []string) (map[string][]byte, error) {
	return reading(ctx, readLimit, func(ctx context.Context) (map[string][]byte, error) { return l.store.Files(ctx, accountID, digests) })
}

func (l ledger) PassGate(ctx context.Context, c *postgres.Chunk, upto int, sendEpoch int64, keys []string, outcomes []messaging.Outcome) (postgres.Gate, error) {
	return reading(ctx, askLimit, func(ctx context.Context) (postgres.Gate, error) {
		return l.store.PassGate(ctx, c, upto, sendEpoch, lease, keys, outcomes)
	})
}

func (l ledger) EndChunk(ctx context.Context, c *postgres.Chunk, outcomes []messaging.Outcome, rest postgres.Rest) error {
	return asking(ctx, func(ctx context.Context) error { return l.store.EndChunk(ctx, c, outcomes, rest) })
}

func (l ledger) SetAside(ctx context.Context, from, aside *postgres.Chunk) error {
	return asking(ctx, func(ctx context.Context) error { return l.store.SetAside(ctx, from, aside, lease) })
}

// slots are what a reservation of a channel's rate granted, or how long to wait for some.
type slots struct {
	granted int
	wait    time.Duration
}

func (l ledger) Reserve(ctx context.Context, c *postgres.Chunk, perMinute int32, want int) (slots, error) {
	return reading(ctx, askLimit, func(ctx context.Context) (s slots, err error) {
		s.granted, s.wait, err = l.store.Reserve(ctx, c.ChannelID, c.Lane, perMinute, want)
		return s, err
	})
}

func (l ledger) ProbeChannel(ctx context.Context, seen postgres.Seen) (bool, error) {
	return reading(ctx, askLimit, func(ctx context.Context) (bool, error) { return l.store.ProbeChannel(ctx, seen, probeLimit) })
}

func (l ledger) HoldChannel(ctx context.Context, c *postgres.Chunk) (held bool, err error) {
	return reading(ctx, askLimit, func(ctx context.Context) (bool, error) { return l.store.HoldChannel(ctx, c) })
}

func (l ledger) PutOff(ctx context.Context, c *postgres.Chunk, sendEpoch int64, delay time.Duration) (held bool, err error) {
	return reading(ctx, askLimit, func(ctx context.Context) (bool, error) { return l.store.PutOff(ctx, c, sendEpoch, delay) })
}

func (l ledger) BreakChannel(ctx context.Context, seen postgres.Seen, refused bool, why string) error {
	return asking(ctx, func(ctx context.Context) error { return l.store.BreakChannel(ctx, seen, refused, why) })
}

func (l ledger) MendChannel(ctx context.Context, seen postgres.Seen) error {
	return asking(ctx, func(ctx context.Context) error { return l.store.MendChannel(ctx, seen) })
}

func (l ledger) PauseChannel(ctx context.Context, seen postgres.Seen, until time.Time, slow int32) error {
	return asking(ctx, func(ctx context.Context) error { return l.store.PauseChannel(ctx, seen, until, slow) })
}

func (l ledger) LeaveProbe(ctx context.Context, seen postgres.Seen) error {
	return asking(ctx, func(ctx context.Context) error { return l.store.LeaveProbe(ctx, seen) })
}

func (l ledger) FailOver(ctx context.Context, accountID, channelType string) error {
	return asking(ctx, func(ctx context.Context) error {
		_, err := l.store.FailOver(ctx, accountID, channelType)
		return err
	})
}
