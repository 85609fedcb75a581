package dispatch

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// probeLimit is how long a chunk has a channel to itself that it tries. A call that is
// silent ends the try before.
const probeLimit = silentCall + 5*time.Second

// condition is what a runner found out about its channel.
type condition struct {
	// probing: this chunk tries a channel that did not work, one message at a time.
	probing bool
	// broken: the channel does not work; what may go elsewhere should.
	broken bool
	// tripped is the outcome of this window that was one failure too many; nil for none.
	tripped atomic.Pointer[messaging.Outcome]
	// took is how long what was taken in last took since the gate.
	took time.Duration
}

func (r *runner) seen() postgres.Seen {
	return postgres.Seen{AccountID: r.chunk.AccountID, ChannelID: r.channel.ID, ChunkID: r.chunk.ID, SendEpoch: r.channel.SendEpoch}
}

// admitted reports whether the channel may send, or this chunk may try it.
func (r *runner) admitted(ctx context.Context) (ok bool, err error) {
	now := r.cfg.Clock.Now()
	if r.channel.MaySend(now) {
		return true, nil
	}
	if r.channel.MayProbe(now) {
		r.probing, err = r.ledger.ProbeChannel(ctx, r.seen())
	}
	r.broken = !r.probing && r.channel.IsEnabled && (r.channel.CircuitUntil != nil || r.channel.Status == messaging.ChannelError)
	return r.probing, err
}

// hold puts off what waits for a channel that may not send. If it may by now, the chunk
// comes back at once.
func (r *runner) hold(ctx context.Context) (postgres.Rest, error) {
	return putOff(r.ledger.HoldChannel(ctx, r.chunk))
}

// putOff is what becomes of the rest of a chunk that was to be put off.
func putOff(held bool, err error) (postgres.Rest, error) {
	if held {
		return postgres.Rest{Held: true}, err
	}
	return postgres.Rest{Delay: atOnce}, err
}

// atOnce is how long a chunk waits that may go on.
const atOnce = 10 * time.Millisecond

// effects does to the channel what outcomes ask for, before the gate is passed again.
func (r *runner) effects(ctx context.Context, taken []messaging.Outcome) error {
	if last := r.tripped.Swap(nil); last != nil && !r.probing {
		return r.breakOff(ctx, codeCircuitOpen, *last)
	}
	if err := r.pause(ctx, taken); err != nil {
		return err
	}
	for _, o := range taken {
		if o.Refused() {
			r.broken, r.probing = true, false
			r.cfg.Metrics.pauses.WithLabelValues(r.chunk.ChannelType, o.Class).Inc()
			return r.ledger.BreakChannel(ctx, r.seen(), true, o.WhyItRests())
		}
	}
	if r.probing {
		return r.verdict(ctx, taken)
	}
	return nil
}

// breakOff lets the channel rest, since its provider does not work, as the last outcome says.
func (r *runner) breakOff(ctx context.Context, class string, last messaging.Outcome) error {
	r.broken, r.probing = true, false
	r.cfg.Metrics.pauses.WithLabelValues(r.chunk.ChannelType, class).Inc()
	return r.ledger.BreakChannel(ctx, r.seen(), false, last.WhyItRests())
}

// pause lets the channel rest as long as the provider asked, and go on slower where it
// did not say how long.
func (r *runner) pause(ctx context.Context, taken []messaging.Outcome) error {
	var rest time.Duration
	var slow int32
	for _, o := range taken {
		if o.Class != channel.ClassRateLimited.String() {
			continue
		}
		if rest = max(rest, o.RetryIn); o.Slow {
			slow = r.observed(taken)
		}
	}
	if rest == 0 {
		return nil
	}
	r.cfg.Metrics.pauses.WithLabelValues(r.chunk.ChannelType, channel.ClassRateLimited.String()).Inc()
	r.cfg.Metrics.rateLimits.WithLabelValues(r.chunk.ChannelType, byProvider).Inc()
	return r.ledger.PauseChannel(ctx, r.seen(), r.cfg.Clock.Now().Add(rest), slow)
}

// observed is how many messages per minute the provider took in the last window, which
// counts for a second at least.
func (r *runner) observed(outcomes []messaging.Outcome) int32 {
	taken := 0
	for _, o := range outcomes {
		if o.Status == messaging.MessageSent {
			taken++
		}
	}
	return max(int32(float64(taken)*60/max(r.took.Seconds(), 1)), 1)
}

// verdict ends a probe as its message went; one that was not called says nothing.
func (r *runner) verdict(ctx context.Context, taken []messaging.Outcome) error {
	for _, o := range taken {
		switch {
		case o.Failing():
			return r.breakOff(ctx, o.Class, o)
		case o.Class != "":
			r.probing = false
			r.line.valve.open()
			return r.ledger.MendChannel(ctx, r.seen())
		}
	}
	return nil
}

// letOthers gives up a probe that found nothing out, and lets messages that named only
// the type of a channel go on one that works.
func (r *runner) letOthers(ctx context.Context) error {
	if r.probing {
		if err := r.ledger.LeaveProbe(ctx, r.seen()); err != nil {
			return err
		}
	}
	if !r.broken || !r.chunk.ByType {
		return nil
	}
	return r.ledger.FailOver(ctx, r.chunk.AccountID, r.chunk.ChannelType)
}
