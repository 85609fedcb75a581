package inproc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/clock"
)

// Consume implements bus.Consumer.
func (b *Bus) Consume(ctx context.Context, name string, prefetch int, h bus.Handler) error {
	q, err := b.join(name, prefetch)
	if err != nil {
		return err
	}
	defer b.consumers.Done()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	work, done := b.policy.Drain(ctx, b.clock)
	defer done()

	var handlers sync.WaitGroup
	defer handlers.Wait()
	defer stop() // before the wait: it ends the pauses between attempts
	slots := make(chan struct{}, prefetch)
	for {
		e, err := b.next(ctx, q, slots)
		if err != nil {
			return ended(err)
		}
		handlers.Go(func() {
			defer func() { <-slots }()
			b.handle(ctx, work, q, e, h)
		})
	}
}

// join checks the arguments and counts the consumer in, so Close waits for it.
func (b *Bus) join(name string, prefetch int) (*queue, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, bus.ErrClosed
	}
	q, ok := b.queues[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", bus.ErrNoQueue, name)
	}
	if prefetch < 1 {
		return nil, fmt.Errorf("%w: prefetch is %d, want at least 1", bus.ErrInvalid, prefetch)
	}
	b.consumers.Add(1)
	return q, nil
}

// ended tells a closed bus, which is an error, from an ended context.
func ended(err error) error {
	if errors.Is(err, bus.ErrClosed) {
		return err
	}
	return nil
}

// next takes a slot and then a message, waiting for both.
func (b *Bus) next(ctx context.Context, q *queue, slots chan struct{}) (envelope, error) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return envelope{}, ctx.Err()
	case <-b.done:
		return envelope{}, bus.ErrClosed
	}
	for {
		select {
		case <-ctx.Done():
			return envelope{}, ctx.Err()
		case <-b.done:
			return envelope{}, bus.ErrClosed
		case <-q.wake:
		}
		b.mu.Lock()
		e, ok := q.pop()
		b.mu.Unlock()
		if ok {
			return e, nil
		}
	}
}

// handle runs the handler once and settles the message: gone, back in the queue
// after a pause, or dead.
func (b *Bus) handle(ctx, work context.Context, q *queue, e envelope, h bus.Handler) {
	err := b.policy.Call(work, h, e.message)
	if err == nil {
		return
	}
	e.failures++
	e.message.Redelivered = true
	b.log.LogAttrs(work, slog.LevelWarn, "message handler failed", slog.String("queue", q.Name),
		slog.String("message_id", e.message.ID), slog.Int("attempt", e.failures), slog.Any("err", err))
	if q != b.dead && e.failures >= b.policy.Attempts {
		b.bury(q, e)
		return
	}
	// An early end of the pause only brings the message back sooner.
	_ = clock.Sleep(ctx, b.clock, b.policy.Delay(e.failures))
	b.mu.Lock()
	q.push(e)
	b.mu.Unlock()
}

// bury moves a message to the dead-letter queue and notes where it failed.
func (b *Bus) bury(q *queue, e envelope) {
	m := e.message
	m.Redelivered = false
	m.Headers = maps.Clone(m.Headers)
	if m.Headers == nil {
		m.Headers = make(map[string]string, 2)
	}
	m.Headers[bus.HeaderDeadQueue] = q.Name
	m.Headers[bus.HeaderDeadReason] = "delivery_limit"
	b.mu.Lock()
	b.dead.push(envelope{message: m})
	b.mu.Unlock()
}
