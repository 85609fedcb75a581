package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/clock"
)

// errDeliveriesEnded: the broker cancelled the consumer (its queue was deleted),
// or the channel was closed.
var errDeliveriesEnded = errors.New("the broker stopped delivering")

// consumer is one call of Consume.
type consumer struct {
	bus      *Bus
	queue    bus.Queue
	dead     bool // the queue is the dead-letter queue
	handler  bus.Handler
	slots    chan struct{} // one token per message in hand, across connections
	handlers sync.WaitGroup
	classic  failures // where the broker does not count
}

// Consume implements bus.Consumer.
func (b *Bus) Consume(ctx context.Context, name string, prefetch int, h bus.Handler) error {
	c, err := b.join(name, prefetch, h)
	if err != nil {
		return err
	}
	defer b.consumers.Done()
	b.startConsuming()
	ctx, stop := b.untilClosed(ctx)
	defer stop()
	work, done := b.o.Policy.Drain(ctx, b.o.Clock)
	defer done()
	defer c.handlers.Wait()
	c.loop(ctx, work)
	if b.isClosed() {
		return bus.ErrClosed
	}
	return nil
}

// join checks the arguments and counts the consumer in, so Close waits for it.
func (b *Bus) join(name string, prefetch int, h bus.Handler) (*consumer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, bus.ErrClosed
	}
	c := &consumer{bus: b, handler: h, dead: name == b.topology.DeadLetterQueue}
	c.queue.Name = name
	known := c.dead
	for _, q := range b.topology.Queues {
		if q.Name == name {
			c.queue, known = q, true
		}
	}
	if !known {
		return nil, fmt.Errorf("%w: %q", bus.ErrNoQueue, name)
	}
	if prefetch < 1 {
		return nil, fmt.Errorf("%w: prefetch is %d, want at least 1", bus.ErrInvalid, prefetch)
	}
	c.slots = make(chan struct{}, prefetch)
	b.consumers.Add(1)
	return c, nil
}

// loop consumes on one session after the other.
func (c *consumer) loop(ctx, work context.Context) {
	pause := c.bus.consuming.pauses()
	for ctx.Err() == nil {
		s, err := c.bus.consuming.wait(ctx)
		if err != nil {
			return // only the end of ctx ends the wait
		}
		began, err := c.session(ctx, work, s)
		if ctx.Err() != nil {
			return
		}
		if began && err == nil {
			continue // it was quiet: subscribe again
		}
		if began {
			pause.Reset()
		}
		delay := pause.NextBackOff()
		c.bus.o.Logger.LogAttrs(ctx, slog.LevelWarn, "consumer interrupted", slog.String("queue", c.queue.Name),
			slog.Duration("retry_in", delay), slog.Any("err", err))
		// The only error is the end of ctx, seen by the loop.
		_ = clock.Sleep(ctx, c.bus.o.Clock, delay)
	}
}

// session consumes until the session or ctx ends, or, without an error, until it
// has been quiet for long. began says whether deliveries started.
func (c *consumer) session(ctx, work context.Context, s *session) (began bool, err error) {
	// A broker that no longer answers must not hold up the end of the work.
	defer context.AfterFunc(work, s.drop)()
	ch, deliveries, err := c.subscribe(work, s)
	if err != nil {
		// The queue may have been deleted: put it back before the next try.
		return false, errors.Join(err, c.bus.consuming.setUpAgain(ctx, s))
	}
	if !c.receive(ctx, work, deliveries) {
		return true, errors.Join(errDeliveriesEnded, s.within(work, func() error { return closeChannel(ch) }))
	}
	return true, c.leave(work, s, ch, deliveries)
}

// subscribe opens a channel and starts deliveries on it.
func (c *consumer) subscribe(ctx context.Context, s *session) (ch *amqp.Channel, deliveries <-chan amqp.Delivery, err error) {
	err = s.within(ctx, func() (err error) {
		if ch, err = s.conn.Channel(); err != nil {
			return fmt.Errorf("open channel: %w", err)
		}
		deliveries, err = c.begin(ch)
		return err
	})
	return ch, deliveries, err
}

// consumerTag names the one consumer of a channel.
const consumerTag = "c"

func (c *consumer) begin(ch *amqp.Channel) (<-chan amqp.Delivery, error) {
	if err := ch.Qos(cap(c.slots), 0, false); err != nil {
		return nil, fmt.Errorf("set prefetch: %w", err)
	}
	deliveries, err := ch.Consume(c.queue.Name, consumerTag, false, false, false, false, nil)
	if err != nil {
		return nil, fmt.Errorf("consume %s: %w", c.queue.Name, err)
	}
	return deliveries, nil
}

// receive starts handlers until the deliveries end (false), ctx does or nothing
// has come for two quiet checks (true). A broker can forget a consumer: seen on
// 3.10 when a queue is deleted and declared again before its consumers were
// told; then it counts messages as delivered that never come. Nothing it answers
// shows that, so a quiet consumer subscribes again, which frees them.
func (c *consumer) receive(ctx, work context.Context, deliveries <-chan amqp.Delivery) bool {
	quiet := c.bus.o.Clock.NewTimer(c.bus.o.QuietCheck)
	defer func() { quiet.Stop() }()
	for idle := false; ; {
		select {
		case <-ctx.Done():
			return true
		case d, ok := <-deliveries:
			if !ok {
				return false
			}
			idle = false
			c.start(ctx, work, d)
		case <-quiet.C():
			if idle && len(c.slots) == 0 {
				return true
			}
			idle = true
			quiet = c.bus.o.Clock.NewTimer(c.bus.o.QuietCheck)
		}
	}
}

// leave tells the broker to send no more, handles what has come already and
// closes the channel when all of it is acknowledged.
func (c *consumer) leave(work context.Context, s *session, ch *amqp.Channel, deliveries <-chan amqp.Delivery) error {
	if err := s.within(work, func() error { return ch.Cancel(consumerTag, false) }); err != nil {
		return fmt.Errorf("cancel consumer: %w", err)
	}
	for d := range deliveries {
		c.start(work, work, d)
	}
	c.handlers.Wait()
	return s.within(work, func() error { return closeChannel(ch) })
}

// start runs the handler of one delivery when a slot is free. The broker keeps
// to the prefetch itself; the slot also counts handlers from a lost connection.
func (c *consumer) start(ctx, work context.Context, d amqp.Delivery) {
	c.slots <- struct{}{}
	c.handlers.Go(func() {
		defer func() { <-c.slots }()
		c.handle(ctx, work, d)
	})
}

// handle runs the handler and answers the broker. A failing answer means that
// the connection is gone; then the broker delivers the message again by itself.
func (c *consumer) handle(ctx, work context.Context, d amqp.Delivery) {
	m, policy := fromDelivery(d), c.bus.o.Policy
	err := policy.Call(work, c.handler, m)
	if err == nil {
		c.classic.forget(m.ID)
		_ = d.Ack(false)
		return
	}
	attempt := c.attempt(d)
	c.bus.o.Logger.LogAttrs(work, slog.LevelWarn, "message handler failed", slog.String("queue", c.queue.Name),
		slog.String("message_id", m.ID), slog.Int("attempt", attempt), slog.Any("err", err))
	last := attempt >= policy.Attempts && !c.dead
	if !last {
		// An early end of the pause only brings the message back sooner.
		_ = clock.Sleep(ctx, c.bus.o.Clock, policy.Delay(attempt))
	}
	if last && !c.queue.Quorum {
		c.classic.forget(m.ID)
		_ = d.Nack(false, false)
		return
	}
	_ = d.Nack(false, true) // a quorum queue buries it by its own count
}

// attempt numbers the failed attempt from 1.
func (c *consumer) attempt(d amqp.Delivery) int {
	if c.queue.Quorum {
		return deliveryCount(d) + 1
	}
	return c.classic.add(d.MessageId)
}

// failures counts failed attempts by message id for classic queues, in which
// the broker does not count. A restart forgets it, which only means more
// attempts.
type failures struct {
	mu    sync.Mutex
	count map[string]int
}

// maxFailures bounds the memory of failures.
const maxFailures = 10_000

func (f *failures) add(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == nil || len(f.count) >= maxFailures {
		f.count = make(map[string]int)
	}
	f.count[id]++
	return f.count[id]
}

func (f *failures) forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.count, id)
}
